package index_test

import (
	"context"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/index"
	"sluice/schemas/topic"
)

const million = 1_000_000

// spread is how the keys of a benchmark lie in time.
var spread = []struct {
	name string
	over time.Duration
}{
	{"2 hours", 2 * time.Hour},
	{"10 years", 3650 * 24 * time.Hour},
	{"1 minute", time.Minute},
}

func filled(b *testing.B, keys int, over time.Duration) (*index.Index, time.Duration) {
	b.Helper()
	step := over / time.Duration(keys)
	source := func(context.Context, time.Time, time.Time, func(int32, uuid.UUID)) error { return nil }
	x := index.New(index.Config{Source: source, Budget: index.NewBudget(1<<30, 1), Now: noon, Live: over + time.Hour})
	b.Cleanup(x.Close)
	require.NoError(b, x.Take(b.Context()))
	require.NoError(b, x.Wait(b.Context()))
	rows := make([]batch.Record, 50_000)
	for n := 0; n < keys; n += len(rows) {
		records := make([]*batch.Record, len(rows))
		for i := range rows {
			rows[i] = *record(noon.Add(-time.Duration(n+i)*step), uint64(n+i))
			records[i] = &rows[i]
		}
		x.Add(records, topic.Origin{})
		require.NoError(b, x.Take(b.Context()))
	}
	return x, step
}

// cpu is the processor time this process has used: what a check costs when
// others use the machine too.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkLook is a million checks an iteration, of records that lie in memory as a
// batch's do.
func BenchmarkLook(b *testing.B) {
	for _, s := range spread {
		x, step := filled(b, 10*million, s.over)
		for _, what := range []struct {
			name   string
			from   uint64
			within uint64
		}{
			{"new keys of the last", 1 << 40, 500_000},
			{"new keys of any time", 1 << 40, 10 * million},
			{"stored keys of any time", 0, 10 * million},
		} {
			records := make([]batch.Record, million)
			asked := make([]*batch.Record, million)
			n := uint64(0)
			for i := range records {
				n = (n + 7_368_787) % what.within // jumps about
				records[i] = *record(noon.Add(-time.Duration(n)*step), what.from+n)
				asked[i] = &records[i]
			}
			b.Run(s.name+"/"+what.name, func(b *testing.B) {
				b.ReportAllocs()
				checks := 0
				before := cpu(b)
				for b.Loop() {
					x.Look(asked, func(*batch.Record, dedup.First, index.Answer) { checks++ })
				}
				b.ReportMetric(float64(checks)/(cpu(b)-before).Seconds(), "checks/cpu-s")
			})
		}
	}
}

func BenchmarkAdd(b *testing.B) {
	for _, s := range spread {
		b.Run(s.name, func(b *testing.B) {
			for b.Loop() {
				filled(b, 10*million, s.over)
			}
			b.ReportMetric(10*million*float64(b.N)/b.Elapsed().Seconds(), "keys/s")
		})
	}
}

// BenchmarkMemory reports what 1 to 10 million keys take, by the index's own
// account and by the heap's.
func BenchmarkMemory(b *testing.B) {
	for _, s := range spread {
		for _, keys := range []int{million, 3 * million, 10 * million} {
			b.Run(s.name, func(b *testing.B) {
				for b.Loop() {
					var before, after runtime.MemStats
					runtime.GC()
					runtime.ReadMemStats(&before)
					x, _ := filled(b, keys, s.over)
					runtime.GC()
					runtime.ReadMemStats(&after)
					stats := x.Stats()
					require.Equal(b, keys, stats.Keys)
					b.ReportMetric(float64(stats.Bytes)/float64(keys), "bytes/key")
					b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(keys), "heap-bytes/key")
					b.ReportMetric(float64(stats.Pages), "pages")
					b.ReportMetric(float64(keys), "keys")
					runtime.KeepAlive(x)
				}
			})
		}
	}
}
