package main

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"sluice/ingest/internal/problem"
	"sluice/schemas/topic"
)

const produceKey = kmsg.Produce

// quick has the edge give up on the log soon.
func quick(c *config) { c.Produce.AckTimeout = 400 * time.Millisecond }

func requireRetryAfter(t *testing.T, a answer) {
	t.Helper()
	n, err := strconv.Atoi(a.header.Get("Retry-After"))
	require.NoError(t, err, "Retry-After: %q", a.header.Get("Retry-After"))
	require.Positive(t, n)
}

// TestNoAckNo202: while the broker answers errors that leave open whether the
// record was written, no post is answered with a 202; once it does not, all is
// fine again, and what was written twice was written under one key.
func TestNoAckNo202(t *testing.T) {
	for _, fault := range []*kerr.Error{kerr.RequestTimedOut, kerr.NotEnoughReplicasAfterAppend, kerr.NotEnoughReplicas, kerr.NotLeaderForPartition} {
		t.Run(fault.Message, func(t *testing.T) {
			e := startEdge(t, newCluster(t), quick)
			h := e.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{produceKey}, Err: fault, Count: -1})
			a := e.post(t, "/api/events", []byte(good))
			require.Equal(t, http.StatusServiceUnavailable, a.status, "%s", a.body)
			p := a.problem(t)
			require.Equal(t, problem.TypePrefix+"log-unavailable", p.Type)
			require.True(t, p.Retryable)
			requireRetryAfter(t, a)

			a = e.post(t, "/api/events/batch", array(good, `{}`, numbered(1)))
			require.Equal(t, http.StatusServiceUnavailable, a.status, "%s", a.body)
			requireRetryAfter(t, a)
			b := a.batch(t)
			require.Equal(t, []int{0, 1, 2}, []int{b.Accepted, b.Rejected, b.Failed})
			require.Equal(t, "failed", b.Items[0].Status)
			require.True(t, b.Items[0].Retryable)
			require.Equal(t, "rejected", b.Items[1].Status)

			require.Positive(t, h.Hits(), "the broker was not asked")
			h.Remove()
			require.Eventually(t, func() bool {
				return e.post(t, "/api/events", []byte(good)).status == http.StatusAccepted
			}, 20*time.Second, 20*time.Millisecond)
		})
	}
}

// TestSomeNotAcknowledged: a batch over several partitions of which one does
// not take its records: each item has its own answer.
func TestSomeNotAcknowledged(t *testing.T) {
	e := startEdge(t, newCluster(t), quick)
	h := e.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{produceKey}, Topic: topic.Events, Partitions: []int32{1}, Err: kerr.NotEnoughReplicas, Count: -1})
	a := e.post(t, "/api/events/batch", array(manyEvents(100)...))
	require.Equal(t, http.StatusMultiStatus, a.status, "%s", a.body)
	b := a.batch(t)
	require.Equal(t, 100, b.Accepted+b.Failed)
	require.Positive(t, b.Accepted)
	require.Positive(t, b.Failed)
	queued := map[string]bool{}
	for _, it := range b.Items {
		if it.Status == "queued" {
			queued[it.EventID] = true
		}
	}
	require.Len(t, queued, b.Accepted)
	for _, r := range records(t, e.cluster, b.Accepted) {
		require.NotEqual(t, int32(1), r.Partition)
		require.True(t, queued[string(r.Headers[0].Value)])
	}
	h.Remove()
}

// TestBrokerTooSmall: a topic that takes less than the edge does. The event is
// refused for good, not failed: sending it again would be of no use.
func TestBrokerTooSmall(t *testing.T) {
	e := startEdge(t, newCluster(t), nil)
	h := e.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{produceKey}, Err: kerr.MessageTooLarge, Count: 2})
	defer h.Remove()
	a := e.post(t, "/api/events", []byte(good))
	require.Equal(t, http.StatusRequestEntityTooLarge, a.status, "%s", a.body)
	p := a.problem(t)
	require.Equal(t, problem.TypePrefix+"event-too-large", p.Type)
	require.False(t, p.Retryable)
	a = e.post(t, "/api/events/batch", array(good))
	require.Equal(t, http.StatusBadRequest, a.status, "%s", a.body)
	require.Equal(t, 1, a.batch(t).Rejected)
}

// TestBrokerGoneAndBack: the broker's process ends and comes back on the same
// port and data. In between every post is answered in time with a 503; what was
// answered with a 202 is in the log.
func TestBrokerGoneAndBack(t *testing.T) {
	dir := t.TempDir()
	seed := []kfake.Opt{kfake.NumBrokers(1), kfake.DataDir(dir), kfake.SeedTopics(partitions, topic.Events)}
	first, err := kfake.NewCluster(seed...)
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(first.ListenAddrs()[0])
	require.NoError(t, err)
	n, err := strconv.Atoi(port)
	require.NoError(t, err)
	var second *kfake.Cluster
	t.Cleanup(func() { // after the edge has stopped
		if second != nil {
			second.Close()
		}
	})
	e := startEdge(t, first, quick)
	require.Equal(t, http.StatusAccepted, e.post(t, "/api/events", []byte(numbered(1))).status)

	first.Close()
	for range 3 {
		a := e.post(t, "/api/events", []byte(numbered(2)))
		require.Equal(t, http.StatusServiceUnavailable, a.status, "%s", a.body)
		requireRetryAfter(t, a)
	}
	// Once it is known to be away, no one waits, and the edge says so.
	require.Eventually(t, func() bool {
		status, _ := e.get(t, e.url+"/readyz")
		return status == http.StatusServiceUnavailable
	}, 20*time.Second, 10*time.Millisecond)
	status, _ := e.get(t, e.url+"/healthz")
	require.Equal(t, http.StatusOK, status, "alive without its dependencies")
	_, before := e.get(t, e.admin+"/metrics")
	require.Equal(t, http.StatusServiceUnavailable, e.post(t, "/api/events", []byte(numbered(3))).status)
	_, after := e.get(t, e.admin+"/metrics")
	require.NotEqual(t, metric(before, `sluice_ingest_produce_failures_total{reason="away"}`),
		metric(after, `sluice_ingest_produce_failures_total{reason="away"}`), "it was refused at once")

	second, err = kfake.NewCluster(append(seed, kfake.Ports(n))...)
	require.NoError(t, err)
	e.waitReady(t)
	require.Equal(t, http.StatusAccepted, e.post(t, "/api/events", []byte(numbered(4))).status)
	keys := map[string]bool{}
	total := 0
	for p := range int32(partitions) {
		total += int(second.PartitionInfo(topic.Events, p).HighWatermark)
	}
	for _, r := range records(t, second, total) {
		keys[string(r.Key)] = true
	}
	require.True(t, keys["app:click:u1:2026-01-02T03:04:05.000000000Z"] && keys["app:click:u4:2026-01-02T03:04:05.000000000Z"], "%v", keys)
}

func metric(text, name string) string {
	_, rest, _ := strings.Cut(text, "\n"+name+" ")
	value, _, _ := strings.Cut(rest, "\n")
	return value
}

// TestNoBroker: an edge started before its broker listens, says why it is not
// ready, and refuses at once.
func TestNoBroker(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := l.Addr().String()
	require.NoError(t, l.Close())
	e := launchEdge(t, []string{address}, quick)
	status, why := e.get(t, e.url+"/readyz")
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.NotEmpty(t, why)
	a := e.post(t, "/api/events", []byte(good))
	require.Equal(t, http.StatusServiceUnavailable, a.status)
	requireRetryAfter(t, a)
}

// TestNoTopic: the broker is there, its topic is not. The reason names it.
func TestNoTopic(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	t.Cleanup(c.Close)
	e := launchEdge(t, c.ListenAddrs(), quick)
	require.Eventually(t, func() bool {
		_, why := e.get(t, e.url+"/readyz")
		return strings.Contains(why, "the topic events does not exist")
	}, 20*time.Second, 10*time.Millisecond)
	require.Equal(t, http.StatusServiceUnavailable, e.post(t, "/api/events", []byte(good)).status)
}

// TestBufferFull: what is not acknowledged is bounded in bytes; past the bound
// posts are refused at once, and the memory comes back.
func TestBufferFull(t *testing.T) {
	e := startEdge(t, newCluster(t), func(c *config) {
		c.Produce.BufferBytes = 2 << 20
		c.Produce.AckTimeout = 2 * time.Second
	})
	// A broker that is there and does not answer a produce.
	release := make(chan struct{})
	var once sync.Once
	free := func() { once.Do(func() { close(release) }) }
	defer free()
	e.cluster.ControlKey(int16(produceKey), func(kmsg.Request) (kmsg.Response, error, bool) {
		e.cluster.KeepControl()
		e.cluster.SleepControl(func() { <-release })
		return nil, nil, false
	})
	big := with("payload", `{"a":"`+strings.Repeat("x", 900_000)+`"}`)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { _, _ = e.tryPost("/api/events", []byte(big)) })
	}
	require.Eventually(t, func() bool {
		a, err := e.tryPost("/api/events", []byte(big))
		if err != nil || a.status != http.StatusServiceUnavailable {
			return false
		}
		return strings.Contains(string(a.body), problem.TypePrefix+"overloaded")
	}, 20*time.Second, 10*time.Millisecond)
	free()
	wg.Wait()
	require.Eventually(t, func() bool {
		return e.post(t, "/api/events", []byte(big)).status == http.StatusAccepted
	}, 20*time.Second, 20*time.Millisecond)
	require.Eventually(t, func() bool {
		_, text := e.get(t, e.admin+"/metrics")
		return metric(text, "sluice_ingest_produce_buffer_bytes") == "0"
	}, 20*time.Second, 20*time.Millisecond)
}

// TestClientLeaves: a client that leaves while its post waits does not take its
// record, or anyone else's, with it.
func TestClientLeaves(t *testing.T) {
	e := startEdge(t, newCluster(t), nil)
	release := make(chan struct{})
	waiting := make(chan struct{})
	var once sync.Once
	e.cluster.ControlKey(int16(produceKey), func(kmsg.Request) (kmsg.Response, error, bool) {
		e.cluster.SleepControl(func() {
			once.Do(func() { close(waiting) })
			<-release
		})
		return nil, nil, false
	})
	ctx, leave := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url+"/api/events", strings.NewReader(numbered(1)))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	left := make(chan error, 1)
	go func() {
		resp, err := e.client.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		left <- err
	}()
	<-waiting
	leave()
	require.ErrorIs(t, <-left, context.Canceled)
	close(release)
	require.Equal(t, http.StatusAccepted, e.post(t, "/api/events", []byte(numbered(2))).status)
	require.Eventually(t, func() bool {
		n := int64(0)
		for p := range int32(partitions) {
			n += e.cluster.PartitionInfo(topic.Events, p).HighWatermark
		}
		return n == 2
	}, 20*time.Second, 10*time.Millisecond)
}
