package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/procfs"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/group"
	"sluice/consumer/internal/kafka"
	"sluice/consumer/internal/monitor"
	"sluice/deploy/demo/sample"
	"sluice/deploy/local/lifeline"
	"sluice/schemas/topic"
)

// benchRecords are so many that what a consumer does once, to take a partition over,
// is little beside them.
const benchRecords = 300_000

// BenchmarkLogToRow is the consumer, log to row with decoding, dedup, intents
// and journal, beside two others in the same run: the floor, which fetches the
// same records and inserts the same columns with nothing decoded or decided; and
// "plain", a member of the group that does what the consumer does without intents and
// dedup: it decodes ahead of the INSERT, writes batches of the same size, and commits
// each when it is stored. So consumer against plain is what exactly-once costs. One
// iteration is 300,000 records of one partition: the demo's events with their times
// shifted, 5 % of them repeats.
//
// The floor's rows hold what the records hold, decoded before the clock starts:
// rows that are all alike would be compressed to nothing and be copied from the
// processor's cache, which is another INSERT than the consumer's.
//
// rows/cpu-s is by the user and system time of this process alone, which is the
// consumer: broker and ClickHouse are processes of their own. path-rows/cpu-s is by
// that of all three, but for merges that come later. BENCH_BROKERS names brokers to
// use instead of the local one, whose time is not counted then.
func BenchmarkLogToRow(b *testing.B) {
	s, others := newBenchStack(b)
	records := benchEvents(b, s.cfg.Kafka.Topic)
	manual, err := kgo.NewClient(kgo.SeedBrokers(s.cfg.Kafka.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(b, err)
	defer manual.Close()
	id, err := s.topicID()
	require.NoError(b, err)
	k := s.log0()
	defer k.Close()
	rate := func(b *testing.B, own, path time.Duration) {
		n := float64(benchRecords) * float64(b.N)
		b.ReportMetric(n/b.Elapsed().Seconds(), "rows/s")
		b.ReportMetric(n/own.Seconds(), "rows/cpu-s")
		b.ReportMetric(n/path.Seconds(), "path-rows/cpu-s")
	}
	taken := func() (own, path time.Duration) {
		own = cpuTime()
		return own, own + others()
	}

	b.Run("floor", func(b *testing.B) {
		row := atHand(records)
		var own, path time.Duration
		for b.Loop() {
			b.StopTimer()
			s.exec("TRUNCATE TABLE event_log")
			from := s.fill(manual, records)
			ownBefore, pathBefore := taken()
			b.StartTimer()
			require.NoError(b, fetchAndInsert(b.Context(), s, k, id, from, row))
			ownAfter, pathAfter := taken()
			own, path = own+ownAfter-ownBefore, path+pathAfter-pathBefore
		}
		rate(b, own, path)
	})
	b.Run("plain", func(b *testing.B) {
		var own, path time.Duration
		for b.Loop() {
			b.StopTimer()
			s.exec("TRUNCATE TABLE event_log")
			from := s.fill(manual, records)
			p := atLeastOnce{s: s, k: k, id: id, from: from, begin: make(chan struct{}), done: make(chan error, 1)}
			stop := p.join()
			ownBefore, pathBefore := taken()
			b.StartTimer()
			close(p.begin)
			require.NoError(b, <-p.done)
			b.StopTimer()
			ownAfter, pathAfter := taken()
			own, path = own+ownAfter-ownBefore, path+pathAfter-pathBefore
			stop()
			b.StartTimer()
		}
		rate(b, own, path)
	})
	b.Run("consumer", func(b *testing.B) {
		var own, path time.Duration
		for b.Loop() {
			b.StopTimer()
			s.exec("TRUNCATE TABLE event_log")
			s.exec("TRUNCATE TABLE journal")
			s.fill(manual, records)
			_, end, err := s.bounds()
			require.NoError(b, err)
			// Journaled up to the new records, so that only they are read.
			require.NoError(b, s.journalTo(id, end-benchRecords))
			mon := unregistered()
			stop := s.consumingShown(mon) // returns when it owns the partition: joining a group is not what is measured
			ownBefore, pathBefore := taken()
			b.StartTimer()
			// The monitor is asked, not ClickHouse: that would be work of the
			// benchmark's own, on the consumer's account.
			for !journaled(mon, end) {
				time.Sleep(10 * time.Millisecond)
			}
			b.StopTimer()
			ownAfter, pathAfter := taken()
			own, path = own+ownAfter-ownBefore, path+pathAfter-pathBefore
			stop()
			b.StartTimer()
		}
		rate(b, own, path)
	})
}

// cpuTime is the user and system time that this process has taken.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// newBenchStack is a stack whose broker is a process of its own. others is the user
// and system time that the processes beside this one have taken.
func newBenchStack(b *testing.B) (s *stack, others func() time.Duration) {
	b.Helper()
	b.Cleanup(defaults().GC.Apply())
	brokers := os.Getenv("BENCH_BROKERS")
	var pids []int
	if brokers == "" {
		var pid int
		brokers, pid = brokerProcess(b)
		pids = append(pids, pid)
	}
	s = newStackOn(b, strings.Split(brokers, ","))
	pids = append(pids, s.engine.PID())
	return s, func() (sum time.Duration) {
		for _, pid := range pids {
			p, err := procfs.NewProc(pid)
			require.NoError(b, err)
			stat, err := p.Stat()
			require.NoError(b, err)
			sum += time.Duration(stat.CPUTime() * float64(time.Second))
		}
		return sum
	}
}

// brokerProcess starts the local broker and returns its address and process.
func brokerProcess(b *testing.B) (brokers string, pid int) {
	b.Helper()
	binary := filepath.Join(b.TempDir(), "broker")
	build := exec.Command("go", "build", "-o", binary, "sluice/deploy/local/broker")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(b, err, "%s", out)
	cmd := exec.Command(binary, "--port", "0", "--data", b.TempDir(), "--"+lifeline.Flag)
	stdin, err := cmd.StdinPipe()
	require.NoError(b, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(b, err)
	require.NoError(b, cmd.Start())
	b.Cleanup(func() {
		require.NoError(b, stdin.Close())
		require.NoError(b, cmd.Wait())
	})
	addr, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(b, err)
	return strings.TrimSpace(addr), cmd.Process.Pid
}

// benchEvents are the demo's events over and over, each time a minute later, every
// twentieth a repeat of one ten before it.
func benchEvents(b *testing.B, topicName string) []*kgo.Record {
	b.Helper()
	sample, err := sample.Events("")
	require.NoError(b, err)
	start := time.Now().UTC().Add(-time.Hour).Truncate(time.Hour)
	out := make([]*kgo.Record, 0, benchRecords)
	for i := range benchRecords {
		n := i
		if i%20 == 19 {
			n = i - 10
		}
		e := sample[n%len(sample)]
		e.OccurredAt = start.Add(time.Duration(n) * time.Millisecond)
		out = append(out, &kgo.Record{Key: e.AppendKey(nil), Value: e.AppendJSON(nil), Topic: topicName})
	}
	return out
}

// journaled tells whether partition 0 is journaled up to end.
func journaled(mon *monitor.Monitor, end int64) bool {
	for _, p := range mon.Status().Partitions {
		if p.Partition == 0 && p.Next >= end {
			return true
		}
	}
	return false
}

// rowOf makes a row of a record as it stands in the log; nth is its place among
// those of the iteration.
type rowOf func(nth int, raw batch.Raw) *batch.Record

// atHand has all that is in records decoded already.
func atHand(records []*kgo.Record) rowOf {
	d := batch.NewDecoder(1)
	rows := make([]batch.Record, len(records))
	for i, r := range records {
		rows[i] = d.Decode(batch.Raw{Key: r.Key, Value: r.Value})
	}
	return func(nth int, raw batch.Raw) *batch.Record {
		rows[nth].Raw = raw
		return &rows[nth]
	}
}

// fetchAndInsert fetches the records as the consumer does and writes the same
// columns in blocks of the same size.
func fetchAndInsert(ctx context.Context, s *stack, k *kafka.Log, id uuid.UUID, from int64, row rowOf) error {
	reader, err := k.Open(0, from)
	if err != nil {
		return err
	}
	defer reader.Close()
	var rows []*batch.Record
	read := 0
	for read < benchRecords {
		raws, err := reader.Next(ctx)
		if err != nil {
			return err
		}
		for _, raw := range raws {
			rows = append(rows, row(int(raw.Offset-from), raw))
		}
		read += len(raws)
		if len(rows) >= s.cfg.Batch.Rows || read >= benchRecords {
			if err := s.store.Rows(ctx, uuid.NewString(), topic.Origin{TopicID: id}, rows); err != nil {
				return fmt.Errorf("the floor's INSERT: %w", err)
			}
			rows = rows[:0]
		}
	}
	return nil
}

// atLeastOnce is the consumer with intents and dedup off, an ordinary one
// that commits what it has written.
type atLeastOnce struct {
	s     *stack
	k     *kafka.Log
	id    uuid.UUID
	from  int64
	begin chan struct{}
	done  chan error
}

// join returns when the group has given it the partition.
func (p *atLeastOnce) join() (stop func()) {
	t, cfg := p.s.t, p.s.cfg
	t.Helper()
	assigned := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	member, err := group.Join(ctx, group.Config{
		Topic: cfg.Kafka.Topic, ID: "plain", Protocol: cfg.Group.Protocol, Admin: p.k.Admin(),
		SessionTimeout: cfg.Group.SessionTimeout, RevokeTimeout: cfg.Group.RevokeTimeout,
	}, cfg.Kafka.Options(p.s.log), p.s.log, func(ctx context.Context, stop <-chan struct{}, _ int32, commit group.CommitFunc) {
		close(assigned)
		select {
		case <-p.begin:
			p.done <- p.consume(ctx, commit)
		case <-stop:
		case <-ctx.Done():
		}
	})
	require.NoError(t, err)
	ended := make(chan struct{})
	go func() { defer close(ended); member.Run(ctx) }()
	select {
	case <-assigned:
	case <-time.After(30 * time.Second):
		require.Fail(t, "no partition was assigned")
	}
	return func() { member.Leave(); cancel(); <-ended }
}

func (p *atLeastOnce) consume(ctx context.Context, commit group.CommitFunc) error {
	reader, err := p.k.Open(0, p.from)
	if err != nil {
		return err
	}
	defer reader.Close()
	chunks := make(chan []batch.Record, 1)
	tasks, ctx := errgroup.WithContext(ctx)
	tasks.Go(func() error {
		defer close(chunks)
		d := batch.NewDecoder(1)
		for read := 0; read < benchRecords; {
			raws, err := reader.Next(ctx)
			if err != nil {
				return err
			}
			read += len(raws)
			records := make([]batch.Record, len(raws))
			for i := range raws {
				d.DecodeInto(&records[i], &raws[i])
			}
			select {
			case chunks <- records:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	tasks.Go(func() error {
		limit := p.s.cfg.Batch.Rows
		rows := make([]*batch.Record, 0, limit)
		write := func() error {
			if err := p.s.store.Rows(ctx, uuid.NewString(), topic.Origin{TopicID: p.id}, rows); err != nil {
				return err
			}
			next := rows[len(rows)-1].Offset + 1
			rows = rows[:0]
			return commit(ctx, next, "")
		}
		for records := range chunks {
			for i := range records {
				rows = append(rows, &records[i])
				if len(rows) < limit {
					continue
				}
				if err := write(); err != nil {
					return err
				}
			}
		}
		if len(rows) == 0 || ctx.Err() != nil {
			return ctx.Err()
		}
		return write()
	})
	return tasks.Wait()
}
