package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"sluice/schemas/topic"
)

// TestComesBackRetired: an edge is killed with an event on its disk, and an operator
// gives it up. What it brings to the log when it comes back all the same counts as
// received then: complete_through may have gone past the moment of its receipt.
func TestComesBackRetired(t *testing.T) {
	cluster := newControlled(t)
	broker := cluster.ListenAddrs()[0]
	var cut atomic.Bool // the connection, before an event is written
	cut.Store(true)
	id := cluster.TopicInfo(topic.Events).TopicID
	cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		for _, rt := range req.(*kmsg.ProduceRequest).Topics {
			if cut.Load() && (rt.Topic == topic.Events || rt.TopicID == id) {
				return nil, errors.New("cut"), true
			}
		}
		return nil, nil, false
	})
	p := newProgram(t, broker)
	p.waitReady(t)
	e := p.edge()
	defer e.client.CloseIdleConnections()
	a := e.post(t, "/api/events", []byte(`{"source":"s","event_type":"t","actor_id":"u","occurred_at":"2026-01-02T03:04:05Z"}`))
	require.Equal(t, "spooled", statusOf(t, a))
	p.kill()

	client, err := kgo.NewClient(kgo.SeedBrokers(broker))
	require.NoError(t, err)
	defer client.Close()
	w := topic.Watermark{Edge: edgeOf(t, p.dir), Instance: "an operator's", LowWater: time.Now().UTC(), At: time.Now().UTC(), Retired: true}
	key, value, err := w.Record()
	require.NoError(t, err)
	require.NoError(t, client.ProduceSync(t.Context(), &kgo.Record{Topic: topic.Control, Key: key, Value: value}).FirstErr())

	cut.Store(false)
	back := time.Now()
	p.start(t)
	p.waitReady(t)
	e.waitDrained(t)
	all := allRecords(t, cluster)
	require.Len(t, all, 1)
	require.False(t, all[0].Timestamp.Before(back.Truncate(time.Millisecond)), "received %v before the edge was known again", back.Sub(all[0].Timestamp))
	require.Contains(t, p.log.String(), "this edge was retired while it was away")
}

// edgeOf is the name of the edge whose spool dir is.
func edgeOf(t testing.TB, dir string) string {
	t.Helper()
	name, err := os.ReadFile(filepath.Join(dir, "edge"))
	require.NoError(t, err)
	return strings.TrimSpace(string(name))
}
