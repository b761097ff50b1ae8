package index_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/index"
	"sluice/schemas/event"
	"sluice/schemas/topic"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func TestLiveKeysAreLoadedFirstAndOlderOnesWhereAsked(t *testing.T) {
	s := newTable()
	old := noon.AddDate(-3, 0, 0)
	for _, k := range []key{{noon, 1}, {noon.Add(-2 * time.Hour), 2}, {noon.Add(time.Hour), 3}, {old, 4}, {event.Earliest, 5}, {event.Latest, 6}} {
		s.store(k)
	}
	x := open(t, s, index.NewBudget(64<<20, 1))
	require.Equal(t, index.Ask, answer(x, noon, 1), "nothing is known before the load")
	loaded(t, x)
	for _, tt := range []struct {
		name string
		at   time.Time
		n    uint64
		want index.Answer
	}{
		{"a live row's fingerprint is there", noon, 1, index.Ask},
		{"another key of its minute is free", noon, 10, index.Free},
		{"the oldest live minute", noon.Add(-2 * time.Hour), 2, index.Ask},
		{"the future", noon.Add(time.Hour), 3, index.Ask},
		{"the end of time", event.Latest, 6, index.Ask},
		{"far ahead", event.Latest, 11, index.Free},
		{"just before what is live", noon.Add(-2*time.Hour - time.Nanosecond), 12, index.Ask},
		{"the beginning of time", event.Earliest, 13, index.Ask},
	} {
		require.Equal(t, tt.want, answer(x, tt.at, tt.n), tt.name)
	}
	require.Len(t, s.reads, 1)

	// One late key is asked for; when late keys keep coming their time is loaded.
	for range 10 {
		answer(x, old, 20)
		answer(x, event.Earliest, 20)
		loaded(t, x)
	}
	require.Len(t, s.reads, 3)
	require.Equal(t, index.Free, answer(x, old, 20))
	require.Equal(t, index.Ask, answer(x, old, 4))
	require.Equal(t, index.Free, answer(x, event.Earliest, 20))
	require.Equal(t, index.Ask, answer(x, event.Earliest, 5))
}

func TestABackfillOfTenYearsIsLoadedInFewQueries(t *testing.T) {
	s := newTable()
	x := open(t, s, index.NewBudget(64<<20, 1))
	loaded(t, x)
	r := rand.New(rand.NewPCG(1, 2))
	day := func() time.Time { return noon.AddDate(0, 0, -r.IntN(3650)-1) }
	for n := range uint64(50_000) {
		answer(x, day(), n)
	}
	loaded(t, x)
	require.LessOrEqual(t, len(s.reads), 5)
	require.LessOrEqual(t, x.Stats().Pages, 5, "where nothing is stored, one page covers years")
	for n := range uint64(50_000) {
		require.Equal(t, index.Free, answer(x, day(), n))
	}
}

func TestARowIsKnownAgainWithoutAQuery(t *testing.T) {
	x := open(t, newTable(), index.NewBudget(64<<20, 1))
	old := noon.AddDate(-1, 0, 0)
	add(x, noon, 1)
	add(x, old, 2)
	x.Note(idOf(3), firstOf(3))
	for n, at := range map[uint64]time.Time{1: noon, 2: old, 3: old} {
		f, a := look(x, at, n)
		require.Equal(t, index.Taken, a)
		require.Equal(t, firstOf(n), f)
	}
}

func TestRowsStoredDuringALoadAreMerged(t *testing.T) {
	s := newTable()
	s.gate = make(chan struct{})
	x := open(t, s, index.NewBudget(64<<20, 1))
	require.NoError(t, x.Take(t.Context()))
	// The read may have seen the table before these are stored.
	const n = 100_000 // more than the exactly known rows
	for i := range uint64(n) {
		add(x, noon.Add(time.Duration(i)*time.Millisecond), i)
	}
	require.Equal(t, index.Ask, answer(x, noon, n+1), "not complete while it is loaded")
	close(s.gate)
	require.NoError(t, x.Wait(t.Context()))
	for i := range uint64(n) {
		require.NotEqual(t, index.Free, answer(x, noon.Add(time.Duration(i)*time.Millisecond), i))
	}
	require.Equal(t, index.Free, answer(x, noon, n+1))
	require.Equal(t, n, x.Stats().Keys)
}

// A lost table that is written again from the log was asked for every key, since the
// index still held them all.
func TestWhatIsGoneFromTheTableIsLoadedAnew(t *testing.T) {
	s := newTable()
	x := open(t, s, index.NewBudget(64<<20, 1))
	loaded(t, x)
	at := func(n uint64) time.Time { return noon.Add(-time.Duration(n) * time.Millisecond) }
	old := key{noon.AddDate(-1, 0, 0), 1 << 40}
	const n = 100_000 // more than the exactly known rows
	s.store(old)
	add(x, old.at, old.n)
	for i := range uint64(n) {
		k := key{at(i), i}
		s.store(k)
		add(x, k.at, k.n)
	}
	loaded(t, x)
	reads := len(s.reads)

	// A few rows that were deleted are asked for; so is a row that stands.
	for i := range uint64(100) {
		delete(s.keys, key{at(i), i})
		x.Gone(at(i), idOf(i))
	}
	for i := uint64(n); i < 2*n; i++ { // never stored: nothing was taken
		x.Gone(at(i), idOf(i))
	}
	loaded(t, x)
	require.Equal(t, reads, len(s.reads))
	require.Zero(t, x.Stats().Stale)

	clear(s.keys)
	s.store(old)
	asked := 0
	for i := range uint64(n) {
		if answer(x, at(i), i) == index.Ask {
			asked++
			x.Gone(at(i), idOf(i))
		}
		if i%10_000 == 0 {
			loaded(t, x)
		}
	}
	require.Equal(t, 1, x.Stats().Stale)
	require.Less(t, asked, 20_000, "once loaded, they are free")
	require.Greater(t, asked, 4_000)
	require.Less(t, len(s.reads), reads+3)
	add(x, old.at, 1<<41)
	require.NotEqual(t, index.Free, answer(x, old.at, old.n), "another time's stay known")
}

func TestAFailedLoadCompletesNothing(t *testing.T) {
	s := newTable()
	for n := range uint64(100) {
		s.store(key{noon, n})
	}
	s.fail = errors.New("connection lost")
	x := open(t, s, index.NewBudget(64<<20, 1))
	require.NoError(t, x.Take(t.Context()))
	require.ErrorIs(t, x.Wait(t.Context()), s.fail)
	require.Equal(t, index.Ask, answer(x, noon, 1000))
	require.Zero(t, x.Stats().Keys)

	s.fail = nil
	for range 100 { // it is put off, and made up for
		answer(x, noon, 1000)
		loaded(t, x)
	}
	require.Equal(t, index.Free, answer(x, noon, 1000))
	require.Equal(t, index.Ask, answer(x, noon, 7))
	require.Len(t, s.reads, 2)
}

func TestCloseEndsALoadAndGivesMemoryBack(t *testing.T) {
	s := newTable()
	s.gate = make(chan struct{})
	b := index.NewBudget(1<<20, 1)
	x := index.New(index.Config{Source: s.read, Budget: b, Now: noon})
	y := index.New(index.Config{Source: s.read, Budget: b, Now: noon})
	require.EqualValues(t, 1<<19, b.Share())
	require.NoError(t, x.Take(t.Context()))
	require.NoError(t, y.Take(t.Context())) // waits for x's load to end
	require.Positive(t, b.Used())
	x.Close()
	y.Close()
	require.Zero(t, b.Used())
	require.EqualValues(t, 1<<20, b.Share())
}

func TestMoreThanFits(t *testing.T) {
	const share = 1 << 20
	t.Run("live keys: the newest are kept", func(t *testing.T) {
		s := newTable()
		for n := range uint64(200_000) {
			s.store(key{noon.Add(-time.Duration(n) * 36 * time.Millisecond), n})
		}
		x := open(t, s, index.NewBudget(share, 1))
		loaded(t, x)
		require.Equal(t, index.Free, answer(x, noon, 1<<40))
		require.Equal(t, index.Ask, answer(x, noon.Add(-119*time.Minute), 1<<40))
		require.LessOrEqual(t, x.Stats().Bytes, share)
		require.Greater(t, x.Stats().Keys, 10_000)
	})
	t.Run("one minute is too much", func(t *testing.T) {
		s := newTable()
		for n := range uint64(200_000) {
			s.store(key{noon, n})
		}
		x := open(t, s, index.NewBudget(share, 1))
		require.NoError(t, x.Take(t.Context()))
		require.ErrorContains(t, x.Wait(t.Context()), "index.bytes")
		require.Equal(t, index.Ask, answer(x, noon, 1<<40))
	})
	t.Run("a dense past in order: it is loaded piece by piece", func(t *testing.T) {
		s := newTable()
		begin := noon.AddDate(0, 0, -30)
		for n := range uint64(400_000) {
			s.store(key{begin.Add(time.Duration(n) * time.Second), n})
		}
		x := open(t, s, index.NewBudget(share, 1))
		loaded(t, x)
		var free, asked int
		for n := range uint64(400_000) {
			if answer(x, begin.Add(time.Duration(n)*time.Second), 1<<40|n) == index.Free {
				free++
			} else {
				asked++
			}
			if n%1000 == 0 {
				loaded(t, x)
				require.LessOrEqual(t, x.Stats().Bytes, share)
			}
		}
		require.Greater(t, free, 10*asked)
		require.Positive(t, x.Stats().Evicted)
	})
	t.Run("another index takes its share", func(t *testing.T) {
		s := newTable()
		b := index.NewBudget(share, 1)
		x := open(t, s, b)
		loaded(t, x)
		for n := range uint64(60_000) {
			add(x, noon.Add(time.Duration(n)*time.Second), n)
		}
		loaded(t, x)
		before := x.Stats()
		require.Zero(t, before.Evicted)
		open(t, s, b)
		loaded(t, x)
		require.LessOrEqual(t, x.Stats().Bytes, share/2)
		require.Less(t, x.Stats().Keys, before.Keys)
		require.Equal(t, index.Ask, answer(x, noon, 0), "what is least recent and oldest goes first")
	})
}

// A backfill that jumps about in more than fits must not load what it drops.
func TestARandomBackfillOfMoreThanFitsDoesNotThrash(t *testing.T) {
	s := newTable()
	r := rand.New(rand.NewPCG(3, 4))
	day := func() time.Time { return noon.Add(-time.Duration(r.Int64N(int64(3650 * 24 * time.Hour)))) }
	for n := range uint64(200_000) {
		s.store(key{day(), n})
	}
	x := open(t, s, index.NewBudget(1<<20, 1))
	loaded(t, x)
	for range 200 {
		for range 1000 {
			answer(x, day(), 1<<40)
		}
		loaded(t, x)
	}
	require.Less(t, len(s.reads), 40)
	require.Positive(t, x.Stats().Keys, "what fits stays")
}

// The index against a model: whatever is added, loaded, evicted and failed in
// whatever order, a stored key is never called free, nor given another's row;
// and memory keeps to the share.
func TestAStoredKeyIsNeverFree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newTable()
		const bytes = 1 << 19
		b := index.NewBudget(bytes, 1)
		x := index.New(index.Config{Source: s.read, Budget: b, Now: noon})
		defer x.Close()
		var others []*index.Index
		defer func() {
			for _, o := range others {
				o.Close()
			}
		}()
		ctx := context.Background()
		var stored []key
		next := uint64(0)
		spans := []time.Duration{time.Minute, time.Hour, 400 * 24 * time.Hour, 200 * 365 * 24 * time.Hour}
		when := func(t *rapid.T) time.Time {
			span := int64(rapid.SampledFrom(spans).Draw(t, "span"))
			return noon.Add(time.Duration(rapid.Int64Range(-span, span/10).Draw(t, "at")))
		}
		gated := false
		release := func() {
			if gated {
				close(s.gate)
				s.mu.Lock()
				s.gate, gated = nil, false
				s.mu.Unlock()
			}
		}
		store := func(at ...time.Time) {
			rows := make([]*batch.Record, len(at))
			for i, at := range at {
				k := key{at, next}
				next++
				s.store(k)
				rows[i] = record(k.at, k.n)
				stored = append(stored, k)
			}
			x.Add(rows, topic.Origin{})
		}
		t.Repeat(map[string]func(*rapid.T){
			"store": func(t *rapid.T) { store(when(t)) },
			"store many": func(t *rapid.T) {
				at, step := when(t), rapid.SampledFrom(spans).Draw(t, "step")/1000
				many := make([]time.Time, rapid.IntRange(1, 20_000).Draw(t, "n"))
				for i := range many {
					many[i] = at.Add(-time.Duration(i) * step % (100 * 365 * 24 * time.Hour))
				}
				store(many...)
			},
			"claim, and write or not": func(t *rapid.T) {
				at, step := when(t), rapid.SampledFrom(spans).Draw(t, "step")/1000
				rows := make([]*batch.Record, rapid.IntRange(1, 20_000).Draw(t, "n"))
				for i := range rows {
					rows[i] = record(at.Add(-time.Duration(i)*step%(100*365*24*time.Hour)), next)
					next++
				}
				round := x.Round()
				x.Claim(slices.Concat(rows, rows[:1]), func(r *batch.Record, _ dedup.First, a index.Answer) {
					if a == index.Taken {
						t.Fatalf("key %d was never stored and is called taken", r.Offset)
					}
				})
				switch rapid.IntRange(0, 3).Draw(t, "meanwhile") {
				case 0:
					_ = x.Take(ctx)
				case 1:
					release()
					_ = x.Wait(ctx)
					x.Claim(rows[:len(rows)/2], func(*batch.Record, dedup.First, index.Answer) {})
				case 2:
					return // it never is
				}
				for _, r := range rows {
					k := key{r.Event.OccurredAt, uint64(r.Offset)}
					s.store(k)
					stored = append(stored, k)
				}
				x.Written(rows, topic.Origin{}, round)
			},
			"ask for many": func(t *rapid.T) {
				at := when(t)
				for range 300 {
					answer(x, at, 1<<50)
				}
			},
			"rows are taken out": func(t *rapid.T) {
				from := rapid.IntRange(0, len(stored)).Draw(t, "from")
				to := rapid.IntRange(from, len(stored)).Draw(t, "to")
				s.mu.Lock()
				for _, k := range stored[from:to] {
					delete(s.keys, k)
				}
				s.mu.Unlock()
				for _, k := range stored[from:to] {
					if _, a := look(x, k.at, k.n); a == index.Ask {
						x.Gone(k.at, idOf(k.n))
					}
				}
				stored = slices.Delete(stored, from, to)
			},
			"take": func(t *rapid.T) {
				_ = x.Take(ctx) // a failed load is tested by what is answered
				if share := b.Share(); int64(x.Stats().Bytes) > share {
					t.Fatalf("%d bytes of %d", x.Stats().Bytes, share)
				}
			},
			"hold loads": func(t *rapid.T) {
				if !gated && !x.Stats().Loading {
					s.mu.Lock()
					s.gate, gated = make(chan struct{}), true
					s.mu.Unlock()
				}
			},
			"release": func(t *rapid.T) { release() },
			"let a load end": func(t *rapid.T) {
				release()
				_ = x.Wait(ctx)
			},
			"loads fail": func(t *rapid.T) {
				s.mu.Lock()
				s.fail = rapid.SampledFrom([]error{nil, nil, errors.New("lost")}).Draw(t, "error")
				s.mu.Unlock()
			},
			"another opens or closes": func(t *rapid.T) {
				if n := len(others); n > 0 && rapid.Bool().Draw(t, "close") {
					others[n-1].Close()
					others = others[:n-1]
				} else if n < 3 {
					others = append(others, index.New(index.Config{Source: s.read, Budget: b, Now: noon}))
				}
			},
			"": func(t *rapid.T) {
				var some []*batch.Record
				for i := 0; i < len(stored); i += 1 + len(stored)/500 {
					some = append(some, record(stored[i].at, stored[i].n))
				}
				told := 0
				x.Look(some, func(r *batch.Record, first dedup.First, a index.Answer) {
					if r != some[told] {
						t.Fatalf("answer %d is of another record", told)
					}
					told++
					if a == index.Free {
						t.Fatalf("key %d of %s is stored and called free", r.Offset, r.Event.OccurredAt)
					}
					if a == index.Taken && first != firstOf(uint64(r.Offset)) {
						t.Fatalf("key %d: %v", r.Offset, first)
					}
				})
				if told != len(some) {
					t.Fatalf("%d of %d records were answered", told, len(some))
				}
			},
		})
		release()
		for range 3 {
			_ = x.Wait(ctx)
			_ = x.Take(ctx)
		}
		for _, k := range stored {
			if answer(x, k.at, k.n) == index.Free {
				t.Fatalf("key %d of %s is stored and called free", k.n, k.at)
			}
		}
	})
}
