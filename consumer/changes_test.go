package main

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/group"
	"sluice/consumer/internal/index"
	"sluice/consumer/internal/intent"
	"sluice/consumer/internal/partition"
	"sluice/schemas/event"
	"sluice/schemas/topic"
)

// memoryLog is a partition that a test can do to what no broker offers to do to
// its own: take records back, or put others in their place.
type memoryLog struct {
	mu         sync.Mutex
	id         uuid.UUID
	partitions int32
	start      int64
	records    []batch.Raw // the first has offset start
	epochs     map[int32]int64
	committed  int64
	metadata   string
	dead       []topic.Origin
}

func newMemoryLog() *memoryLog {
	return &memoryLog{id: uuid.New(), partitions: 1, committed: -1, epochs: map[int32]int64{}}
}

// put appends events of leader epoch e.
func (l *memoryLog) put(e int32, from, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range n {
		r := record(from+i, `{}`)
		l.records = append(l.records, batch.Raw{
			Offset: l.start + int64(len(l.records)), Epoch: e, Timestamp: time.UnixMilli(1_767_323_045_000 + int64(i)), Key: r.Key, Value: r.Value,
		})
	}
}

// cut takes the records from an offset on back, as an election among replicas
// that lag does; what comes is of a later epoch.
func (l *memoryLog) cut(at int64, epoch int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = l.records[:at-l.start]
	l.epochs[epoch] = at
}

func (l *memoryLog) Where(context.Context) (partition.Where, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return partition.Where{
		TopicID: l.id, Partitions: l.partitions, Start: l.start, End: l.start + int64(len(l.records)),
		Committed: l.committed, Metadata: l.metadata,
	}, nil
}

func (l *memoryLog) EpochEnd(_ context.Context, epoch int32) (int64, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if end, ended := l.epochs[epoch]; ended {
		return end, true, nil
	}
	return l.start + int64(len(l.records)), true, nil
}

func (l *memoryLog) Commit(_ context.Context, offset int64, metadata string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.committed, l.metadata = offset, metadata
	return nil
}

func (l *memoryLog) DeadLetter(_ context.Context, self topic.Origin, letters []*batch.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range letters {
		self.Offset = r.Offset
		l.dead = append(l.dead, self)
	}
	return nil
}

func (l *memoryLog) Forward(context.Context, topic.Origin, []*batch.Record) error {
	return errors.New("a topic of one partition has nothing to forward")
}

func (l *memoryLog) Open(from int64) (partition.Reader, error) {
	return &memoryReader{log: l, position: from}, nil
}

type memoryReader struct {
	log      *memoryLog
	position int64
}

func (r *memoryReader) Next(ctx context.Context) ([]batch.Raw, error) {
	for {
		r.log.mu.Lock()
		var out []batch.Raw
		if i := r.position - r.log.start; i < int64(len(r.log.records)) {
			out = append(out, r.log.records[i:min(i+7, int64(len(r.log.records)))]...)
		}
		r.log.mu.Unlock()
		if len(out) > 0 {
			r.position += int64(len(out))
			return out, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

func (r *memoryReader) Position() int64 { return r.position }
func (r *memoryReader) Close()          {}

// owning runs an owner of l until the returned function is called.
func (s *stack) owning(l partition.Log) (stop func()) {
	halt, done := make(chan struct{}), make(chan struct{})
	owner := partition.New(partition.Config{
		Topic: s.cfg.Kafka.Topic, Limits: batch.Limits{Rows: 10, Bytes: 1 << 20, Age: 5 * time.Millisecond, TablePartitions: 60},
		CloseAfter: 5 * time.Millisecond, IntentFresh: time.Minute, Index: index.NewBudget(8<<20, 1), IndexLive: time.Hour,
	}, l, s.store, unregistered(), s.log)
	go func() { defer close(done); owner.Run(s.t.Context(), halt) }()
	return func() { close(halt); <-done }
}

// reaches waits until as many records are journaled over all logs.
func (s *stack) reaches(records int) {
	s.t.Helper()
	require.Eventually(s.t, func() bool {
		return s.scalar("SELECT toUInt64(sum(records)) FROM balance") == uint64(records)
	}, 20*time.Second, 10*time.Millisecond)
	require.Zero(s.t, s.scalar("SELECT toUInt64(sum(abs(difference)) + sum(repeats) + sum(twice)) FROM balance"))
}

// Records that were decided are gone from the log, and others stand at their
// offsets: rows of both stay apart, each event once, and the sheets of both add
// up. It happens while the owner is away and while it runs.
func TestALogThatWasCut(t *testing.T) {
	t.Parallel()
	for name, others := range map[string]int{
		"the log is shorter than the journal": 0,
		"others have filled it again":         40,
	} {
		t.Run(name, func(t *testing.T) {
			s := newStack(t)
			l := newMemoryLog()
			l.put(1, 0, 50)
			stop := s.owning(l)
			s.reaches(50)
			stop()
			l.cut(30, 1)
			l.put(2, 40, others) // of which the first ten are of events that have rows
			stop = s.owning(l)
			s.reaches(50 + others)
			l.put(2, 200, 5)
			s.reaches(55 + others)
			stop()
			fresh := max(others-10, 0)
			require.EqualValues(t, 55+fresh, s.scalar("SELECT count() FROM event_log"))
			require.EqualValues(t, 20, s.scalar("SELECT cut FROM balance WHERE cut > 0"))
			require.EqualValues(t, 2, s.scalar("SELECT count() FROM balance"))

			// A replay reads each side of the cut under its own id.
			s.exec("DELETE FROM event_log WHERE offset IN (3, 32) AND actor_id != ''")
			gone := 55 + fresh - int(s.scalar("SELECT count() FROM event_log"))
			require.Positive(t, gone)
			l.committed, l.metadata = 0, ""
			stop = s.owning(l)
			defer stop()
			back := uint64(55 + fresh - 1) // the old log's row of offset 32 has no record any more
			require.Eventually(t, func() bool { return s.scalar("SELECT count() FROM event_log") == back }, 20*time.Second, 10*time.Millisecond)
		})
	}
}

// The cut goes through the range of an open intent, of which some rows stand: what
// is left of it is decided, and nothing waits for records that will not come.
func TestACutThroughAnOpenIntent(t *testing.T) {
	s := newStack(t)
	l := newMemoryLog()
	l.put(1, 0, 20)
	d := batch.NewDecoder(1)
	b := batch.New(0)
	var rows []*batch.Record
	for _, raw := range l.records {
		r := d.Decode(raw)
		b.Add(&r)
		if raw.Offset%2 == 0 {
			rows = append(rows, &r)
		}
	}
	in := intent.Of(b, l.id, 1)
	require.NoError(t, s.store.Rows(t.Context(), "some", topic.Origin{TopicID: l.id}, rows))
	l.committed, l.metadata = 0, in.Metadata()
	l.cut(7, 1)
	stop := s.owning(l)
	defer stop()
	s.reaches(10 + 7)
	require.EqualValues(t, 10+3, s.scalar("SELECT count() FROM event_log"), "those of before, and the three odd ones of offsets 0 to 6")
	l.put(2, 100, 5)
	s.reaches(10 + 7 + 5)
	require.EqualValues(t, 10+3+5, s.scalar("SELECT count() FROM event_log"))
}

// The head of the log is deleted while a batch is written and not journaled: what
// became a row is not lost.
func TestLostIsOnlyWhatIsNoRow(t *testing.T) {
	s := newStack(t)
	l := newMemoryLog()
	l.put(1, 0, 10)
	stop := s.owning(l)
	s.reaches(10)
	stop()
	l.put(1, 10, 10)
	var rows []*batch.Record // an INSERT of five that no one journaled
	d := batch.NewDecoder(1)
	for _, raw := range l.records[10:15] {
		r := d.Decode(raw)
		rows = append(rows, &r)
	}
	require.NoError(t, s.store.Rows(t.Context(), "x", topic.Origin{TopicID: l.id}, rows))
	l.start, l.records = 18, l.records[18:]
	stop = s.owning(l)
	defer stop()
	s.reaches(20)
	require.EqualValues(t, 3, s.scalar("SELECT lost FROM balance"))
	require.EqualValues(t, 17, s.scalar("SELECT rows FROM balance"))
}

// What a newer version left open is not for this one to finish.
func TestANewerVersionsIntentHalts(t *testing.T) {
	s := newStack(t)
	l := newMemoryLog()
	l.put(1, 0, 10)
	l.committed, l.metadata = 0, `sluice/2 {"what":"ever"}`
	stop := s.owning(l)
	time.Sleep(300 * time.Millisecond)
	stop()
	require.Zero(t, s.scalar("SELECT count() FROM event_log"))
	_, ours, err := intent.Parse(l.metadata)
	require.ErrorIs(t, err, intent.ErrNewer)
	require.False(t, ours)
}

// A row that ClickHouse refuses becomes a dead letter, and nothing else does:
// not the rows beside it, and not a later record of its key that is good.
func TestRefusedRows(t *testing.T) {
	s := newStack(t)
	s.exec("ALTER TABLE event_log ADD CONSTRAINT not_bad CHECK payload_text NOT LIKE '%bad%'")
	l := newMemoryLog()
	l.put(1, 0, 9)
	for _, i := range []int{2, 7} {
		l.records[i].Value = record(i, `{"bad":1}`).Value
	}
	good := record(2, `{"good":1}`)
	l.records[8].Key, l.records[8].Value = good.Key, good.Value // in the same batch as the bad one of its key
	stop := s.owning(l)
	defer stop()
	s.reaches(9)
	require.EqualValues(t, 7, s.scalar("SELECT count() FROM event_log"))
	require.EqualValues(t, 2, s.scalar("SELECT dead_lettered FROM balance"))
	require.EqualValues(t, 1, s.scalar("SELECT count() FROM event_log WHERE offset = 8"))
	require.Len(t, l.dead, 2)

	// A table that refuses everything is at fault itself.
	s.exec("ALTER TABLE event_log ADD CONSTRAINT nothing CHECK source = 'none'")
	s.cfg.Batch.Rows = 1000
	l.put(1, 100, 10)
	s.reaches(19)
	require.EqualValues(t, 12, s.scalar("SELECT dead_lettered FROM balance"), "ten are fewer than what counts as the table's fault")
}

// Partitions are added while events and repeats of them come in: each event is
// one row all the same.
func TestPartitionsAreAdded(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	defer s.consuming()()
	for i := range 300 {
		s.produce(record(i, `{}`))
	}
	moved := 0
	for i := range 300 {
		if event.Partition(record(i, `{}`).Key, 3) != event.Partition(record(i, `{}`).Key, 7) {
			moved++
		}
	}
	require.Positive(t, moved)
	_, err := kadm.NewClient(s.producer).CreatePartitions(t.Context(), 4, s.cfg.Kafka.Topic)
	require.NoError(t, err)
	for i := range 300 { // by the old count at first: the producer's metadata are old
		s.produce(record(i+150, `{}`))
	}
	s.producer.ForceMetadataRefresh()
	for i := range 450 {
		s.produce(record(i, `{}`))
	}
	require.Eventually(t, func() bool {
		return s.scalar("SELECT count() FROM event_log") == 450 && s.scalar("SELECT count() FROM (SELECT partition FROM journal WHERE entry = 'barrier' AND offset = 7)") == 7
	}, 60*time.Second, 500*time.Millisecond)
	r := s.verified()
	require.True(t, r.OK, "%+v", r)
	require.EqualValues(t, 450, s.scalar("SELECT count() FROM event_log"))
	require.Zero(t, s.scalar("SELECT toUInt64(sum(abs(difference)) + sum(repeats)) FROM balance"))
}

// Each group protocol brings every event over, with members that come and go.
func TestGroupProtocols(t *testing.T) {
	t.Parallel()
	for _, protocol := range []group.Protocol{group.Classic, group.Eager, group.Broker, group.Auto} {
		t.Run(string(protocol), func(t *testing.T) {
			s := newStack(t)
			s.cfg.Group.Protocol = protocol
			s.cfg.Batch.Rows = 20
			first := s.consuming()
			for i := range 200 {
				s.produce(record(i, `{}`))
			}
			second := s.consuming()
			for i := range 200 {
				s.produce(record(i+100, `{}`))
			}
			first()
			for i := range 200 {
				s.produce(record(i+200, `{}`))
			}
			r := s.verified()
			second()
			require.Equal(t, report{OK: true, Records: 600, Rows: 400, Duplicates: 200, RollupsEqual: true}, r)
			require.EqualValues(t, 400, s.scalar("SELECT count() FROM event_log"))
		})
	}
}

// The topic is deleted and made again under the running consumer: it goes on with
// the new one, whose repeats of old events are repeats.
func TestATopicMadeAgainWhileRunning(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	defer s.consuming()()
	for i := range 50 {
		s.produce(record(i, `{}`))
	}
	require.Eventually(t, func() bool { return s.scalar("SELECT count() FROM event_log") == 50 }, 20*time.Second, 10*time.Millisecond)
	admin := kadm.NewClient(s.producer)
	_, err := admin.DeleteTopic(t.Context(), s.cfg.Kafka.Topic)
	require.NoError(t, err)
	require.NoError(t, ensureTopics(t.Context(), admin, s.cfg, io.Discard))
	again, err := kgo.NewClient(kgo.SeedBrokers(s.cfg.Kafka.Brokers...), kgo.DefaultProduceTopic(s.cfg.Kafka.Topic))
	require.NoError(t, err)
	defer again.Close()
	for i := range 60 {
		require.NoError(t, again.ProduceSync(t.Context(), record(i, `{}`)).FirstErr())
	}
	require.Eventually(t, func() bool { return s.scalar("SELECT toUInt64(sum(records)) FROM balance") == 110 }, 60*time.Second, 50*time.Millisecond)
	require.EqualValues(t, 60, s.scalar("SELECT count() FROM event_log"))
	require.EqualValues(t, 50, s.scalar("SELECT toUInt64(sum(duplicates)) FROM balance"))
}

// A log that ends in markers is caught up all the same, and the journal says so.
func TestALogThatEndsInMarkers(t *testing.T) {
	s := newStack(t)
	defer s.consuming()()
	transactional, err := kgo.NewClient(kgo.SeedBrokers(s.cfg.Kafka.Brokers...), kgo.TransactionalID("other"), kgo.DefaultProduceTopic(s.cfg.Kafka.Topic))
	require.NoError(t, err)
	defer transactional.Close()
	for n := range 3 {
		require.NoError(t, transactional.BeginTransaction())
		for i := range 20 {
			require.NoError(t, transactional.ProduceSync(t.Context(), record(n*100+i, `{}`)).FirstErr())
		}
		require.NoError(t, transactional.EndTransaction(t.Context(), kgo.TransactionEndTry(n != 1)))
	}
	ended := func() bool {
		for p := range s.cfg.Topics.Partitions {
			k := s.log0()
			id, _, err := k.Topic(t.Context())
			require.NoError(t, err)
			_, end, err := k.Bounds(t.Context(), p)
			require.NoError(t, err)
			k.Close()
			seen, err := s.store.Seen(t.Context(), topic.Origin{TopicID: id, Partition: p})
			require.NoError(t, err)
			if max(seen.End, 0) < end {
				return false
			}
		}
		return true
	}
	require.Eventually(t, ended, 20*time.Second, 50*time.Millisecond)
	r := s.verified()
	require.Equal(t, report{OK: true, Records: 40, Rows: 40, RollupsEqual: true}, r)
	s.balanced(r)
}
