package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/schemas/event"
	"sluice/schemas/topic"
)

// Records that the consumer wrote again, since they lay in a wrong partition or had
// been dead letters, had the timestamps of what they came from. A log is kept by its
// records' timestamps: a letter of last month, put through into a quiet partition,
// was old enough to be deleted before anybody had read it.
func TestWhatIsWrittenAgainIsNotOld(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	defer s.consuming()()
	old := time.Now().Add(-40 * 24 * time.Hour).Truncate(time.Millisecond).UTC()
	began := time.Now().Truncate(time.Millisecond)

	misplaced := recordOf("s", "misplaced", old, `{}`)
	misplaced.Topic, misplaced.Timestamp = s.cfg.Kafka.Topic, old
	home := event.Partition(misplaced.Key, s.cfg.Topics.Partitions)
	misplaced.Partition = (home + 1) % s.cfg.Topics.Partitions
	manual, err := kgo.NewClient(kgo.SeedBrokers(s.cfg.Kafka.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(t, err)
	defer manual.Close()
	require.NoError(t, manual.ProduceSync(t.Context(), misplaced).FirstErr())
	s.caughtUp()

	letter := recordOf("s", "letter", old, `{}`)
	letter.Topic = s.cfg.Kafka.DeadLetters
	for key, value := range map[string]string{
		topic.DeadReason: topic.ReasonRefused, topic.DeadTopicID: uuid.NewString(), topic.DeadPartition: "0", topic.DeadOffset: "7",
		topic.DeadTime: old.Format(topic.TimeFormat),
	} {
		letter.Headers = append(letter.Headers, kgo.RecordHeader{Key: key, Value: []byte(value)})
	}
	require.NoError(t, s.producer.ProduceSync(t.Context(), letter).FirstErr())
	_, said, status := s.says("dlq", "redrive", "--yes")
	require.Zero(t, status, said)
	s.caughtUp()

	for _, actor := range []string{"misplaced", "letter"} {
		var received, stamped time.Time
		var partition int32
		var offset int64
		require.NoError(t, s.store.Conn().QueryRow(t.Context(),
			"SELECT received_at, record_timestamp, partition, offset FROM event_log WHERE actor_id = '"+actor+"'").Scan(&received, &stamped, &partition, &offset), actor)
		require.Equal(t, old, received.UTC(), "%s: it was received when it came first", actor)
		require.False(t, stamped.Before(began), "%s: the log counts it from %s", actor, stamped)
		// What the log itself says, which deletes by it.
		k := s.log0()
		defer k.Close()
		reader, err := k.Open(partition, offset)
		require.NoError(t, err)
		raws, err := reader.Next(t.Context())
		reader.Close()
		require.NoError(t, err)
		require.Equal(t, stamped.UnixMilli(), raws[0].Timestamp.UnixMilli())
		require.Equal(t, old, raws[0].Received())
		require.Contains(t, fmt.Sprint(raws[0].Headers), map[string]string{"misplaced": topic.HeaderForwardedFrom, "letter": topic.HeaderRedrivenFrom}[actor])
	}
	require.Zero(t, s.wrong())
}
