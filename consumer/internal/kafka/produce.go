package kafka

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/consumer/internal/batch"
	"sluice/schemas/topic"
)

// DeadLetter writes letters to the dead-letter topic, value untouched, and
// returns when all are acknowledged.
func (l *Log) DeadLetter(ctx context.Context, self topic.Origin, letters []*batch.Record) error {
	records := make([]*kgo.Record, len(letters))
	for i, r := range letters {
		origin := topic.Origin{TopicID: self.TopicID, Partition: self.Partition, Offset: r.Offset}
		headers := []kgo.RecordHeader{
			{Key: topic.DeadReason, Value: []byte(r.Reason)},
			{Key: topic.DeadDetail, Value: []byte(r.Detail)},
			{Key: topic.DeadTopicID, Value: []byte(self.TopicID.String())},
			{Key: topic.DeadPartition, Value: strconv.AppendInt(nil, int64(self.Partition), 10)},
			{Key: topic.DeadOffset, Value: strconv.AppendInt(nil, r.Offset, 10)},
			{Key: topic.DeadTime, Value: []byte(r.Timestamp.UTC().Format(topic.TimeFormat))},
		}
		if r.Key != nil {
			headers = append(headers, kgo.RecordHeader{Key: topic.DeadKey, Value: r.Key})
		}
		records[i] = &kgo.Record{
			Topic: l.names.DeadLetters, Key: []byte(origin.String()), Value: r.Value,
			Headers: append(headers, headersOf(r.Headers)...),
		}
	}
	return l.produce(ctx, records)
}

// Forward writes records to the partition their keys belong to and returns when all
// are acknowledged.
func (l *Log) Forward(ctx context.Context, self topic.Origin, moved []*batch.Record) error {
	records := make([]*kgo.Record, len(moved))
	for i, r := range moved {
		origin := topic.Origin{TopicID: self.TopicID, Partition: self.Partition, Offset: r.Offset}
		records[i] = l.again(r, topic.HeaderForwardedFrom, origin)
	}
	return l.produce(ctx, records)
}

// Redrive writes records that once became dead letters to the partition their keys
// belong to and returns when all are acknowledged. origins says what each came from.
func (l *Log) Redrive(ctx context.Context, letters []*batch.Record, origins []topic.Origin) error {
	records := make([]*kgo.Record, len(letters))
	for i, r := range letters {
		records[i] = l.again(r, topic.HeaderRedrivenFrom, origins[i])
	}
	return l.produce(ctx, records)
}

// again is a record to be written to the topic once more, its value untouched. Its
// timestamp is that of now: by an old one the log would count it as old, and could
// delete it before it is read. When it was received stands in a header.
func (l *Log) again(r *batch.Record, from string, origin topic.Origin) *kgo.Record {
	headers := slices.DeleteFunc(headersOf(r.Headers), func(h kgo.RecordHeader) bool { return h.Key == topic.HeaderReceivedAt })
	return &kgo.Record{
		Topic: l.names.Topic, Partition: r.Home, Key: r.Event.AppendKey(nil), Value: r.Value,
		Headers: append(headers,
			kgo.RecordHeader{Key: from, Value: []byte(origin.String())},
			kgo.RecordHeader{Key: topic.HeaderReceivedAt, Value: []byte(r.Received().UTC().Format(topic.TimeFormat))}),
	}
}

// produce returns when all records are acknowledged, one has failed, or the bound
// is over: one topic that takes nothing must show, and not hold up others.
func (l *Log) produce(ctx context.Context, records []*kgo.Record) error {
	answers := make(chan error, len(records))
	for _, r := range records {
		l.producer.TryProduce(ctx, r, func(_ *kgo.Record, err error) { answers <- err })
	}
	bound := time.NewTimer(ackBound)
	defer bound.Stop()
	for range records {
		select {
		case err := <-answers:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		case <-bound.C:
			return fmt.Errorf("the topic %s has not acknowledged within %s", records[0].Topic, ackBound)
		}
	}
	return nil
}

func headersOf(in []batch.Header) []kgo.RecordHeader {
	out := make([]kgo.RecordHeader, 0, len(in)+2)
	for _, h := range in {
		out = append(out, kgo.RecordHeader(h))
	}
	return out
}
