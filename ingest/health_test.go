package main

import (
	"encoding/json"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"sluice/ingest/internal/health"
	"sluice/schemas/topic"
)

// freeze makes the cluster answer nothing until release is called, and tells
// when something was asked of it.
func freeze(e *edge) (asked <-chan struct{}, release func()) {
	held, come := make(chan struct{}), make(chan struct{})
	var first, last sync.Once
	e.cluster.Control(func(kmsg.Request) (kmsg.Response, error, bool) {
		first.Do(func() { close(come) })
		select {
		case <-held:
		default:
			e.cluster.KeepControl()
			e.cluster.SleepControl(func() { <-held })
		}
		return nil, nil, false
	})
	return come, func() { last.Do(func() { close(held) }) }
}

func (e *edge) health(t testing.TB, base string) health.Report {
	t.Helper()
	status, body := e.get(t, base+"/health")
	require.Equal(t, http.StatusOK, status, body)
	var r health.Report
	require.NoError(t, json.Unmarshal([]byte(body), &r), body)
	conform(t, "Health", []byte(body))
	return r
}

// TestHealthWithKafkaFrozen: a broker that takes requests and answers none holds
// up no health endpoint. Nothing here waits for the broker: it is released only
// after all have answered. The seed's /health took 271 ms since it asked its
// dependencies.
func TestHealthWithKafkaFrozen(t *testing.T) {
	e := startEdge(t, newCluster(t), nil)
	r := e.health(t, e.url)
	require.Equal(t, "up", r.Status)
	require.True(t, r.Ready)
	asked, release := freeze(e)
	defer release()
	<-asked
	for _, base := range []string{e.url, e.admin} {
		status, _ := e.get(t, base+"/healthz")
		require.Equal(t, http.StatusOK, status)
		status, _ = e.get(t, base+"/readyz")
		require.Contains(t, []int{http.StatusOK, http.StatusServiceUnavailable}, status)
		r := e.health(t, base)
		require.Equal(t, "kafka", r.Checks[0].Name)
	}
	require.Eventually(t, func() bool { // the hanging probe is seen, and in the end it is an error
		c := e.health(t, e.url).Checks[0]
		return c.Status == health.Down && c.Error != ""
	}, 20*time.Second, 10*time.Millisecond)
	release()
	require.Eventually(t, func() bool { return e.health(t, e.url).Status == "up" }, 20*time.Second, 10*time.Millisecond)
}

// TestHealthTellsCompleteness: the edge shows what the consumer said last of the
// data being whole, with its age, and nothing before it has heard of it.
func TestHealthTellsCompleteness(t *testing.T) {
	e := startEdge(t, newCluster(t, kfake.SeedTopics(1, topic.Control)), nil)
	require.Nil(t, e.health(t, e.url).Complete)
	now := time.Now().UTC()
	said := topic.Completeness{CompleteThrough: now.Add(-time.Minute).Truncate(time.Millisecond), HeldBy: "b", Edges: 2, At: now}
	key, value, err := said.Record()
	require.NoError(t, err)
	client, err := kgo.NewClient(kgo.SeedBrokers(e.cluster.ListenAddrs()...))
	require.NoError(t, err)
	defer client.Close()
	require.NoError(t, client.ProduceSync(t.Context(), &kgo.Record{Topic: topic.Control, Key: key, Value: value}).FirstErr())
	var got *health.CompleteReport
	require.Eventually(t, func() bool { got = e.health(t, e.admin).Complete; return got != nil }, 20*time.Second, 10*time.Millisecond)
	require.Equal(t, said.CompleteThrough, got.Through)
	require.Equal(t, "b", got.HeldBy)
	require.Equal(t, 2, got.Edges)
	require.GreaterOrEqual(t, got.AgeSeconds, 60.0)
	require.Less(t, got.ToldSecondsAgo, got.AgeSeconds)
}

// TestAdminPage: the admin port shows the live page, what feeds it, and what the
// program was built from.
func TestAdminPage(t *testing.T) {
	e := startEdge(t, newCluster(t), nil)
	status, body := e.get(t, e.admin+"/")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, body, "<title>Sluice, the edge</title>")
	status, body = e.get(t, e.admin+"/page.json")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, body, `"name":"kafka"`)
	_, body = e.get(t, e.admin+"/metrics")
	require.Contains(t, body, "sluice_ingest_build_info{")
	status, _ = e.get(t, e.admin+"/nothing")
	require.Equal(t, http.StatusNotFound, status)
}
