package replay

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/partition"
	"sluice/schemas/event"
	"sluice/schemas/topic"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Whatever is missing is covered, by few ranges in order that begin and end at
// missing offsets; and they are those that the least gap gives which leaves few.
func TestSpans(t *testing.T) {
	require.Empty(t, (&Spans{}).All())
	rapid.Check(t, func(t *rapid.T) {
		steps := rapid.SliceOfN(rapid.OneOf(rapid.Int64Range(1, 3), rapid.Int64Range(1, 20_000), rapid.Int64Range(1, 1_000_000)), 1, 400).Draw(t, "steps")
		var s Spans
		var offsets []int64
		at := rapid.Int64Range(0, 100).Draw(t, "first")
		for _, step := range steps {
			offsets = append(offsets, at)
			s.Add(at)
			at += step
		}
		got := s.All()
		require.LessOrEqual(t, len(got), mostSpans)
		require.LessOrEqual(t, cap(got), 4*mostSpans, "memory does not grow with what is missing")
		var want []Span
		for gap := int64(spanGap); ; gap *= 2 {
			want = nil
			for _, o := range offsets {
				if n := len(want); n > 0 && o-want[n-1].To < gap {
					want[n-1].To = o + 1
					continue
				}
				want = append(want, Span{o, o + 1})
			}
			if len(want) <= mostSpans {
				break
			}
		}
		require.Equal(t, want, got)
	})
}

func TestFilter(t *testing.T) {
	record := func(source, kind, actor string) *batch.Record {
		return &batch.Record{Event: event.Event{Source: source, EventType: kind, ActorID: actor}}
	}
	odd := `a"; DROP TABLE x; -- é😀`
	for _, tt := range []struct {
		filter Filter
		record *batch.Record
		meant  bool
	}{
		{Filter{}, record("a", "b", "c"), true},
		{Filter{}, &batch.Record{Reason: topic.ReasonMalformed}, true},
		{Filter{Actor: ""}, record("a", "b", ""), true},
		{Filter{Sources: []string{"x", "a"}}, record("a", "b", "c"), true},
		{Filter{Sources: []string{"A"}}, record("a", "b", "c"), false},
		{Filter{Sources: []string{"a"}}, &batch.Record{Reason: topic.ReasonMalformed}, false},
		{Filter{Types: []string{"b"}, Actor: "c"}, record("a", "b", "c"), true},
		{Filter{Types: []string{"b"}, Actor: "d"}, record("a", "b", "c"), false},
		{Filter{Sources: []string{odd}}, record(odd, "b", "c"), true},
	} {
		require.Equal(t, tt.meant, tt.filter.Meant(tt.record), "%+v", tt)
	}
	require.Nil(t, Filter{}.Only(), "the owner asks nothing of records if all are meant")
	require.NotNil(t, Filter{Actor: "x"}.Only())
}

// What became of each record is told as it is, and each is counted once.
func TestJudge(t *testing.T) {
	payload := []byte(`{"n":1}`)
	id, hash := uuid.New(), event.PayloadHash(payload)
	good := batch.Record{Raw: batch.Raw{Offset: 7}, ID: id, Home: 3, Event: event.Event{Source: "s", Payload: payload}}
	bad := batch.Record{Raw: batch.Raw{Offset: 7}, Reason: topic.ReasonMalformed, Detail: "no JSON"}
	elsewhere := good
	elsewhere.Home = 1
	for name, tt := range map[string]struct {
		record batch.Record
		stored stored
		taken  dedup.Fate
		want   Diff
		kind   string
	}{
		"row":                     {good, stored{row: true, id: id, hash: hash}, "", Diff{Present: 1}, ""},
		"another event's row":     {good, stored{row: true, id: uuid.New(), hash: hash}, "", Diff{Present: 1, Different: 1}, Different},
		"another payload":         {good, stored{row: true, id: id}, "", Diff{Present: 1, Different: 1}, Different},
		"the row of no event":     {bad, stored{row: true, id: id}, "", Diff{Present: 1, Different: 1}, Different},
		"row and fate":            {good, stored{row: true, id: id, hash: hash, fate: dedup.Duplicate}, "", Diff{Present: 1, Different: 1}, Different},
		"duplicate":               {good, stored{fate: dedup.Duplicate}, "", Diff{Present: 1}, ""},
		"dead":                    {bad, stored{fate: dedup.DeadLetter}, "", Diff{Present: 1}, ""},
		"dead and good now":       {good, stored{fate: dedup.DeadLetter}, "", Diff{Present: 1, GoodNow: 1}, GoodNow},
		"missing":                 {good, stored{}, "", Diff{Missing: 1}, Missing},
		"missing, elsewhere":      {elsewhere, stored{}, "", Diff{Missing: 1}, Missing},
		"missing, no event":       {bad, stored{}, "", Diff{Missing: 1}, Missing},
		"erased, by its fate":     {good, stored{fate: dedup.Erased}, "", Diff{Erased: 1}, ""},
		"expired, by its fate":    {good, stored{fate: dedup.Expired}, "", Diff{Expired: 1}, ""},
		"erased, by a tombstone":  {good, stored{}, dedup.Erased, Diff{Erased: 1}, ""},
		"expired, by a watermark": {good, stored{}, dedup.Expired, Diff{Expired: 1}, ""},
		"expired, elsewhere":      {elsewhere, stored{}, dedup.Expired, Diff{Missing: 1}, Missing},
		"taken, and still a row":  {good, stored{row: true, id: id, hash: hash}, dedup.Expired, Diff{Present: 1}, ""},
		"taken, and a duplicate":  {good, stored{fate: dedup.Duplicate}, dedup.Erased, Diff{Present: 1}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var found []Found
			var missing Spans
			var d Diff
			c := Comparison{
				Found: func(f Found) { found = append(found, f) },
				Taken: func(*event.Event) (dedup.Fate, bool) { return tt.taken, tt.taken != "" },
			}
			c.judge(&tt.record, tt.stored, topic.Origin{Partition: 3, Offset: 7}, 3, &d, &missing)
			tt.want.Records = 1
			require.Equal(t, tt.want, d)
			require.Equal(t, d.Records, d.Present+d.Missing+d.Expired+d.Erased)
			lacks := d.Missing
			if tt.taken == dedup.Erased && tt.stored == (stored{}) {
				lacks = 1
			}
			require.Len(t, missing.All(), lacks)
			if tt.kind == "" {
				require.Empty(t, found)
			} else {
				require.Equal(t, tt.kind, found[0].Kind)
				require.Equal(t, tt.record.Reason == "", found[0].Key != "", "an event is told by its key")
			}
		})
	}
}

func TestParse(t *testing.T) {
	run := uuid.New()
	request, err := json.Marshal(Request{Run: run, Partition: 2, From: 3, To: 9, Filter: Filter{Actor: "é"}})
	require.NoError(t, err)
	m, ok, err := parse([]byte(RequestKey(run, 2)), request)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, int64(9), m.request.To)
	require.Equal(t, "é", m.request.Actor)
	m, ok, err = parse([]byte(RequestKey(run, 2)), nil)
	require.NoError(t, err)
	require.True(t, ok && m.deleted)
	_, ok, err = parse([]byte(ProgressKey(run, 2)), nil)
	require.NoError(t, err)
	require.False(t, ok, "an answer that is cleared away is about nothing")
	for _, other := range []string{"pause/1", "watermark/a", "", "replay/" + run.String() + "/2/what"} {
		_, ok, err := parse([]byte(other), []byte("{}"))
		require.NoError(t, err)
		require.False(t, ok, other)
	}
	for key, value := range map[string]string{
		"replay/x": "{}", "replay/x/1/request": "{}", "replay/" + run.String() + "/x/request": "{}",
		"replay/" + run.String() + "/99999999999/request": "{}", RequestKey(run, 1): "{", ProgressKey(run, 1): "[",
	} {
		_, ok, err := parse([]byte(key), []byte(value))
		require.ErrorContains(t, err, "control record")
		require.False(t, ok)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(RequestKey(uuid.Nil, 1)), []byte(`{"from":1,"to":2}`))
	f.Add([]byte("replay/"), []byte(nil))
	f.Add([]byte("pause/7"), []byte(`{"reason":"x"}`))
	f.Add([]byte("skip/"+uuid.Nil.String()), []byte(`{}`))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		m, ok, err := parse(key, value)
		if ok && err != nil {
			t.Fatal("both a message and an error")
		}
		if ok && !m.deleted && m.request == nil && m.progress == nil {
			t.Fatal("a message that says nothing")
		}
		w := newWatcher(nil, "", slog.New(slog.DiscardHandler))
		_ = w.order(key, value) // it must not panic
	})
}

// owner takes requests, as a partition's does.
type owner struct {
	mu    sync.Mutex
	asked []partition.Reread
	come  chan struct{}
}

func (o *owner) Request(_ context.Context, r partition.Reread) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked = append(o.asked, r)
	o.come <- struct{}{}
	return nil
}

// A request is given to the owner of its partition once, to the next owner from
// where the last one got, and to none once it is done or called off.
func TestWatcherHandsOverWhatIsOpen(t *testing.T) {
	w := newWatcher(nil, "", slog.New(slog.DiscardHandler))
	run := uuid.New()
	first, second, third := &owner{come: make(chan struct{}, 9)}, &owner{come: make(chan struct{}, 9)}, &owner{come: make(chan struct{}, 9)}
	w.Own(t.Context(), 1, first)
	w.apply(message{run: run, partition: 1, request: &Request{Run: run, Partition: 1, From: 10, To: 50}})
	require.Empty(t, first.asked, "the topic has not been read to its end: the request may be done already")
	w.begin()
	<-first.come
	require.Equal(t, int64(10), first.asked[0].From)
	require.True(t, first.asked[0].Wanted())
	w.apply(message{run: run, partition: 1, request: &Request{Run: run, Partition: 1, From: 10, To: 50}})
	w.apply(message{run: run, partition: 1, progress: &Progress{Next: 30, To: 50}})
	require.Len(t, first.asked, 1, "once an incarnation")
	w.Disown(1, second)
	w.Disown(1, first)
	w.Own(t.Context(), 1, second)
	<-second.come
	require.Equal(t, int64(30), second.asked[0].From)
	require.Equal(t, int64(50), second.asked[0].To)
	w.apply(message{run: run, partition: 1, progress: &Progress{Next: 50, To: 50, Done: true}})
	require.False(t, second.asked[0].Wanted())
	w.Disown(1, second)
	w.Own(t.Context(), 1, third)
	require.Empty(t, third.asked)
	require.False(t, w.wanted(runPartition{run, 1}))
}

// Orders outlive processes, and are taken back by a tombstone.
func TestOrders(t *testing.T) {
	w := newWatcher(nil, "", slog.New(slog.DiscardHandler))
	reason, changed := w.Paused(1)
	require.NotEmpty(t, reason, "nothing moves until the orders are known")
	w.begin()
	<-changed
	reason, changed = w.Paused(1)
	require.Empty(t, reason)
	value, err := json.Marshal(Pause{Partition: 1, Reason: `"quoted" é`, By: "me"})
	require.NoError(t, err)
	require.NoError(t, w.order([]byte(PauseKey(1)), value))
	<-changed
	reason, _ = w.Paused(1)
	require.Contains(t, reason, `"quoted" é`)
	reason, _ = w.Paused(2)
	require.Empty(t, reason)
	require.NoError(t, w.order([]byte(PauseKey(1)), nil))
	reason, _ = w.Paused(1)
	require.Empty(t, reason)

	log, run := uuid.New(), uuid.New()
	value, err = json.Marshal(Skip{Run: run, TopicID: log, Partition: 1, From: 5, To: 9, Reason: "poison"})
	require.NoError(t, err)
	require.NoError(t, w.order([]byte(SkipKey(run)), value))
	for offset, want := range map[int64]int64{4: 0, 5: 9, 8: 9, 9: 0} {
		to, why := w.SkippedTo(log, 1, offset)
		require.Equal(t, want, to, offset)
		require.Equal(t, want > 0, why != "")
	}
	to, _ := w.SkippedTo(uuid.New(), 1, 6)
	require.Zero(t, to, "of another generation of the topic")
	require.NoError(t, w.order([]byte(SkipKey(run)), nil))
	to, _ = w.SkippedTo(log, 1, 6)
	require.Zero(t, to)
	for key, value := range map[string]string{"pause/x": "{}", "pause/1": "{", "skip/x": "{}", SkipKey(run): "{"} {
		require.ErrorContains(t, w.order([]byte(key), []byte(value)), "control record")
	}
}

// The second to begin is told by whom the first was begun, until that one is done
// or has not been heard of for long.
func TestLease(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, topic.Control))
	require.NoError(t, err)
	defer cluster.Close()
	opts := []kgo.Opt{kgo.SeedBrokers(cluster.ListenAddrs()...)}
	take := func(by string) (func(), error) {
		return Take(t.Context(), opts, topic.Control, Lease{Kind: "replay", Run: uuid.New(), By: by, Since: time.Now()})
	}
	release, err := take("first")
	require.NoError(t, err)
	_, err = take("second")
	var held HeldError
	require.ErrorAs(t, err, &held)
	require.Equal(t, "first", held.By)
	other, err := Take(t.Context(), opts, topic.Control, Lease{Kind: "redrive", Run: uuid.New(), By: "second"})
	require.NoError(t, err, "another kind")
	other()
	release()
	release, err = take("third")
	require.NoError(t, err)
	orders, err := Look(t.Context(), opts, topic.Control)
	require.NoError(t, err)
	require.Len(t, orders.Leases, 1)
	require.Equal(t, "third", orders.Leases[0].By)
	release()
	gone := Lease{Kind: "replay", Run: uuid.New(), By: "gone", Renewed: time.Now().Add(-LeaseBound)}
	require.NoError(t, Order(t.Context(), opts, topic.Control, map[string]any{gone.key(): gone}))
	release, err = take("fourth")
	require.NoError(t, err, "its holder ended without a word")
	release()
}
