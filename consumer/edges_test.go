package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/schemas/event"
	"sluice/schemas/topic"
)

// fakeEdge accepts events and publishes its low-water mark, as an edge does. A
// frozen one goes on accepting, and delivers nothing.
type fakeEdge struct {
	s      *stack
	name   string
	oracle *oracle

	frozen  bool
	spooled []*kgo.Record
	n       int
}

// oracle knows what was accepted, and when.
type oracle struct {
	mu       sync.Mutex
	accepted map[string]time.Time // by actor, which is one event's own
}

// accept takes an event in and delivers it, unless the edge is frozen.
func (e *fakeEdge) accept(ctx context.Context) error {
	e.n++
	now := time.Now().Truncate(time.Millisecond)
	ev := event.Event{
		Source: "source " + e.name, EventType: "t", ActorID: fmt.Sprintf("%s-%d", e.name, e.n),
		OccurredAt: time.Date(2026, 1, 2, 3, 4, 5, e.n, time.UTC), Payload: []byte(`{}`),
	}
	e.oracle.mu.Lock()
	e.oracle.accepted[ev.ActorID] = now
	e.oracle.mu.Unlock()
	e.spooled = append(e.spooled, &kgo.Record{Topic: e.s.cfg.Kafka.Topic, Key: ev.AppendKey(nil), Value: ev.AppendJSON(nil), Timestamp: now})
	if e.frozen {
		return nil
	}
	return e.deliver(ctx)
}

func (e *fakeEdge) deliver(ctx context.Context) error {
	err := e.s.producer.ProduceSync(ctx, e.spooled...).FirstErr()
	if err == nil {
		e.spooled = nil
	}
	return err
}

// speak publishes what is true now: nothing accepted before the mark is on the
// edge's disk.
func (e *fakeEdge) speak(ctx context.Context, retired bool) error {
	w := topic.Watermark{Edge: e.name, Instance: "1", LowWater: time.Now().Truncate(time.Millisecond), At: time.Now(), Spooled: len(e.spooled), Retired: retired}
	if len(e.spooled) > 0 {
		w.LowWater = e.spooled[0].Timestamp
	}
	key, value, err := w.Record()
	if err != nil {
		return err
	}
	return e.s.producer.ProduceSync(ctx, &kgo.Record{Topic: e.s.cfg.Kafka.Control, Key: key, Value: value}).FirstErr()
}

// completeThrough is the view's moment, the zero time while there is none.
func (s *stack) completeThrough() time.Time {
	s.t.Helper()
	var n uint64
	var at time.Time
	require.NoError(s.t, s.store.Conn().QueryRow(s.t.Context(), "SELECT count(), max(complete_through) FROM complete_through").Scan(&n, &at))
	if n == 0 {
		return time.Time{}
	}
	return at
}

// whole checks that everything accepted before the view's moment can be queried
// once the view says so, and that the moment never falls.
func (o *oracle) whole(s *stack, before time.Time) time.Time {
	s.t.Helper()
	at := s.completeThrough()
	require.False(s.t, at.Before(before), "complete_through fell from %s to %s", before, at)
	o.mu.Lock()
	var due []string
	for actor, received := range o.accepted {
		if received.Before(at) {
			due = append(due, actor)
		}
	}
	o.mu.Unlock()
	var there uint64
	require.NoError(s.t, s.store.Conn().QueryRow(s.t.Context(), "SELECT count() FROM event_log WHERE actor_id IN (?)", append(due, "")).Scan(&there))
	require.EqualValues(s.t, len(due), there, "everything accepted before %s", at)
	return at
}

// What an analyst is told is whole is whole: under load, while one edge is away
// with events on its disk, when it is back, and when it is gone for good.
func TestCompleteThroughIsWhole(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	stop := s.consuming()
	defer stop()
	o := &oracle{accepted: map[string]time.Time{}}
	edges := []*fakeEdge{{s: s, name: "a", oracle: o}, {s: s, name: "b", oracle: o}, {s: s, name: "idle", oracle: o}}
	turn := func(rounds int) {
		t.Helper()
		for range rounds {
			for _, e := range edges {
				if e.name != "idle" {
					require.NoError(t, e.accept(t.Context()))
				}
				require.NoError(t, e.speak(t.Context(), false))
			}
		}
	}
	var at time.Time
	reaches := func(want time.Time, because string) {
		t.Helper()
		for deadline := time.Now().Add(60 * time.Second); at.Before(want); {
			require.True(t, time.Now().Before(deadline), "%s: it is %s and should reach %s", because, at, want)
			turn(3)
			at = o.whole(s, at)
		}
	}
	turn(1)
	reaches(time.Now().Truncate(time.Millisecond), "under load")

	edges[1].frozen = true
	turn(5)
	frozen := edges[1].spooled[0].Timestamp
	for range 40 {
		turn(2)
		at = o.whole(s, at)
		require.False(t, at.After(frozen), "the edge that is away holds it back")
	}
	reaches(frozen, "up to what the edge that is away has")
	listed := &strings.Builder{}
	require.NoError(t, s.command(listed, "edges", "list", "--json"))
	var r edgesReport
	require.NoError(t, json.Unmarshal([]byte(listed.String()), &r))
	require.Equal(t, "b", r.HeldBy)
	require.Len(t, r.Edges, 3)
	require.Len(t, edges[1].spooled, r.Edges[1].Spooled)

	edges[1].frozen = false
	require.NoError(t, edges[1].deliver(t.Context()))
	reaches(time.Now().Truncate(time.Millisecond), "back again")

	require.Equal(t, 3, int(s.scalar("SELECT count() FROM complete_through"))+1, "a line for each source that has an event")
	gone := edges[1]
	edges = []*fakeEdge{edges[0], edges[2]}
	require.ErrorContains(t, s.command(&strings.Builder{}, "edges", "retire", gone.name), "--yes")
	require.ErrorContains(t, s.command(&strings.Builder{}, "edges", "retire", "nobody", "--yes"), "no edge")
	require.NoError(t, s.command(&strings.Builder{}, "edges", "retire", gone.name, "--yes"))
	require.ErrorContains(t, s.command(&strings.Builder{}, "edges", "retire", gone.name, "--yes"), "already")
	reaches(time.Now().Truncate(time.Millisecond), "without the edge that is gone")
}

// command runs a consumer's command against the stack.
func (s *stack) command(out *strings.Builder, args ...string) error {
	s.t.Helper()
	cmd := command()
	cmd.SetOut(out)
	cmd.SetErr(&strings.Builder{})
	cmd.SetArgs(append(args, "--kafka.brokers="+strings.Join(s.cfg.Kafka.Brokers, ","), "--clickhouse.dsn="+s.cfg.ClickHouse.DSN))
	return cmd.ExecuteContext(s.t.Context())
}
