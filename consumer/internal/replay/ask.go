package replay

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Ask requests ranges to be read again and follows their owners' progress until
// all are done. progress is called with each answer. When ctx ends first, the
// requests stay: the owners finish them all the same.
func Ask(ctx context.Context, opts []kgo.Opt, topic string, requests []Request, progress func(Progress)) error {
	client, err := kgo.NewClient(append(opts[:len(opts):len(opts)],
		// From a little before now: no answer of ours can be older.
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AfterMilli(time.Now().Add(-time.Minute).UnixMilli())),
	)...)
	if err != nil {
		return fmt.Errorf("control topic: %w", err)
	}
	defer client.Close()
	open := map[runPartition]bool{}
	var records []*kgo.Record
	for _, r := range requests {
		value, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("request for partition %d: %w", r.Partition, err)
		}
		open[runPartition{r.Run, r.Partition}] = true
		records = append(records, &kgo.Record{Topic: topic, Key: []byte(RequestKey(r.Run, r.Partition)), Value: value})
	}
	if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return fmt.Errorf("asking the owners: %w", err)
	}
	for len(open) > 0 {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fetches.EachRecord(func(r *kgo.Record) {
			m, ok, err := parse(r.Key, r.Value)
			if err != nil || !ok || m.progress == nil || !open[runPartition{m.run, m.partition}] {
				return // another's
			}
			progress(*m.progress)
			if m.progress.Done {
				delete(open, runPartition{m.run, m.partition})
			}
		})
	}
	return forget(ctx, client, topic, requests)
}

// forget deletes requests that are done, so that no later owner reads them.
func forget(ctx context.Context, client *kgo.Client, topic string, requests []Request) error {
	var records []*kgo.Record
	for _, r := range requests {
		records = append(records,
			&kgo.Record{Topic: topic, Key: []byte(RequestKey(r.Run, r.Partition))},
			&kgo.Record{Topic: topic, Key: []byte(ProgressKey(r.Run, r.Partition))})
	}
	if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return fmt.Errorf("clearing the requests, which are done: %w", err)
	}
	return nil
}
