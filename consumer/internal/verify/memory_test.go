package verify

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/partition"
	"sluice/schemas/topic"
)

// endless is a log and what ClickHouse has of it, both made as they are read, so
// that nothing but verify takes memory: n records, of which the last third
// repeats the first.
type endless struct {
	n int64
	// gone is a row that is missing, -1: none.
	gone int64
}

func (e endless) events() int64 { return e.n * 2 / 3 }

func (e endless) raw(offset int64) batch.Raw {
	n := offset % e.events()
	return raw(offset, int(n), fmt.Sprintf(`{"number":%d}`, n))
}

func (e endless) Open(_ int32, from int64) (partition.Reader, error) {
	return &endlessReader{e, from}, nil
}

type endlessReader struct {
	endless
	position int64
}

func (r *endlessReader) Next(ctx context.Context) ([]batch.Raw, error) {
	var out []batch.Raw
	for ; len(out) < 500 && r.position < r.n; r.position++ {
		out = append(out, r.raw(r.position))
	}
	return out, ctx.Err()
}

func (r *endlessReader) Position() int64 { return r.position }
func (r *endlessReader) Close()          {}

func (e endless) Rows(_ context.Context, _ topic.Origin, first, last int64, each func(Row)) error {
	decoder, digest := batch.NewDecoder(1), xxhash.New()
	for o := first; o <= min(last, e.events()-1); o++ {
		if o != e.gone {
			r := decoder.Decode(e.raw(o))
			each(Row{o, r.ID, r.Hash, contentOf(digest, &r.Event)})
		}
	}
	return nil
}

func (e endless) Fates(_ context.Context, self topic.Origin, first, last int64, each func(Fate)) error {
	decoder := batch.NewDecoder(1)
	for o := max(first, e.events()); o <= last; o++ {
		r := decoder.Decode(e.raw(o))
		self.Offset = o % e.events()
		each(Fate{Offset: o, Last: o, Fate: dedup.Duplicate, ID: r.ID, Hash: r.Hash, First: self})
	}
	return nil
}

func (endless) Reaching(context.Context, topic.Origin, int64, func(Fate)) error { return nil }

func (endless) Named(context.Context, []topic.Origin) (map[topic.Origin]Row, error) { return nil, nil }

// verify held an entry of about 100 bytes for every key of a partition.
func TestMemoryIsBounded(t *testing.T) {
	const n, memory = 300_000, 3 << 20
	defer debug.SetGCPercent(debug.SetGCPercent(10)) // what is held, not what lies about
	heap := func() int64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	peak := func(memory int64) int64 {
		e := endless{n: n, gone: 1234}
		runtime.GC()
		base := heap()
		var most atomic.Int64
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for {
				most.Store(max(most.Load(), heap()-base))
				select {
				case <-stop:
					return
				case <-time.After(2 * time.Millisecond):
				}
			}
		}()
		v := Verifier{Log: e, Store: e, Memory: memory, TempDir: t.TempDir()}
		counts, found := compared(t, v, Range{Self: topic.Origin{TopicID: topicA}, Partitions: 1, To: n})
		close(stop)
		<-done
		require.Equal(t, Counts{Records: n, Rows: n*2/3 - 1, Duplicates: n / 3, Missing: 1}, counts)
		require.Equal(t, map[int64]string{1234: "should be a row; ClickHouse has neither row nor fate"}, found)
		return most.Load()
	}
	small, large := peak(memory), peak(1<<30)
	t.Logf("%d records: peak %d KiB with --memory %d KiB, %d KiB without a bound", n, small>>10, memory>>10, large>>10)
	require.Less(t, small, int64(3*memory))
	require.Greater(t, large, int64(3*memory), "or the bound was never near")
}

// What verify itself costs: reading, decoding and judging, without a broker or
// ClickHouse. One iteration is 300,000 records of one partition.
func BenchmarkVerify(b *testing.B) {
	const n = 300_000
	raws := make([]batch.Raw, n)
	e := endless{n: n, gone: -1}
	st := &sliceStore{}
	decoder, digest := batch.NewDecoder(1), xxhash.New()
	for o := range int64(n) {
		raws[o] = e.raw(o)
		r := decoder.Decode(raws[o])
		if o < e.events() {
			st.rows = append(st.rows, Row{o, r.ID, r.Hash, contentOf(digest, &r.Event)})
		} else {
			st.fates = append(st.fates, Fate{Offset: o, Last: o, Fate: dedup.Duplicate, ID: r.ID, Hash: r.Hash, First: origin(o % e.events())})
		}
	}
	for _, memory := range []int64{4 << 20, DefaultMemory} {
		b.Run(fmt.Sprintf("memory=%dMiB", memory>>20), func(b *testing.B) {
			v := Verifier{Log: memoryLog{raws, n, 5000}, Store: st, Memory: memory, TempDir: b.TempDir()}
			for b.Loop() {
				counts, err := v.Partition(b.Context(), Range{Self: topic.Origin{TopicID: topicA}, Partitions: 1, To: n}, func(f Finding) { b.Fatal(f) }, func(int64) {})
				require.NoError(b, err)
				require.Equal(b, n, counts.Records)
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

// sliceStore has rows at the first offsets and fates at those after.
type sliceStore struct {
	endless
	rows  []Row
	fates []Fate
}

func (s *sliceStore) Rows(_ context.Context, _ topic.Origin, first, last int64, each func(Row)) error {
	for o := first; o <= last && o < int64(len(s.rows)); o++ {
		each(s.rows[o])
	}
	return nil
}

func (s *sliceStore) Fates(_ context.Context, _ topic.Origin, first, last int64, each func(Fate)) error {
	for o := max(first-int64(len(s.rows)), 0); o <= last-int64(len(s.rows)); o++ {
		each(s.fates[o])
	}
	return nil
}
