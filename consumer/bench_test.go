package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/procfs"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/group"
	"sluice/consumer/internal/intent"
	"sluice/consumer/internal/kafka"
	"sluice/consumer/internal/monitor"
	"sluice/deploy/demo/sample"
	"sluice/deploy/local/lifeline"
	"sluice/schemas/event"
	"sluice/schemas/topic"
)

// benchRecords are so many that what a consumer does once, to take a partition over,
// is little beside them.
const benchRecords = 1_000_000

// BenchmarkLogToRow is the consumer, log to row with decoding, dedup, intents
// and journal, beside two others, in turns: the floor, which fetches the same records
// and inserts the same columns with nothing decoded or decided; and "plain", a member
// of the group that does what the consumer does without intents and dedup: it decodes
// ahead of the INSERT, writes batches of the same size, and commits each when it is
// stored. So consumer against plain is what exactly-once costs. One iteration is
// 1,000,000 records of one partition for each of the three: the demo's events with their
// times shifted, 5 % of them repeats. None are held, so that the collector has what a
// consumer gives it and no more.
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
	events := newEvents(b)
	manual, err := kgo.NewClient(kgo.SeedBrokers(s.cfg.Kafka.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(b, err)
	defer manual.Close()
	id, err := s.topicID()
	require.NoError(b, err)
	k := s.log0()
	defer k.Close()
	var floor, plain, consumer spent
	row := atHand(events, s.cfg.Batch.Rows)
	one := func(of *spent, prepare func(from int64) (run, end func())) {
		s.exec("TRUNCATE TABLE event_log")
		run, end := prepare(s.fill(manual, events))
		runtime.GC() // what preparing left is not for the one that is measured to collect
		began, own, path := time.Now(), cpuTime(), others()
		run()
		of.wall, of.own, of.path = of.wall+time.Since(began), of.own+cpuTime()-own, of.path+others()-path+cpuTime()-own
		end()
	}
	for b.Loop() {
		one(&floor, func(from int64) (run, end func()) {
			return func() { require.NoError(b, fetchAndInsert(b.Context(), s, k, id, from, row)) }, func() {}
		})
		one(&plain, func(from int64) (run, end func()) {
			p := atLeastOnce{s: s, k: k, id: id, from: from, begin: make(chan struct{}), done: make(chan error, 1)}
			end = p.join()
			return func() { close(p.begin); require.NoError(b, <-p.done) }, end
		})
		one(&consumer, func(from int64) (run, end func()) {
			s.exec("TRUNCATE TABLE journal")
			// Journaled and closed up to the new records, as an owner leaves it: only they
			// are read, and nothing of them can have been written before.
			require.NoError(b, s.journalTo(id, from))
			closed := kadm.Offsets{}
			closed.Add(kadm.Offset{Topic: s.cfg.Kafka.Topic, At: from, LeaderEpoch: -1, Metadata: intent.ClosedAt(from, id, 1).Metadata()})
			require.NoError(b, k.Admin().CommitAllOffsets(b.Context(), s.cfg.Group.ID, closed))
			mon := unregistered()
			end = s.consumingShown(mon) // returns when it owns the partition: joining a group is not what is measured
			return func() {
				// The monitor is asked, and seldom: that is work of the benchmark's own, on
				// the consumer's account.
				for !journaled(mon, from+benchRecords) {
					time.Sleep(50 * time.Millisecond)
				}
			}, end
		})
	}
	n := benchRecords * float64(b.N)
	for name, of := range map[string]spent{"floor": floor, "plain": plain, "consumer": consumer} {
		b.ReportMetric(n/of.wall.Seconds(), name+"-rows/s")
		b.ReportMetric(n/of.own.Seconds(), name+"-rows/cpu-s")
		b.ReportMetric(n/of.path.Seconds(), name+"-path-rows/cpu-s")
	}
	b.ReportMetric(floor.own.Seconds()/consumer.own.Seconds(), "of-floor")
	b.ReportMetric(plain.own.Seconds()/consumer.own.Seconds(), "of-plain")
	b.ReportMetric(plain.path.Seconds()/consumer.path.Seconds(), "of-plain-path")
	b.ReportMetric(plain.wall.Seconds()/consumer.wall.Seconds(), "of-plain-rate")
	b.ReportMetric(0, "ns/op")
}

// spent is what one of the three has taken: by the clock, of this process's
// processors, and of those of all processes.
type spent struct{ wall, own, path time.Duration }

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

// events are the demo's over and over, each a millisecond later, every twentieth a
// repeat of one ten before it.
type events struct {
	sample []event.Event
	start  time.Time
}

func newEvents(b *testing.B) events {
	b.Helper()
	sample, err := sample.Events("")
	require.NoError(b, err)
	return events{sample, time.Now().UTC().Add(-time.Hour).Truncate(time.Hour)}
}

func (x events) nth(n int) (key, value []byte) {
	if n%20 == 19 {
		n -= 10
	}
	e := x.sample[n%len(x.sample)]
	e.OccurredAt = x.start.Add(time.Duration(n) * time.Millisecond)
	return e.AppendKey(nil), e.AppendJSON(nil)
}

// fill produces benchRecords to partition 0 and returns where they begin.
func (s *stack) fill(manual *kgo.Client, x events) int64 {
	s.t.Helper()
	_, from, err := s.bounds()
	require.NoError(s.t, err)
	for n := 0; n < benchRecords; {
		some := make([]*kgo.Record, min(20_000, benchRecords-n))
		for i := range some {
			key, value := x.nth(n)
			some[i] = &kgo.Record{Key: key, Value: value, Topic: s.cfg.Kafka.Topic}
			n++
		}
		require.NoError(s.t, manual.ProduceSync(s.t.Context(), some...).FirstErr())
	}
	return from
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

// atHand has as many rows decoded already as a batch holds: no two of one INSERT are
// the same.
func atHand(x events, n int) rowOf {
	d := batch.NewDecoder(1)
	rows := make([]batch.Record, n)
	for i := range rows {
		key, value := x.nth(i)
		rows[i] = d.Decode(batch.Raw{Key: key, Value: value})
	}
	return func(nth int, raw batch.Raw) *batch.Record {
		r := &rows[nth%n]
		r.Raw = raw
		return r
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
	for read := 0; read < benchRecords; {
		raws, err := reader.Next(ctx)
		if err != nil {
			return err
		}
		for _, raw := range raws {
			rows = append(rows, row(int(raw.Offset-from), raw))
			if read++; len(rows) < s.cfg.Batch.Rows && read < benchRecords {
				continue
			}
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
