package known

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"sluice/ingest/internal/delivery"
	"sluice/schemas/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type logFunc func(context.Context, []*delivery.Delivery) bool

func (f logFunc) Send(ctx context.Context, ds []*delivery.Delivery) bool { return f(ctx, ds) }

// acknowledges gives each record the next offset.
func acknowledges(written *atomic.Int64) logFunc {
	return func(_ context.Context, ds []*delivery.Delivery) bool {
		for _, d := range ds {
			d.Record.Offset = written.Add(1) - 1
		}
		return true
	}
}

func fresh(t testing.TB, next delivery.Log, cfg Config) *Known {
	t.Helper()
	k, err := New(cfg, next, func() uuid.UUID { return uuid.UUID{1} }, prometheus.NewRegistry())
	require.NoError(t, err)
	return k
}

func of(key, payload string) *delivery.Delivery {
	return &delivery.Delivery{ID: event.IDOf([]byte(key)), Hash: event.PayloadHash([]byte(payload))}
}

const a, b, c = `{"a":1}`, `{"a":2}`, `{"a":3}`

func send(k *Known, ds ...*delivery.Delivery) bool { return k.Send(context.Background(), ds) }

func TestRepeatAndConflict(t *testing.T) {
	var n atomic.Int64
	k := fresh(t, acknowledges(&n), DefaultConfig())
	first, again, other, otherAgain := of("k", a), of("k", a), of("k", b), of("k", b)
	for _, d := range []*delivery.Delivery{of("x", a), first, again, other, otherAgain} {
		require.True(t, send(k, d))
		require.NoError(t, d.Err)
	}
	require.False(t, first.Repeat || first.Conflict)
	require.True(t, again.Repeat && !again.Conflict)
	require.EqualValues(t, 1, again.Record.Offset, "a repeat stands where the first does")
	require.True(t, other.Conflict && !other.Repeat, "written, so that the conflict is kept")
	require.True(t, otherAgain.Conflict && !otherAgain.Repeat, "compared with the first")
	require.EqualValues(t, 4, n.Load())
}

func TestWithinOneBatch(t *testing.T) {
	var n atomic.Int64
	var calls [][]*delivery.Delivery
	log := acknowledges(&n)
	k := fresh(t, logFunc(func(ctx context.Context, ds []*delivery.Delivery) bool {
		calls = append(calls, ds)
		return log(ctx, ds)
	}), DefaultConfig())
	ds := []*delivery.Delivery{of("k", a), of("l", a), of("k", a), of("k", b), of("l", a)}
	require.True(t, send(k, ds...))
	require.Equal(t, []bool{false, false, true, false, true}, []bool{ds[0].Repeat, ds[1].Repeat, ds[2].Repeat, ds[3].Repeat, ds[4].Repeat})
	require.Equal(t, []bool{false, false, false, true, false}, []bool{ds[0].Conflict, ds[1].Conflict, ds[2].Conflict, ds[3].Conflict, ds[4].Conflict})
	require.Equal(t, [][]*delivery.Delivery{{ds[0], ds[1]}, {ds[3]}}, calls, "the first of each key, then what differs from it")
}

// TestOnlyWhatIsAcknowledged: a key remembered before its record was in the log
// had its retry answered and dropped, and the event was gone. Neither a failure
// nor what lies in the spool makes a key known.
func TestOnlyWhatIsAcknowledged(t *testing.T) {
	for name, fate := range map[string]func(*delivery.Delivery){
		"failed":  func(d *delivery.Delivery) { d.Err = delivery.ErrNoAck },
		"spooled": func(d *delivery.Delivery) { d.Status = delivery.Spooled },
	} {
		t.Run(name, func(t *testing.T) {
			written := 0
			k := fresh(t, logFunc(func(_ context.Context, ds []*delivery.Delivery) bool {
				if written++; written == 1 {
					fate(ds[0])
					return false
				}
				return true
			}), DefaultConfig())
			require.False(t, send(k, of("k", a)), "not settled")
			again, third := of("k", a), of("k", a)
			require.True(t, send(k, again))
			require.False(t, again.Repeat)
			require.True(t, send(k, third))
			require.True(t, third.Repeat)
			require.Equal(t, 2, written)
		})
	}
	t.Run("panicked", func(t *testing.T) {
		k := fresh(t, logFunc(func(context.Context, []*delivery.Delivery) bool { panic("boom") }), DefaultConfig())
		require.Panics(t, func() { send(k, of("k", a)) })
		var n atomic.Int64
		k.next = acknowledges(&n)
		d := of("k", a)
		send(k, d)
		require.False(t, d.Repeat)
		require.EqualValues(t, 1, n.Load())
	})
}

// TestAtTheSameInstant: posts of one key that come while its first is on the way
// wait for its fate, and each is answered by what came of it.
func TestAtTheSameInstant(t *testing.T) {
	for name, row := range map[string]struct {
		first                      func(*delivery.Delivery)
		written                    int
		repeats, conflicts, failed int
	}{
		"acknowledged": {func(*delivery.Delivery) {}, 2, 1, 1, 0},
		"failed":       {func(d *delivery.Delivery) { d.Err = delivery.ErrNoAck }, 3, 0, 0, 1},
		"spooled":      {func(d *delivery.Delivery) { d.Status = delivery.Spooled }, 3, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var written atomic.Int64
				k := fresh(t, logFunc(func(_ context.Context, ds []*delivery.Delivery) bool {
					if written.Add(1) == 1 {
						time.Sleep(time.Second)
						row.first(ds[0])
					}
					return true
				}), DefaultConfig())
				ds := []*delivery.Delivery{of("k", a), of("k", a), of("k", b)}
				var wg sync.WaitGroup
				for _, d := range ds {
					wg.Go(func() { send(k, d) })
					synctest.Wait()
				}
				require.EqualValues(t, 1, written.Load(), "the others wait")
				wg.Wait()
				var repeats, conflicts, failed int
				for _, d := range ds {
					if d.Repeat {
						repeats++
					}
					if d.Conflict {
						conflicts++
					}
					if d.Err != nil {
						failed++
					}
				}
				require.Equal(t, []int{row.written, row.repeats, row.conflicts, row.failed}, []int{int(written.Load()), repeats, conflicts, failed})
			})
		})
	}
}

// TestWaiterLeaves: one that waits for another's record honours its own context.
func TestWaiterLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		log := acknowledges(&n)
		k := fresh(t, logFunc(func(ctx context.Context, ds []*delivery.Delivery) bool {
			time.Sleep(time.Minute)
			return log(ctx, ds)
		}), DefaultConfig())
		var wg sync.WaitGroup
		wg.Go(func() { send(k, of("k", a)) })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		d := of("k", a)
		require.True(t, k.Send(ctx, []*delivery.Delivery{d}), "it was never sent")
		require.ErrorIs(t, d.Err, delivery.ErrNoAck)
		wg.Wait()
	})
}

// TestTenThousandCopies of one event at once are one record.
func TestTenThousandCopies(t *testing.T) {
	var n atomic.Int64
	log := acknowledges(&n)
	k := fresh(t, logFunc(func(ctx context.Context, ds []*delivery.Delivery) bool {
		time.Sleep(time.Millisecond)
		return log(ctx, ds)
	}), DefaultConfig())
	var repeats atomic.Int64
	var wg sync.WaitGroup
	for range 10_000 {
		wg.Go(func() {
			d := of("k", a)
			if send(k, d); d.Err == nil && d.Repeat {
				repeats.Add(1)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, n.Load())
	require.EqualValues(t, 9_999, repeats.Load())
}

// TestNeverAWrongAnswer: many senders, few keys and payloads, a log that fails and
// spools as it likes, a memory that forgets. Whatever is called a repeat is in the
// log under that payload, at the place given; whatever is called a conflict has
// another payload of its key before it; and nothing stays on its way.
func TestNeverAWrongAnswer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type written struct {
			id   uuid.UUID
			hash event.Hash
		}
		var mu sync.Mutex
		var log []written
		turn := rapid.Uint64().Draw(t, "faults")
		next := logFunc(func(_ context.Context, ds []*delivery.Delivery) bool {
			mu.Lock()
			defer mu.Unlock()
			for _, d := range ds {
				turn = turn*6364136223846793005 + 1442695040888963407
				switch turn >> 61 {
				case 0:
					d.Err = errors.New("refused")
				case 1:
					d.Status = delivery.Spooled
				default:
					d.Record.Offset = int64(len(log))
					log = append(log, written{d.ID, d.Hash})
				}
			}
			return true
		})
		k, err := New(Config{Bytes: shards * rowBytes, Age: time.Hour}, next, func() uuid.UUID { return uuid.UUID{} }, prometheus.NewRegistry())
		require.NoError(t, err)
		payloads := []string{a, b, c}
		workers := rapid.SliceOfN(rapid.SliceOfN(rapid.SliceOfN(rapid.IntRange(0, 1<<12), 1, 6), 1, 8), 1, 4).Draw(t, "sends")
		var wg sync.WaitGroup
		for _, sends := range workers {
			wg.Go(func() {
				for _, batch := range sends {
					ds := make([]*delivery.Delivery, len(batch))
					for i, v := range batch {
						ds[i] = of(fmt.Sprint(v%5), payloads[v/5%3])
					}
					if !send(k, ds...) {
						t.Errorf("not settled")
					}
					mu.Lock()
					for _, d := range ds {
						if d.Err == nil && d.Repeat && log[d.Record.Offset] != (written{d.ID, d.Hash}) {
							t.Errorf("called a repeat, and is not in the log at %d", d.Record.Offset)
						}
						differs := false
						for _, w := range log {
							differs = differs || w.id == d.ID && w.hash != d.Hash
						}
						if d.Conflict && !differs {
							t.Errorf("called a conflict with nothing")
						}
					}
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		for i := range k.memory.shards {
			require.Empty(t, k.memory.shards[i].flying)
		}
	})
}

// TestMemory: it forgets its oldest first, what is too old, and everything of
// another topic; and it never grows.
func TestMemory(t *testing.T) {
	t.Run("bounded", func(t *testing.T) {
		var n atomic.Int64
		cfg := Config{Bytes: 1 << 20, Age: time.Hour}
		k := fresh(t, acknowledges(&n), cfg)
		const keys = 100_000
		for i := range keys {
			send(k, of(fmt.Sprint(i), a))
		}
		held, recent := 0, 0
		for i := range keys {
			d := of(fmt.Sprint(i), a)
			s := k.memory.shard(d.ID)
			if _, ok := k.memory.find(s, d.ID); ok {
				if held++; i >= keys-5_000 {
					recent++
				}
			}
		}
		full := int(cfg.Bytes / rowBytes * ways)
		require.LessOrEqual(t, held, full)
		require.Greater(t, held, full*9/10)
		require.Greater(t, recent, 4_900, "the last quarter of what it holds is forgotten too early")
	})
	t.Run("aged", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var n atomic.Int64
			k := fresh(t, acknowledges(&n), Config{Bytes: 1 << 20, Age: time.Minute})
			for i, want := range []bool{false, true, false, true} {
				if i == 2 {
					time.Sleep(2 * time.Minute)
				}
				d := of("k", a)
				send(k, d)
				require.Equal(t, want, d.Repeat, i)
			}
			require.EqualValues(t, 2, n.Load())
		})
	})
	t.Run("another topic", func(t *testing.T) {
		var n atomic.Int64
		id := uuid.UUID{}
		k, err := New(DefaultConfig(), acknowledges(&n), func() uuid.UUID { return id }, prometheus.NewRegistry())
		require.NoError(t, err)
		for _, row := range []struct {
			topic byte
			want  bool
		}{{0, false}, {1, true}, {1, true}, {0, true}, {2, false}, {2, true}} {
			id[0] = row.topic
			d := of("k", a)
			send(k, d)
			require.Equal(t, row.want, d.Repeat, row)
		}
	})
}

func TestConfig(t *testing.T) {
	require.NoError(t, DefaultConfig().Validate())
	require.NoError(t, Config{Age: time.Second}.Validate())
	for name, cfg := range map[string]Config{
		"negative": {Bytes: -1, Age: time.Hour}, "at least": {Bytes: 1, Age: time.Hour},
		"age": {Age: time.Millisecond}, "a year": {Age: 1 << 62},
	} {
		require.ErrorContains(t, cfg.Validate(), name)
	}
}

// BenchmarkSend is what remembering costs an event, alone and in a batch.
func BenchmarkSend(bm *testing.B) {
	var n atomic.Int64
	for _, size := range []int{1, 1000} {
		bm.Run(fmt.Sprint(size), func(bm *testing.B) {
			k := fresh(bm, acknowledges(&n), DefaultConfig())
			ds := make([]*delivery.Delivery, size)
			for i := range ds {
				ds[i] = new(delivery.Delivery)
			}
			bm.ReportAllocs()
			at := uint64(0)
			for bm.Loop() {
				for _, d := range ds {
					at++
					*d = delivery.Delivery{ID: uuid.UUID{byte(at), byte(at >> 8), byte(at >> 16), 1, 0, 0, 0, 0, 0, byte(at), byte(at >> 24), byte(at >> 16), byte(at >> 8), byte(at * 31)}}
				}
				send(k, ds...)
			}
			bm.ReportMetric(float64(bm.Elapsed().Nanoseconds())/float64(bm.N*size), "ns/event")
		})
	}
}
