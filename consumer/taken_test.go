package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/index"
	"sluice/consumer/internal/intent"
	"sluice/consumer/internal/kafka"
	"sluice/consumer/internal/partition"
	"sluice/consumer/internal/tombstone"
	"sluice/schemas/topic"
)

// An owner that stood still for seconds while it read a range again had decided by
// what was erased before. Its INSERT came after the erasure's DELETE, and the actor's
// rows were back: whether it stood still before its intent, which the erasure could
// not see then, or after it.
func TestWhatIsErasedWhileAnOwnerStandsStillStaysGone(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	defer cluster.Close()
	s := newStackOn(t, cluster.ListenAddrs(), func(c *config) { c.Topics.Partitions = 1 })
	points := []partition.Point{partition.PointIntend, partition.PointIntended, partition.PointInsert, partition.PointInserted}
	old := time.Now().Add(-time.Hour)
	for i := range points {
		for n := range 3 {
			s.produce(recordOf("s", fmt.Sprint("actor-", i), old.Add(time.Duration(n)*time.Second), `{}`))
		}
	}
	still := make(chan partition.Point, 1) // where it is to stand still
	erased := make(chan error, 1)
	round := 0
	at := func(p partition.Point) error {
		select {
		case want := <-still:
			if want != p {
				still <- want
				break
			}
			actor := fmt.Sprint("actor-", round)
			go func() { erased <- s.command(&strings.Builder{}, "erase", "--actor", actor, "--yes") }()
			for written := uint64(0); written <= uint64(round); time.Sleep(10 * time.Millisecond) {
				if err := s.store.Conn().QueryRow(t.Context(), "SELECT count() FROM tombstones").Scan(&written); err != nil {
					return err
				}
			}
			time.Sleep(tombstone.MaxAge + 3*time.Second) // all would know of it by now, and the erasure has gone on
		default:
		}
		return nil
	}
	k := s.log0()
	defer k.Close()
	admin := kadm.NewClient(s.producer)
	gone := tombstone.NewCache(s.store.Conn())
	owner := partition.New(partition.Config{
		Topic: s.cfg.Kafka.Topic, Limits: s.cfg.Batch, CloseAfter: 5 * time.Millisecond, IntentFresh: time.Minute,
		Index: index.NewBudget(8<<20, 1), IndexLive: time.Hour, At: at,
		Gone: func(ctx context.Context) (partition.Gone, error) { return gone.Get(ctx) },
	}, kafka.Owned{Log: k, CommitFunc: func(ctx context.Context, offset int64, metadata string) error {
		var o kadm.Offsets
		o.Add(kadm.Offset{Topic: s.cfg.Kafka.Topic, At: offset, LeaderEpoch: -1, Metadata: metadata})
		return admin.CommitAllOffsets(ctx, s.cfg.Group.ID, o)
	}}, s.store, unregistered(), s.log)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { defer close(done); owner.Run(t.Context(), stop) }()
	defer func() { close(stop); <-done }()
	rows := uint64(3 * len(points))
	require.Eventually(t, func() bool {
		return s.scalar("SELECT count() FROM event_log") == rows && s.total("records") == int(rows)
	}, time.Minute, 10*time.Millisecond)

	for i, p := range points {
		round = i
		s.exec("ALTER TABLE event_log DELETE WHERE 1 SETTINGS mutations_sync = 2")
		still <- p
		over := make(chan error, 1)
		require.NoError(t, owner.Request(t.Context(), partition.Reread{To: int64(rows), Report: func(p partition.Progress) {
			if p.Done {
				over <- p.Err
			}
		}}))
		require.NoError(t, <-over)
		require.NoError(t, <-erased, p)
		require.Zero(t, s.scalar(fmt.Sprintf("SELECT count() FROM event_log WHERE actor_id = 'actor-%d'", i)), "it stood still at %q", p)
		require.EqualValues(t, rows-uint64(3*(i+1)), s.scalar("SELECT count() FROM event_log"), "the others' are back")
		require.Zero(t, s.wrong(), s.sheet())
		require.Equal(t, 3*(i+1), s.total("erased"))
	}
}

// What protocol.md says of a late INSERT that is stored though all it holds was taken: the
// sheet shows it, and the same command run again takes it and leaves the sheet right.
func TestALateInsertOfWhatWasTakenIsTakenAgain(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	defer s.consuming()()
	for i := range 6 {
		s.produce(recordOf("s", []string{"a", "b"}[i%2], time.Now().Add(-time.Duration(i+1)*time.Minute), `{}`))
	}
	s.caughtUp()
	s.exec("CREATE TABLE late AS event_log")
	s.exec("INSERT INTO late (" + rowColumns + ") SELECT " + rowColumns + " FROM event_log WHERE actor_id = 'a'")
	again := []string{"erase", "--actor", "a", "--yes"}
	require.NoError(t, s.command(&strings.Builder{}, again...))
	s.exec("INSERT INTO event_log (" + rowColumns + ") SELECT " + rowColumns + " FROM late")
	require.Equal(t, 3, s.total("twice"))
	require.NoError(t, s.command(&strings.Builder{}, again...))
	require.Zero(t, s.wrong(), s.sheet())
	require.EqualValues(t, 3, s.scalar("SELECT count() FROM event_log"))
	require.Equal(t, 3, s.total("erased"))

	again = []string{"retention", "--before", "2025-05-01T00:00:00Z", "--yes"}
	require.NoError(t, s.command(&strings.Builder{}, again...))
	for i := range 3 {
		s.produce(recordOf("s", "c", time.Date(2025, 3, 5, 0, 0, i, 0, time.UTC), `{}`))
	}
	s.caughtUp()
	require.Equal(t, 3, s.total("expired"))
	s.exec("INSERT INTO event_log (" + rowColumns + `) SELECT generateUUIDv4(), '', 's', 't', toString(partition), toDateTime64('2025-03-05 00:00:00', 9, 'UTC') + offset, '{}', toFixedString('', 16), now64(3),
		topic_id, partition, offset, record_timestamp FROM journal FINAL WHERE entry = 'fate' AND fate = 'expired'`)
	require.Equal(t, 3, s.total("twice"))
	require.NoError(t, s.command(&strings.Builder{}, again...))
	require.Zero(t, s.wrong(), s.sheet())
	require.EqualValues(t, 3, s.scalar("SELECT count() FROM event_log"))
	require.Equal(t, 3, s.total("expired"))
}

// A member was frozen with its INSERT unsent, and another finished the batch: it knew
// that all of it was erased, or had expired, so it wrote nothing, and nothing sealed the
// token. The INSERT was stored when the first member woke, after the erasure was over.
func TestALateInsertOfWhatWasTakenIsDropped(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		at   time.Time
		args []string
	}{
		"erased":  {time.Now().Add(-time.Hour), []string{"erase", "--actor", "a", "--yes"}},
		"expired": {time.Date(2025, 3, 5, 0, 0, 0, 0, time.UTC), []string{"retention", "--before", "2025-05-01T00:00:00Z", "--yes"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
			require.NoError(t, err)
			defer cluster.Close()
			s := newStackOn(t, cluster.ListenAddrs(), func(c *config) { c.Topics.Partitions = 1 })
			for i := range 3 {
				s.produce(recordOf("s", "a", c.at.Add(time.Duration(i)*time.Second), `{}`))
			}
			id, err := s.topicID()
			require.NoError(t, err)
			k := s.log0()
			defer k.Close()
			reader, err := k.Open(0, 0)
			require.NoError(t, err)
			b, decoder := batch.New(0), batch.NewDecoder(1)
			for reader.Position() < 3 {
				raws, err := reader.Next(t.Context())
				require.NoError(t, err)
				for _, raw := range raws {
					r := decoder.Decode(raw)
					b.Add(&r)
				}
			}
			reader.Close()
			in := intent.Of(b, id, 1)
			var o kadm.Offsets
			o.Add(kadm.Offset{Topic: s.cfg.Kafka.Topic, At: 0, LeaderEpoch: -1, Metadata: in.Metadata()})
			require.NoError(t, kadm.NewClient(s.producer).CommitAllOffsets(t.Context(), s.cfg.Group.ID, o))

			over := make(chan error, 1)
			go func() { over <- s.command(&strings.Builder{}, c.args...) }()
			require.Eventually(t, func() bool { return s.scalar("SELECT count() FROM tombstones") == 1 }, time.Minute, 10*time.Millisecond)
			defer s.consuming()()
			require.NoError(t, <-over)
			require.Zero(t, s.scalar("SELECT count() FROM event_log"))
			require.Equal(t, 3, s.total(name))
			var rows []*batch.Record
			rows = append(rows, b.Records...)
			require.NoError(t, s.store.Rows(t.Context(), intent.Token(id, 0, 0, in.Last, in.Hash), topic.Origin{TopicID: id}, rows))
			require.Zero(t, s.scalar("SELECT count() FROM event_log"), "the late INSERT was stored")
			require.Zero(t, s.wrong(), s.sheet())
			require.Equal(t, 3, s.total(name))
		})
	}
}
