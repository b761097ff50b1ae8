package main

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/index"
	"sluice/consumer/internal/intent"
	"sluice/consumer/internal/monitor"
	"sluice/consumer/internal/partition"
	"sluice/schemas/topic"
)

// Histories that once lost a record, stored one twice, or stood still and said
// nothing.

// marked is a memoryLog in which records with the header "control" are markers,
// and which refuses to be read from before its start.
type marked struct {
	*memoryLog
	forwarded []int64
}

func (l *marked) marker(e int32, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for range n {
		l.records = append(l.records, batch.Raw{Offset: l.start + int64(len(l.records)), Epoch: e, Headers: []batch.Header{{Key: "control"}}})
	}
}

func (l *marked) Open(from int64) (partition.Reader, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if from < l.start {
		return nil, errors.New("OFFSET_OUT_OF_RANGE")
	}
	return &markedReader{&memoryReader{log: l.memoryLog, position: from}}, nil
}

func (l *marked) Forward(_ context.Context, _ topic.Origin, rs []*batch.Record) error {
	for _, r := range rs {
		l.forwarded = append(l.forwarded, r.Offset)
	}
	return nil
}

type markedReader struct{ *memoryReader }

func (r *markedReader) Next(ctx context.Context) ([]batch.Raw, error) {
	raws, err := r.memoryReader.Next(ctx)
	var out []batch.Raw
	for _, raw := range raws {
		if len(raw.Headers) == 0 {
			out = append(out, raw)
		}
	}
	return out, err
}

// begun is the intent and the block of records first..last as an owner that
// decides by n partitions would write them.
func (l *marked) begun(first, last int64, n int32) (in intent.Intent, token string, rows []*batch.Record) {
	d := batch.NewDecoder(n)
	b := batch.New(first)
	for _, raw := range l.records[first-l.start : last+1-l.start] {
		r := d.Decode(raw)
		b.Add(&r)
	}
	rows = append(rows, b.Records...)
	in = intent.Of(b, l.id, n)
	return in, intent.Token(l.id, 0, first, last, in.Hash), rows
}

func (s *stack) watched(l partition.Log, mon *monitor.Monitor, adjust ...func(*partition.Config)) (stop func()) {
	halt, done := make(chan struct{}), make(chan struct{})
	cfg := partition.Config{
		Topic: s.cfg.Kafka.Topic, Limits: batch.Limits{Rows: 10, Bytes: 1 << 20, Age: 5 * time.Millisecond, TablePartitions: 60},
		CloseAfter: 5 * time.Millisecond, IntentFresh: time.Minute, Index: index.NewBudget(8<<20, 1), IndexLive: time.Hour,
	}
	for _, f := range adjust {
		f(&cfg)
	}
	mon.Joined()
	mon.Assigned(0)
	owner := partition.New(cfg, l, s.store, mon, s.log)
	ctx, cancel := context.WithCancel(s.t.Context())
	go func() { defer close(done); owner.Run(ctx, halt) }()
	return func() {
		close(halt)
		select {
		case <-done:
		case <-time.After(2 * time.Second):
			cancel()
			<-done
		}
		cancel()
	}
}

// Cut and filled again under a reader that has consumed nothing since it was opened.
func TestHistoryCutUnderAnIdleReader(t *testing.T) {
	s := newStack(t)
	l := newMemoryLog()
	l.put(1, 0, 50)
	stop := s.owning(l)
	s.reaches(50)
	stop()
	stop = s.owning(l) // caught up: its reader stands at 50 and has read nothing
	time.Sleep(time.Second)
	l.mu.Lock() // truncated to 30, forty others come before the next fetch
	l.records = l.records[:30]
	l.epochs[1] = 30
	l.mu.Unlock()
	func() {
		other := newMemoryLog()
		other.start, other.id = 30, l.id
		other.put(2, 100, 40)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.records = append(l.records, other.records...)
	}()
	time.Sleep(2 * time.Second)
	stop()
	stop = s.owning(l) // and a new owner does not see it either
	require.Eventually(t, func() bool { return s.scalar("SELECT count() FROM event_log") == 90 }, 60*time.Second, 50*time.Millisecond)
	stop()
	require.EqualValues(t, 90, s.scalar("SELECT count() FROM event_log"))
}

// Cut twice, the second time before anything was journaled under the derived id.
func TestHistoryCutTwice(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	l := newMemoryLog()
	l.put(1, 0, 50)
	stop := s.owning(l)
	s.reaches(50)
	stop()
	l.cut(30, 1)
	stop = s.owning(l)
	require.Eventually(t, func() bool { return s.scalar("SELECT count() FROM journal WHERE entry = 'cut'") == 1 }, 20*time.Second, 10*time.Millisecond)
	time.Sleep(200 * time.Millisecond)
	stop()
	l.cut(20, 1)
	l.put(3, 100, 15) // 20 to 34
	stop = s.owning(l)
	require.Eventually(t, func() bool { return s.scalar("SELECT count() FROM event_log") == 65 }, 60*time.Second, 50*time.Millisecond)
	stop()
	require.EqualValues(t, 65, s.scalar("SELECT count() FROM event_log"))
}

// Batch.rows was made less between the death of an owner and the next one.
func TestHistoryAnOpenIntentIsWholeWhateverTheLimits(t *testing.T) {
	s := newStack(t)
	l := &marked{memoryLog: newMemoryLog()}
	l.put(1, 0, 20)
	in, token, rows := l.begun(0, 19, 1)
	l.committed, l.metadata = 0, in.Metadata()
	stop := s.owning(l) // its limit is 10 records
	s.reaches(20)
	stop()
	require.NoError(t, s.store.Rows(t.Context(), token, topic.Origin{TopicID: l.id}, rows)) // the frozen member's
	require.EqualValues(t, 20, s.scalar("SELECT count() FROM event_log"))
}

// Retention deletes the head of a batch that a frozen member has begun.
func TestHistoryTheHeadOfAnOpenIntentIsDeleted(t *testing.T) {
	s := newStack(t)
	l := &marked{memoryLog: newMemoryLog()}
	l.put(1, 0, 10)
	in, token, rows := l.begun(0, 9, 1)
	l.committed, l.metadata = 0, in.Metadata()
	l.start, l.records = 5, l.records[5:]
	stop := s.owning(l)
	s.reaches(10)
	stop()
	require.NoError(t, s.store.Rows(t.Context(), token, topic.Origin{TopicID: l.id}, rows)) // the frozen member's
	require.Zero(t, s.scalar("SELECT toUInt64(sum(repeats) + sum(twice)) FROM balance"))
}

// Other records stand where a batch was begun, and a marker where it ended.
func TestHistoryOtherRecordsThanBegunAndAMarkerAtTheEnd(t *testing.T) {
	s := newStack(t)
	l := &marked{memoryLog: newMemoryLog()}
	l.put(1, 0, 10)
	in, token, rows := l.begun(0, 9, 1)
	l.committed, l.metadata = 0, in.Metadata()
	require.NoError(t, s.store.Rows(t.Context(), token, topic.Origin{TopicID: l.id}, rows)) // then it died
	l.cut(5, 1)
	l.put(2, 100, 4) // 5 to 8
	l.marker(2, 1)
	l.put(2, 200, 5)
	mon := unregistered()
	stop := s.watched(l, mon)
	require.Eventually(t, func() bool { return s.scalar("SELECT count() FROM event_log") == 19 }, 60*time.Second, 50*time.Millisecond)
	stop()
	require.Zero(t, s.scalar("SELECT toUInt64(sum(repeats)) FROM balance"))
	require.EqualValues(t, 1, s.scalar("SELECT max(n) FROM (SELECT count() n FROM event_log GROUP BY topic_id, partition, offset)"))
}

// An operator sets the offset back over a cut, and the owner dies while it reads again.
func TestHistorySetBackOverACut(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	l := newMemoryLog()
	l.put(1, 0, 50)
	stop := s.owning(l)
	s.reaches(50)
	stop()
	l.cut(30, 1)
	l.put(2, 100, 20) // 30 to 49
	stop = s.owning(l)
	s.reaches(70)
	stop()
	s.exec("DELETE FROM event_log WHERE offset IN (3) AND topic_id = '" + l.id.String() + "'")
	s.exec("DELETE FROM event_log WHERE offset IN (40) AND topic_id != '" + l.id.String() + "'")
	l.committed, l.metadata = 0, ""
	died := false
	stop = s.watched(l, unregistered(), func(c *partition.Config) {
		c.At = func(p partition.Point) error {
			if p == partition.PointIntended && !died {
				died = true
				return errors.New("died")
			}
			return nil
		}
	})
	require.Eventually(t, func() bool { return s.scalar("SELECT count() FROM event_log") == 70 }, 60*time.Second, 50*time.Millisecond)
	stop()
	require.True(t, died)
	require.EqualValues(t, 70, s.scalar("SELECT count() FROM event_log"))
}

// After a cut, before anything is journaled of the new log, retention deletes its head.
func TestHistoryLostAfterACut(t *testing.T) {
	s := newStack(t)
	l := newMemoryLog()
	l.put(1, 0, 50)
	stop := s.owning(l)
	s.reaches(50)
	stop()
	l.cut(30, 1)
	stop = s.owning(l)
	require.Eventually(t, func() bool { return s.scalar("SELECT count() FROM journal WHERE entry = 'cut'") == 1 }, 20*time.Second, 10*time.Millisecond)
	time.Sleep(200 * time.Millisecond)
	stop()
	l.put(2, 100, 20) // 30 to 49, of which ten are deleted before anybody reads them
	l.start, l.records = 40, l.records[40:]
	stop = s.owning(l)
	require.Eventually(t, func() bool { return s.scalar("SELECT toUInt64(sum(lost)) FROM balance") == 10 }, 60*time.Second, 50*time.Millisecond)
	stop()
	require.EqualValues(t, 10, s.scalar("SELECT toUInt64(sum(lost)) FROM balance"))
}

// stale answers once as a deposed leader does that does not know it yet: its log
// ends earlier, and it has never heard of the newest epoch.
type stale struct {
	*memoryLog
	asked int
}

func (l *stale) Where(ctx context.Context) (partition.Where, error) {
	w, err := l.memoryLog.Where(ctx)
	if l.asked++; l.asked == 1 {
		w.End = 40
	}
	return w, err
}

func (l *stale) EpochEnd(ctx context.Context, e int32) (int64, bool, error) {
	if l.asked == 1 && e == 5 {
		return -1, false, nil // UNDEFINED_EPOCH
	}
	return l.memoryLog.EpochEnd(ctx, e)
}

// Nothing was cut.
func TestHistoryADeposedLeaderIsNoCut(t *testing.T) {
	s := newStack(t)
	l := newMemoryLog()
	l.put(4, 0, 40)
	l.epochs[4] = 40
	l.put(5, 40, 10)
	stop := s.owning(l)
	s.reaches(50)
	stop()
	stop = s.owning(&stale{memoryLog: l})
	time.Sleep(2 * time.Second)
	stop()
	require.Zero(t, s.scalar("SELECT count() FROM journal WHERE entry = 'cut'"))
}

// The journal has a gap before the last batch, whose intent is not closed,
// and partitions were added.
func TestHistoryGrownOverAnIsland(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	l := &marked{memoryLog: newMemoryLog()}
	l.put(1, 0, 40)
	stop := s.owning(l)
	s.reaches(40)
	stop()
	in, _, _ := l.begun(30, 39, 1)
	l.committed, l.metadata = 30, in.Metadata() // it died after the journal and before the close
	s.exec("DELETE FROM journal WHERE entry = 'batch' AND offset = 20")
	l.partitions = 2
	mon := unregistered()
	stop = s.watched(l, mon)
	ready := 0
	for range 60 {
		time.Sleep(100 * time.Millisecond)
		if mon.Ready() == nil {
			ready++
		}
	}
	stop()
	require.Zero(t, s.scalar("SELECT toUInt64(sum(gaps)) FROM balance"))
}
