package watermark

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"sluice/schemas/topic"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func at(s int) time.Time { return time.Unix(int64(s), 0).UTC() }

func say(t *testing.T, e *Edges, w topic.Watermark) {
	t.Helper()
	key, value, err := w.Record()
	require.NoError(t, err)
	require.NoError(t, e.Apply(key, value))
}

func TestBound(t *testing.T) {
	e := NewEdges()
	_, _, ok := e.Bound()
	require.False(t, ok, "nobody has spoken")
	say(t, e, topic.Watermark{Edge: "a", LowWater: at(30)})
	say(t, e, topic.Watermark{Edge: "b", LowWater: at(20)})
	say(t, e, topic.Watermark{Edge: "c", LowWater: at(10), Retired: true})
	b, live, ok := e.Bound()
	require.True(t, ok)
	require.Equal(t, 2, live)
	require.Equal(t, "b", b.Edge)
	say(t, e, topic.Watermark{Edge: "c", LowWater: at(5)})
	b, _, _ = e.Bound()
	require.Equal(t, "c", b.Edge, "it speaks again, so it counts again")
	require.NoError(t, e.Apply([]byte(topic.WatermarkKey("c")), nil))
	b, _, _ = e.Bound()
	require.Equal(t, "b", b.Edge, "deleted")
	say(t, e, topic.Watermark{Edge: "a", LowWater: at(40), Retired: true})
	say(t, e, topic.Watermark{Edge: "b", LowWater: at(35), Retired: true})
	b, live, ok = e.Bound()
	require.True(t, ok)
	require.Zero(t, live)
	require.Equal(t, at(40), b.LowWater, "nothing is accepted any more")
	require.Error(t, e.Apply([]byte(topic.WatermarkKey("a")), []byte("{")))
	require.NoError(t, e.Apply([]byte("replay/x"), []byte("{")), "about something else")
}

// An edge whose clock was an hour ahead, and the only one, made the hour that had just
// begun whole: what came after it by other edges was added to what was called final.
func TestABoundDoesNotPassTheClock(t *testing.T) {
	e := NewEdges()
	w := &world{id: uuid.New(), ends: map[int32]int64{0: 10}, journal: map[int32]int64{0: 10}, now: 100}
	p := NewProver(Config{}, e, w, w, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	defer p.Close()
	step := func() { t.Helper(); require.NoError(t, p.Step(t.Context())) }
	say(t, e, topic.Watermark{Edge: "ahead", LowWater: at(3700)})
	step()
	step()
	require.Equal(t, []time.Time{at(100)}, w.complete)
	w.now = 160 // its promise still holds
	step()
	say(t, e, topic.Watermark{Edge: "ahead", LowWater: at(3760), Retired: true})
	w.now = 161
	step()
	require.Equal(t, []time.Time{at(100), at(160), at(161)}, w.complete, "nor when all are retired")
	say(t, e, topic.Watermark{Edge: "right", LowWater: at(162)})
	w.now = 163
	step()
	require.Equal(t, at(162), w.complete[3])

	// ClickHouse's clock may be ahead too.
	here := time.Now()
	b := topic.Watermark{LowWater: here.Add(2 * time.Hour)}
	p.bounded(&b, here.Add(time.Hour))
	require.WithinDuration(t, here, b.LowWater, time.Minute)
}

// world is a log and a ClickHouse whose figures a test sets.
type world struct {
	id        uuid.UUID
	ends      map[int32]int64
	journal   map[int32]int64
	now       int
	forwarded time.Time
	complete  []time.Time
}

func (w *world) Topic(context.Context) (uuid.UUID, int32, error) {
	return w.id, int32(len(w.ends)), nil
}

func (w *world) Ends(context.Context) (map[int32]int64, error) {
	out := map[int32]int64{}
	for p, end := range w.ends {
		out[p] = end
	}
	return out, nil
}
func (w *world) Now(context.Context) (time.Time, error) { return at(w.now), nil }
func (w *world) Begin(_ context.Context, self topic.Origin) (uuid.UUID, int64, error) {
	return self.TopicID, w.journal[self.Partition], nil
}

func (w *world) Progress(_ context.Context, at map[int32]Place) (time.Time, error) {
	for p, place := range at {
		place.End = w.journal[p]
		at[p] = place
	}
	return w.forwarded, nil
}

func (w *world) Forwarded(context.Context, map[int32]Place) (time.Time, error) {
	return w.forwarded, nil
}

func (w *world) Complete(_ context.Context, _ uuid.UUID, b topic.Watermark, _ int) error {
	w.complete = append(w.complete, b.LowWater)
	return nil
}

func TestABoundHoldsOnceTheJournalHasPassed(t *testing.T) {
	e := NewEdges()
	w := &world{id: uuid.New(), ends: map[int32]int64{0: 10, 1: 20, 2: 0}, journal: map[int32]int64{0: 10, 1: 19}, now: 100}
	var told []time.Time
	tell := func(_ context.Context, c topic.Completeness) error {
		told = append(told, c.CompleteThrough)
		return nil
	}
	p := NewProver(Config{Tell: tell}, e, w, w, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	defer p.Close()
	step := func() { t.Helper(); require.NoError(t, p.Step(t.Context())) }
	step()
	require.Empty(t, w.complete, "no edge has spoken")
	say(t, e, topic.Watermark{Edge: "a", LowWater: at(50)})
	step()
	require.Empty(t, w.complete, "partition 1 is not there yet")
	say(t, e, topic.Watermark{Edge: "a", LowWater: at(51)})
	w.ends[1], w.now = 30, 101
	step()
	w.journal[1] = 20
	step()
	require.Equal(t, []time.Time{at(50)}, w.complete, "the older of two bounds holds first")

	// A record of what was passed was forwarded after the ends were asked for: its
	// copy may lie beyond them.
	w.forwarded, w.journal[1] = at(101), 30
	step()
	require.Len(t, w.complete, 1)
	say(t, e, topic.Watermark{Edge: "a", LowWater: at(52)})
	w.now = 102
	step()
	require.Equal(t, []time.Time{at(50), at(52)}, w.complete, "its copy lies below the ends asked for since")
	say(t, e, topic.Watermark{Edge: "b", LowWater: at(40)})
	w.now = 103
	step()
	require.Len(t, w.complete, 2, "an edge that comes late, or whose clock is behind, does not take the moment back")
	w.id, w.journal = uuid.New(), map[int32]int64{}
	say(t, e, topic.Watermark{Edge: "b", LowWater: at(60)})
	say(t, e, topic.Watermark{Edge: "a", LowWater: at(61)})
	step()
	require.Len(t, w.complete, 2, "another topic has a journal of its own")
	w.journal = map[int32]int64{0: 10, 1: 30}
	step()
	require.Equal(t, at(60), w.complete[2])
	require.Equal(t, w.complete, told)

	// Another prover, which knows from the control topic what was told, takes
	// nothing back.
	key, value, err := topic.Completeness{CompleteThrough: at(90)}.Record()
	require.NoError(t, err)
	require.NoError(t, e.Apply(key, value))
	say(t, e, topic.Watermark{Edge: "b", LowWater: at(80)})
	say(t, e, topic.Watermark{Edge: "a", LowWater: at(81)})
	w.now = 120
	step()
	require.Equal(t, at(80), w.complete[3], "the table keeps the latest by itself")
	require.Len(t, told, 3)
}

// A producer that goes on writing where keys do not belong has records forwarded all
// the time. No bound ever held then, and the moment stood still for good.
func TestForwardedAllTheTime(t *testing.T) {
	e := NewEdges()
	w := &world{id: uuid.New(), ends: map[int32]int64{0: 0}, journal: map[int32]int64{}}
	p := NewProver(Config{}, e, w, w, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	defer p.Close()
	for i := 1; i <= 20; i++ {
		w.ends[0], w.journal[0], w.now, w.forwarded = int64(10*i), int64(10*i-5), i, at(i+1)
		say(t, e, topic.Watermark{Edge: "a", LowWater: at(i)})
		require.NoError(t, p.Step(t.Context()))
		if i <= 1+mostRounds {
			require.Empty(t, w.complete, "copies of copies may lie beyond")
		}
	}
	require.NotEmpty(t, w.complete)
	require.WithinRange(t, w.complete[len(w.complete)-1], at(18-mostRounds), at(20-mostRounds))
}

func TestManyBoundsWaitInBoundedMemory(t *testing.T) {
	e := NewEdges()
	w := &world{id: uuid.New(), ends: map[int32]int64{0: 0}, journal: map[int32]int64{}}
	p := NewProver(Config{Waiting: 8}, e, w, w, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	defer p.Close()
	for i := 1; i <= 1000; i++ {
		w.ends[0], w.now = int64(i), i
		say(t, e, topic.Watermark{Edge: "a", LowWater: at(i)})
		require.NoError(t, p.Step(t.Context()))
		require.LessOrEqual(t, len(p.waiting), 9)
	}
	require.Empty(t, w.complete)
	w.journal[0] = 999
	require.NoError(t, p.Step(t.Context()))
	require.NotEmpty(t, w.complete, "one of them has come to hold")
	require.False(t, w.complete[0].After(at(999)))
}

// "consumer edges list" waited without end for a broker that is away.
func TestReadDoesNotWaitForABrokerThatIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := []kgo.Opt{kgo.SeedBrokers("away:1"), kgo.Dialer(func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("away") })}
		_, err := Read(t.Context(), opts, "control", slog.New(slog.DiscardHandler))
		require.ErrorContains(t, err, "no answer from Kafka for 15s")
	})
}
