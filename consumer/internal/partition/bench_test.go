package partition_test

import (
	"context"
	"log/slog"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/index"
	"sluice/consumer/internal/intent"
	"sluice/consumer/internal/partition"
	"sluice/consumer/internal/store"
	"sluice/deploy/demo/sample"
	"sluice/schemas/topic"
)

// BenchmarkOwner is what an owner itself costs: its log hands out records that are
// in memory and its table takes rows for nothing, so what is left is decoding,
// forming, hashing, deciding and remembering. "decoded" decodes the same records
// and does no more. One iteration is 100,000 records, 5 % of them repeats.
//
// rows/cpu-s is by this process's own time, the collector's included.
func BenchmarkOwner(b *testing.B) {
	b.Run("decoded", func(b *testing.B) {
		log := benchLog(b)
		d := batch.NewDecoder(1)
		before := cpuTime()
		for b.Loop() {
			log.at = 0
			for log.at < benchRecords {
				raws, err := log.Next(b.Context())
				require.NoError(b, err)
				records := make([]batch.Record, len(raws))
				for i := range raws {
					records[i] = d.Decode(raws[i])
				}
			}
		}
		rate(b, cpuTime()-before)
	})
	b.Run("owner", func(b *testing.B) {
		log := benchLog(b)
		before := cpuTime()
		for b.Loop() {
			log.at = 0
			owned(b, log)
		}
		rate(b, cpuTime()-before)
	})
}

const (
	benchRecords = 100_000
	benchFirst   = 1000 // journaled up to here
)

// owned lets an owner read all of log, once.
func owned(b *testing.B, log *memoryLog) {
	b.Helper()
	budget := index.NewBudget(1<<30, 1)
	done := make(chan struct{})
	owner := partition.New(partition.Config{
		Topic: "events", Limits: batch.DefaultLimits(), CloseAfter: time.Second, IntentFresh: time.Minute,
		Index: budget, IndexLive: 2 * time.Hour,
	}, log, nowhere{}, until(func(next int64) {
		if next == benchFirst+benchRecords {
			close(done)
		}
	}), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		owner.Run(ctx, nil)
	}()
	<-done
	cancel()
	<-ended
}

func rate(b *testing.B, cpu time.Duration) {
	b.ReportMetric(benchRecords*float64(b.N)/cpu.Seconds(), "rows/cpu-s")
	b.ReportMetric(float64(cpu.Nanoseconds())/benchRecords/float64(b.N), "cpu-ns/row")
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// memoryLog holds a partition's records in memory and hands them out by the chunk.
type memoryLog struct {
	records []batch.Raw
	at      int
}

// benchLog has the demo's events over and over, each time later, every twentieth a
// repeat of one ten before it.
func benchLog(b *testing.B) *memoryLog {
	b.Helper()
	sample, err := sample.Events("")
	require.NoError(b, err)
	start := time.Now().UTC().Add(-time.Hour)
	log := &memoryLog{}
	for i := range benchRecords {
		n := i
		if i%20 == 19 {
			n = i - 10
		}
		e := sample[n%len(sample)]
		e.OccurredAt = start.Add(time.Duration(n) * time.Millisecond)
		log.records = append(log.records, batch.Raw{Offset: benchFirst + int64(i), Timestamp: start, Key: e.AppendKey(nil), Value: e.AppendJSON(nil)})
	}
	return log
}

func (l *memoryLog) Where(context.Context) (partition.Where, error) {
	id := uuid.UUID{1}
	return partition.Where{TopicID: id, Partitions: 1, End: benchFirst + benchRecords, Committed: benchFirst, Metadata: intent.ClosedAt(benchFirst, id, 1).Metadata()}, nil
}

func (l *memoryLog) EpochEnd(context.Context, int32) (int64, bool, error)            { return 0, false, nil }
func (l *memoryLog) Open(int64) (partition.Reader, error)                            { return l, nil }
func (l *memoryLog) Commit(context.Context, int64, string) error                     { return nil }
func (l *memoryLog) Position() int64                                                 { return benchFirst + int64(l.at) }
func (l *memoryLog) Close()                                                          {}
func (l *memoryLog) DeadLetter(context.Context, topic.Origin, []*batch.Record) error { return nil }
func (l *memoryLog) Forward(context.Context, topic.Origin, []*batch.Record) error    { return nil }

func (l *memoryLog) Next(ctx context.Context) ([]batch.Raw, error) {
	if l.at == len(l.records) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	end := min(l.at+20_000, len(l.records))
	raws := slices.Clone(l.records[l.at:end])
	l.at = end
	return raws, nil
}

// nowhere is a ClickHouse that has nothing and takes all.
type nowhere struct{}

func (nowhere) Seen(context.Context, topic.Origin) (store.Seen, error) {
	return store.Seen{End: benchFirst, Beyond: -1}, nil
}

func (nowhere) Keys(context.Context, time.Time, time.Time, int32, int32, func(int32, uuid.UUID)) error {
	return nil
}

func (nowhere) FirstOf(context.Context, []*batch.Record) (map[uuid.UUID]dedup.First, error) {
	return nil, nil
}

func (nowhere) RowsIn(context.Context, topic.Origin, int64, int64) (map[int64]uuid.UUID, error) {
	return nil, nil
}

func (nowhere) FatesIn(context.Context, topic.Origin, int64, int64) (map[int64]dedup.Fate, error) {
	return nil, nil
}

func (nowhere) Rows(context.Context, string, topic.Origin, []*batch.Record) error { return nil }

func (nowhere) Journal(context.Context, string, string, topic.Origin, []store.Entry) error {
	return nil
}

func (nowhere) Stop(context.Context, topic.Origin) error { return nil }

func (nowhere) Barriers(context.Context, uuid.UUID) (map[int32]int32, error) {
	return map[int32]int32{0: 1}, nil
}

func (nowhere) Cuts(context.Context, topic.Origin) ([]store.Cut, error) { return nil, nil }

func (nowhere) Counted(context.Context, topic.Origin) (int, bool, error) { return 0, false, nil }

func (nowhere) LastBatch(context.Context, topic.Origin) (store.LastBatch, bool, error) {
	return store.LastBatch{}, false, nil
}

// until is told how far the owner has come.
type until func(next int64)

func (u until) Decided(_ int32, _ map[dedup.Fate]int, _ int, next int64) { u(next) }
func (until) Halted(int32, error)                                        {}
