//go:build night

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/deploy/chaos/internal/plan"
	"sluice/deploy/chaos/internal/process"
	"sluice/deploy/chaos/internal/proxy"
	"sluice/schemas/event"
)

// wholeness watches what analysts are told of the data being whole, and checks it
// against what the edges have answered.
type wholeness struct {
	t       *testing.T
	s       *stack
	posters []*poster
	last    time.Time
	checks  int
	worst   time.Duration // how old the moment was at most
}

// look checks that the moment has not fallen, that everything accepted before it
// can be queried, and that it is the same for every source, idle ones too.
func (w *wholeness) look() time.Time {
	w.t.Helper()
	var sources, moments uint64
	var at time.Time
	require.NoError(w.t, w.s.tables.Row(w.t.Context(), "SELECT count(), uniqExact(complete_through), max(complete_through) FROM complete_through", &sources, &moments, &at))
	if sources == 0 {
		return w.last
	}
	require.EqualValues(w.t, 1, moments)
	require.False(w.t, at.Before(w.last), "complete_through fell from %s to %s", w.last, at)
	w.last = at
	w.checks++
	w.worst = max(w.worst, time.Since(at))
	var due []string
	for _, p := range w.posters {
		for _, a := range p.all() {
			if a.at.Before(at) {
				due = append(due, a.actor)
			}
		}
	}
	var there uint64
	require.NoError(w.t, w.s.tables.Row(w.t.Context(), "SELECT uniqExact(actor_id) FROM events WHERE actor_id IN ('"+strings.Join(due, "','")+"')", &there))
	require.EqualValues(w.t, len(due), there, "accepted before %s, and not to be queried", at)
	return at
}

// reaches looks until the moment is at least want.
func (w *wholeness) reaches(want time.Time, because string) {
	w.t.Helper()
	begun := time.Now()
	for w.look().Before(want) {
		require.Less(w.t, time.Since(begun), time.Minute, "%s: it is %s and should reach %s; %s", because, w.last, want, w.edges())
		time.Sleep(100 * time.Millisecond)
	}
	w.t.Logf("%s: %s reached after %s", because, want.Format("15:04:05.000"), time.Since(begun).Round(time.Millisecond))
}

// stays looks for a while; the moment must not pass bound.
func (w *wholeness) stays(bound time.Time, lasting time.Duration) {
	w.t.Helper()
	for begun := time.Now(); time.Since(begun) < lasting; time.Sleep(100 * time.Millisecond) {
		require.False(w.t, w.look().After(bound), "%s is past %s, from when on an event waits on the disk of an edge that is away", w.last, bound)
	}
}

func (w *wholeness) edges() string {
	out, err := w.s.consumer("edges", "list", "--json")
	require.NoError(w.t, err)
	return out
}

func (w *wholeness) heldBy() string {
	var r struct {
		HeldBy string `json:"held_by"`
	}
	require.NoError(w.t, json.Unmarshal([]byte(w.edges()), &r))
	return r.HeldBy
}

// complete is what an edge shows at /health.
type complete struct {
	Through        time.Time `json:"through"`
	AgeSeconds     float64   `json:"age_seconds"`
	ToldSecondsAgo float64   `json:"told_seconds_ago"`
	HeldBy         string    `json:"held_by"`
}

func (s *stack) complete(t *testing.T, edge string) complete {
	t.Helper()
	text, err := get(t.Context(), "http://"+s.admin[edge]+"/health")
	require.NoError(t, err)
	var r struct{ Complete complete }
	require.NoError(t, json.Unmarshal(text, &r))
	return r.Complete
}

// secondEdge is an edge beside the stack's own, as it is by default but for env.
func (s *stack) secondEdge(t *testing.T, name string, env ...string) (p *process.Process, url string) {
	t.Helper()
	ports, err := freePorts(t.Context(), 2)
	require.NoError(t, err)
	p = process.New(s.spawner, process.Spec{
		Name: name, Path: filepath.Join(s.dir, "bin", "ingest"), Log: filepath.Join(s.dir, name+".log"),
		Env: append([]string{
			"SLUICE_KAFKA_BROKERS=" + s.kafka, "SLUICE_KAFKA_CLIENT_ID=" + name, "SLUICE_SPOOL_EDGE=" + name,
			"SLUICE_SPOOL_DIR=" + filepath.Join(s.dir, "spool-"+name),
			"SLUICE_HTTP_ADDRESS=" + local(ports[0]), "SLUICE_ADMIN_ADDRESS=" + local(ports[1]),
		}, env...),
	}, func(name string, _ *os.ProcessState) { t.Errorf("%s ended by itself", name) })
	s.processes[name], s.order, s.admin[name] = p, append(s.order, name), local(ports[1])
	require.NoError(t, p.Start())
	s.eventually(t, "the second edge is ready", func() error { return s.ready(t.Context()) })
	return p, "http://" + local(ports[0])
}

// eventually waits until probe is content.
func (s *stack) eventually(t *testing.T, what string, probe func() error) {
	t.Helper()
	var err error
	for begun := time.Now(); time.Since(begun) < time.Minute; time.Sleep(50 * time.Millisecond) {
		if err = probe(); err == nil {
			return
		}
	}
	require.NoError(t, err, what)
}

func (s *stack) spooled(t *testing.T, edge string) (n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	text, err := get(ctx, "http://"+s.admin[edge]+"/spool")
	require.NoError(t, err)
	var state struct {
		Records int `json:"records"`
	}
	require.NoError(t, json.Unmarshal(text, &state))
	return state.Records
}

// What analysts are told is whole is whole: under load at two edges, one of which
// loses the log, fills its spool, is frozen, and comes back; and is then killed
// with events on its disk, retired, and comes back after all.
func TestANightWithAnEdgeFrozen(t *testing.T) {
	s := newStack(t)
	const away = "edge-b"
	b, url := s.secondEdge(t, away, "SLUICE_SPOOL_BYTES=8388608", "SLUICE_KNOWN_BYTES=0") // the least spool there is
	pad := strings.Repeat("x", 20_000)
	posting := func(name, url string, every time.Duration) *poster {
		return &poster{url: url, every: every, next: func(n int) event.Event {
			return event.Event{
				Source: name, EventType: "night", ActorID: fmt.Sprintf("%s-%d", name, n),
				OccurredAt: time.Now().UTC(), Payload: fmt.Appendf(nil, `{"n":%d,"pad":%q}`, n, pad),
			}
		}}
	}
	one, two := posting("a", "http://"+s.proxies[plan.Edge].Addr(), 10*time.Millisecond), posting("b", url, 5*time.Millisecond)
	idle := posting("idle", url, time.Hour) // one event, and then nothing more
	w := &wholeness{t: t, s: s, posters: []*poster{one, two, idle}}
	idle.start(t.Context())
	one.start(t.Context())
	two.start(t.Context())
	w.reaches(time.Now().Add(2*time.Second), "under load, an idle source too")
	s.eventually(t, "/health tells", func() error {
		if c := s.complete(t, plan.Edge); c.Through.IsZero() || c.AgeSeconds > 10 {
			return fmt.Errorf("it is %+v", c)
		}
		return nil
	})

	s.proxies[plan.Broker].Stall(away, proxy.Both, time.Hour)
	s.eventually(t, "the spool is full", func() error {
		w.look()
		if two.refused() == 0 {
			return fmt.Errorf("%d records are in it", s.spooled(t, away))
		}
		return nil
	})
	two.stop()
	full := s.spooled(t, away)
	require.Positive(t, full)
	all := two.all()
	first := all[slices.IndexFunc(all, func(a accepted) bool { return a.status == "spooled" })]
	b.Freeze()
	t.Logf("the edge is frozen with %d records on its disk, the first accepted at %s", full, first.at.Format("15:04:05.000"))
	w.stays(first.at, 8*time.Second)
	require.Equal(t, away, w.heldBy())
	held := s.complete(t, plan.Edge)
	require.Equal(t, away, held.HeldBy)
	require.Greater(t, held.AgeSeconds, 7.0, "the other edge shows how old it is")
	require.Equal(t, w.last.UTC(), held.Through.UTC())

	b.Thaw()
	s.proxies[plan.Broker].Clear()
	back := time.Now()
	two.start(t.Context())
	w.reaches(back, "thawed, with the log back")
	require.Zero(t, s.spooled(t, away))
	s.eventually(t, "/health catches up", func() error {
		if c := s.complete(t, away); c.Through.Before(back) {
			return fmt.Errorf("it is %+v", c)
		}
		return nil
	})

	// Gone with events on its disk: it holds the moment back until somebody says
	// that nobody waits for them.
	s.proxies[plan.Broker].Stall(away, proxy.Both, time.Hour)
	s.eventually(t, "events are spooled", func() error {
		if n := s.spooled(t, away); n < 10 {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
	two.stop()
	idle.stop()
	all = two.all()
	first = all[slices.IndexFunc(all, func(a accepted) bool { return a.at.After(back) && a.status == "spooled" })]
	b.Kill()
	delete(s.admin, away)
	w.stays(first.at, 4*time.Second)
	_, err := s.consumer("edges", "retire", away)
	require.ErrorContains(t, err, "--yes")
	_, err = s.consumer("edges", "retire", away, "--yes")
	require.NoError(t, err)
	// What it had accepted and not delivered is not waited for.
	lost := all[slices.IndexFunc(all, func(a accepted) bool { return a == first }):]
	two.mu.Lock()
	two.taken = two.taken[:len(two.taken)-len(lost)]
	two.mu.Unlock()
	w.reaches(time.Now(), "retired")
	require.NotEqual(t, away, w.heldBy())

	// It comes back after all: it counts again, and its events arrive.
	s.proxies[plan.Broker].Clear()
	require.NoError(t, b.Start())
	begun := time.Now()
	w.reaches(begun.Add(2*time.Second), "back after it was retired")
	one.stop()
	two.mu.Lock()
	two.taken = append(two.taken, lost...)
	two.mu.Unlock()
	s.settled(t, one, two, idle)
	w.reaches(time.Now(), "at rest")
	t.Logf("%d checks; the moment was %s old at most", w.checks, w.worst.Round(time.Millisecond))
}
