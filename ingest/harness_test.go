package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"sluice/ingest/internal/logtest"
	"sluice/schemas/topic"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(brokerEnv); dir != "" {
		os.Exit(runBroker(dir))
	}
	// A spool that no test names must not be left in the home of who runs them.
	state, err := os.MkdirTemp("", "sluice-ingest-test-")
	if err != nil {
		panic(err)
	}
	if err := errors.Join(os.Unsetenv("STATE_DIRECTORY"), os.Setenv("XDG_STATE_HOME", state)); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(state) // it lies with the temporary files at worst
		os.Exit(code)
	}))
}

// edge is a running edge, as the command runs it, on free ports, with a broker
// of its own.
type edge struct {
	url, admin string
	address    string
	cluster    *kfake.Cluster
	client     *http.Client
	log        *lockedBuffer
	stop       context.CancelFunc
	ended      chan error // what serve returned
}

const partitions = 3

// newCluster starts a broker that lives as long as the test.
func newCluster(t testing.TB, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{
		kfake.NumBrokers(1),
		kfake.SeedTopics(partitions, topic.Events),
		kfake.BrokerConfigs(map[string]string{"message.max.bytes": "2097152"}),
	}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// startEdge starts an edge on cluster and waits until it is ready. change may
// be nil.
func startEdge(t testing.TB, cluster *kfake.Cluster, change func(*config)) *edge {
	t.Helper()
	e := launchEdge(t, cluster.ListenAddrs(), change)
	e.cluster = cluster
	e.waitReady(t)
	return e
}

// launchEdge starts an edge and waits until it listens.
func launchEdge(t testing.TB, brokers []string, change func(*config)) *edge {
	t.Helper()
	return launchReloading(t, brokers, change, rereading{})
}

// launchReloading starts an edge that reads its configuration again from again.
func launchReloading(t testing.TB, brokers []string, change func(*config), again rereading) *edge {
	t.Helper()
	cfg := defaults()
	cfg.HTTP.Address, cfg.Admin.Address = "127.0.0.1:0", "127.0.0.1:0"
	cfg.Kafka.Brokers = brokers
	cfg.Produce.ProbeInterval = 50 * time.Millisecond
	cfg.Spool.Enabled = false // spool_test.go turns it on
	if change != nil {
		change(&cfg)
	}
	require.NoError(t, cfg.validate())
	ctx, stop := context.WithCancel(context.Background())
	e := &edge{stop: stop, ended: make(chan error, 1), log: new(lockedBuffer)}
	e.client = &http.Client{Transport: judge{t, &http.Transport{MaxIdleConnsPerHost: 64, ExpectContinueTimeout: time.Second}}}
	listening := make(chan struct{})
	go func() {
		level := slog.LevelDebug // what is looked through for secrets below
		if _, bench := t.(*testing.B); bench {
			level = slog.LevelInfo
		}
		logger := slog.New(slog.NewTextHandler(e.log, &slog.HandlerOptions{Level: level}))
		e.ended <- serve(ctx, cfg, again, logger, func(events, admin net.Addr) {
			e.address = events.String()
			e.url, e.admin = "http://"+events.String(), "http://"+admin.String()
			close(listening)
		})
	}()
	select {
	case <-listening:
	case err := <-e.ended:
		stop()
		require.NoError(t, err, "the edge did not start")
	}
	t.Cleanup(func() {
		stop()
		e.client.CloseIdleConnections()
		if err, open := <-e.ended; open && err != nil {
			t.Errorf("the edge did not stop in order: %v", err)
		}
		for line := range strings.Lines(e.log.String()) {
			if logtest.Secret(line) {
				t.Errorf("a key or a part of an event is in the edge's log: %s", line)
			}
		}
		if t.Failed() {
			t.Logf("the edge's log:\n%s", e.log)
		}
	})
	return e
}

// wait waits for the edge to end by itself or after stop.
func (e *edge) wait(t testing.TB) error {
	t.Helper()
	err := <-e.ended
	close(e.ended)
	return err
}

func (e *edge) waitReady(t testing.TB) {
	t.Helper()
	require.Eventually(t, func() bool {
		status, _ := e.get(t, e.url+"/readyz")
		return status == http.StatusOK
	}, 20*time.Second, 10*time.Millisecond, "the edge did not become ready")
}

func (e *edge) get(t testing.TB, url string) (int, string) {
	t.Helper()
	resp, err := e.client.Get(url)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(body)
}

// answer is what the edge answered.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// post posts body; header is name, value, name, value.
func (e *edge) post(t testing.TB, path string, body []byte, header ...string) answer {
	t.Helper()
	a, err := e.tryPost(path, body, header...)
	require.NoError(t, err)
	return a
}

func (e *edge) tryPost(path string, body []byte, header ...string) (answer, error) {
	req, err := http.NewRequest(http.MethodPost, e.url+path, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		if header[i+1] == "" {
			req.Header.Del(header[i])
			continue
		}
		req.Header.Add(header[i], header[i+1])
		if header[i] == "Content-Type" {
			req.Header.Set(header[i], header[i+1])
		}
	}
	resp, err := e.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, got}, err
}

// problemBody is a problem as a client reads it.
type problemBody struct {
	Type, Title, Detail string
	Status              int
	Retryable           bool
	Error               []faultBody
}

type faultBody struct{ Pointer, Detail, Allowed string }

func (a answer) problem(t testing.TB) problemBody {
	t.Helper()
	require.Equal(t, "application/problem+json", a.header.Get("Content-Type"), "%s", a.body)
	var p problemBody
	require.NoError(t, json.Unmarshal(a.body, &p), "%s", a.body)
	require.Equal(t, a.status, p.Status)
	conform(t, "Problem", a.body)
	return p
}

// batchBody is a batch's answer as a client reads it.
type batchBody struct {
	Accepted, Deduplicated, Rejected, Failed int
	Items                                    []struct {
		Index     int
		EventID   string `json:"event_id"`
		Status    string
		Retryable bool
		Error     []faultBody
	}
}

func (a answer) batch(t testing.TB) batchBody {
	t.Helper()
	require.Equal(t, "application/json", a.header.Get("Content-Type"), "%s", a.body)
	var b batchBody
	require.NoError(t, json.Unmarshal(a.body, &b), "%s", a.body)
	if len(a.body) < 256<<10 { // the schema is slow on more
		conform(t, "BatchAnswer", a.body)
	}
	return b
}

// records reads the n records that the topic must hold, and sees that it holds
// no more.
func records(t testing.TB, cluster *kfake.Cluster, n int) []*kgo.Record {
	t.Helper()
	client, err := kgo.NewClient(
		kgo.SeedBrokers(cluster.ListenAddrs()...),
		kgo.ConsumeTopics(topic.Events),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)
	require.NoError(t, err)
	defer client.Close()
	end := 0
	for p := range int32(partitions) {
		end += int(cluster.PartitionInfo(topic.Events, p).HighWatermark)
	}
	require.Equal(t, n, end, "records in the topic")
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var out []*kgo.Record
	for len(out) < n {
		fetches := client.PollFetches(ctx)
		require.NoError(t, fetches.Err())
		out = append(out, fetches.Records()...)
	}
	return out
}

// lockedBuffer is a log that is written and read at once.
type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
