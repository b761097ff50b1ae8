package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/index"
	"sluice/consumer/internal/kafka"
	"sluice/consumer/internal/partition"
	"sluice/consumer/internal/store"
	"sluice/schemas/topic"
)

// crasher counts the outside effects of an owner and ends its process, as far
// as the outside can tell, at one of them: before it is done or just after.
type crasher struct {
	at    int64 // the effect to crash at, counted from 1
	after bool
	n     atomic.Int64
	die   context.CancelFunc
}

var errCrash = errors.New("crashed here")

func (c *crasher) effect(do func() error) error {
	if c.n.Add(1) != c.at {
		return do()
	}
	defer c.die()
	if c.after {
		if err := do(); err != nil {
			return err
		}
	}
	return errCrash
}

type crashLog struct {
	kafka.Owned
	*crasher
}

func (l crashLog) Commit(ctx context.Context, offset int64, metadata string) error {
	return l.effect(func() error { return l.Owned.Commit(ctx, offset, metadata) })
}

func (l crashLog) DeadLetter(ctx context.Context, self topic.Origin, letters []*batch.Record) error {
	return l.effect(func() error { return l.Owned.DeadLetter(ctx, self, letters) })
}

func (l crashLog) Forward(ctx context.Context, self topic.Origin, moved []*batch.Record) error {
	return l.effect(func() error { return l.Owned.Forward(ctx, self, moved) })
}

type crashStore struct {
	*store.Store
	*crasher
}

func (s crashStore) Rows(ctx context.Context, token string, self topic.Origin, rows []*batch.Record) error {
	return s.effect(func() error { return s.Store.Rows(ctx, token, self, rows) })
}

func (s crashStore) Journal(ctx context.Context, token, name string, self topic.Origin, entries []store.Entry) error {
	return s.effect(func() error { return s.Store.Journal(ctx, token, name, self, entries) })
}

// own runs an owner of partition 0, with no group around it, until it crashed
// or has journaled up to end.
func (s *stack) own(k *kafka.Log, c *crasher, end int64) (crashed bool) {
	s.t.Helper()
	ctx, die := context.WithCancel(s.t.Context())
	defer die()
	c.die = die
	admin := kadm.NewClient(s.producer)
	log := crashLog{kafka.Owned{Log: k, CommitFunc: func(ctx context.Context, offset int64, metadata string) error {
		var o kadm.Offsets
		o.Add(kadm.Offset{Topic: s.cfg.Kafka.Topic, At: offset, LeaderEpoch: -1, Metadata: metadata})
		_, err := admin.CommitOffsets(ctx, s.cfg.Group.ID, o)
		return err
	}}, c}
	owner := partition.New(partition.Config{
		Topic: s.cfg.Kafka.Topic, Limits: s.cfg.Batch, CloseAfter: 5 * time.Millisecond,
		IntentFresh: time.Minute, Index: index.NewBudget(8<<20, 1), IndexLive: time.Hour,
	}, log, crashStore{s.store, c}, unregistered(), s.log)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { defer close(done); owner.Run(ctx, stop) }()
	id, _, err := k.Topic(s.t.Context())
	require.NoError(s.t, err)
	require.Eventually(s.t, func() bool {
		if ctx.Err() != nil {
			return true
		}
		seen, err := s.store.Seen(s.t.Context(), topic.Origin{TopicID: id})
		return err == nil && seen.End >= end
	}, 20*time.Second, 5*time.Millisecond)
	if ctx.Err() == nil {
		close(stop)
	}
	<-done
	return ctx.Err() != nil
}

// With the real client and a broker: at every outside effect of the protocol,
// before and after it is done, the owner dies (consumer/internal/crash has every
// failure at every point, on a model of the log); the next one must leave what an owner that never died leaves, and
// have written no row twice.
func TestCrashAtEveryEffect(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.cfg.Batch.Rows = 40
	k, err := kafka.New(s.cfg.Kafka.Options(s.log), kafka.Names{Topic: s.cfg.Kafka.Topic, DeadLetters: s.cfg.Kafka.DeadLetters, Group: s.cfg.Group.ID})
	require.NoError(t, err)
	defer k.Close()
	manual, err := kgo.NewClient(kgo.SeedBrokers(s.cfg.Kafka.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(t, err)
	defer manual.Close()

	var end int64
	points := 0
	for at, crashed := int64(1), true; crashed; at++ {
		for _, after := range []bool{false, true} {
			// Every round brings its own events to partition 0: two batches of rows,
			// repeats, conflicts, garbage, and two thirds whose home is elsewhere.
			base := int(at)*1000 + map[bool]int{false: 0, true: 500}[after]
			var sent []*kgo.Record
			for i := range 60 {
				r := record(base+i%50, fmt.Sprintf(`{"n":%d}`, i/55))
				if i == 20 {
					r = &kgo.Record{Value: []byte("garbage")}
				}
				r.Topic = s.cfg.Kafka.Topic
				sent = append(sent, r)
			}
			require.NoError(t, manual.ProduceSync(t.Context(), sent...).FirstErr())
			end += int64(len(sent))
			c := &crasher{at: at, after: after}
			if crashed = s.own(k, c, end); crashed {
				points++
				require.False(t, s.own(k, &crasher{}, end))
			}
		}
	}
	t.Logf("crashed at %d points", points)
	require.Greater(t, points, 8)

	total := s.scalar("SELECT count() FROM event_log")
	require.Equal(t, total, s.scalar("SELECT uniqExact(event_id) FROM event_log"), "a row is there twice")
	journaled := s.scalar("SELECT count() FROM (SELECT DISTINCT topic_id, partition, offset FROM journal WHERE entry = 'fate')")
	require.EqualValues(t, end, total+journaled, "each record is a row or has a fate")
	require.Zero(t, s.scalar("SELECT count() FROM event_log WHERE (topic_id, partition, offset) IN (SELECT topic_id, partition, offset FROM journal WHERE entry = 'fate')"), "a record is a row and has a fate")
}
