package main

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/kafka"
	"sluice/schemas/event"
	"sluice/schemas/topic"
)

const benchRecords = 100_000

// BenchmarkLogToRow is the consumer, log to row with decoding, dedup, intents
// and journal, beside its floor in the same run: fetching the same records and
// inserting the same columns with nothing decided. One iteration is 100,000
// records of one partition, 5 % of them repeats.
func BenchmarkLogToRow(b *testing.B) {
	s := newStack(b)
	var records []*kgo.Record
	for i := range benchRecords {
		n := i
		if i%20 == 19 {
			n = i - 10
		}
		at := time.Now().UTC().Add(-time.Hour).Truncate(time.Hour).Add(time.Duration(n) * time.Millisecond)
		e := event.Event{Source: "bench", EventType: "page_view", ActorID: fmt.Sprint("actor-", n%1000), OccurredAt: at,
			Payload: fmt.Appendf(nil, `{"commit":"74d22d288960","parents":%d,"committed_at":"2012-03-01T13:09:25+00:00","subject_chars":18,"subject_words":2}`, n)}
		records = append(records, &kgo.Record{Key: e.AppendKey(nil), Value: e.AppendJSON(nil), Topic: s.cfg.Kafka.Topic})
	}
	manual, err := kgo.NewClient(kgo.SeedBrokers(s.cfg.Kafka.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(b, err)
	defer manual.Close()
	id, err := s.topicID()
	require.NoError(b, err)

	b.Run("floor", func(b *testing.B) {
		k, err := kafka.New(s.cfg.Kafka.Options(s.log), kafka.Names{Topic: s.cfg.Kafka.Topic, DeadLetters: s.cfg.Kafka.DeadLetters, Group: s.cfg.Group.ID})
		require.NoError(b, err)
		defer k.Close()
		for b.Loop() {
			b.StopTimer()
			s.exec("TRUNCATE TABLE event_log")
			from := s.fill(manual, records)
			b.StartTimer()
			require.NoError(b, fetchAndInsert(b.Context(), s, k, id, from))
		}
		b.ReportMetric(float64(benchRecords)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
	})
	b.Run("consumer", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			s.exec("TRUNCATE TABLE event_log")
			s.exec("TRUNCATE TABLE journal")
			s.fill(manual, records)
			_, end, err := s.bounds()
			require.NoError(b, err)
			// Journaled up to the new records, so that only they are read.
			require.NoError(b, s.journalTo(id, end-benchRecords))
			stop := s.consuming() // returns when it owns the partition: joining a group is not what is measured
			b.StartTimer()
			for {
				seen, err := s.store.Seen(b.Context(), topic.Origin{TopicID: id})
				require.NoError(b, err)
				if seen.End >= end {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			b.StopTimer()
			stop()
			b.StartTimer()
		}
		b.ReportMetric(float64(benchRecords)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
	})
}

// fetchAndInsert is the floor: the records are fetched in the same way and the
// same columns written in blocks of the same size, made of one decoded event.
func fetchAndInsert(ctx context.Context, s *stack, k *kafka.Log, id uuid.UUID, from int64) error {
	reader, err := k.Open(0, from)
	if err != nil {
		return err
	}
	defer reader.Close()
	var rows []*batch.Record
	var like *batch.Record
	read := 0
	for read < benchRecords {
		raws, err := reader.Next(ctx)
		if err != nil {
			return err
		}
		for _, raw := range raws {
			if like == nil {
				r := batch.NewDecoder(1).Decode(raw)
				like = &r
			}
			r := *like
			r.Raw = raw
			rows = append(rows, &r)
		}
		read += len(raws)
		if len(rows) >= s.cfg.Batch.Rows || read >= benchRecords {
			if err := s.store.Rows(ctx, uuid.NewString(), topic.Origin{TopicID: id}, rows); err != nil {
				return err
			}
			rows = rows[:0]
		}
	}
	return nil
}
