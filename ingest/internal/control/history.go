// Package control reads what stands in the control topic.
package control

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
)

// History calls each for the values that the control topic still holds under key at
// offsets before end, oldest first; a tombstone's is nil. There must be, or have been,
// a record at end: it returns once it has read as far. It reads with a client of its
// own that has opts.
func History(ctx context.Context, topic string, key []byte, end int64, each func(value []byte), opts ...kgo.Opt) error {
	client, err := kgo.NewClient(append(opts[:len(opts):len(opts)], kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{
		topic: {0: kgo.NewOffset().AtStart()},
	}))...)
	if err != nil {
		return fmt.Errorf("reading the control topic %s: %w", topic, err)
	}
	defer client.Close()
	for done := false; !done; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("reading the control topic %s: %w", topic, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			switch {
			case r.Offset >= end:
				done = true
			case string(r.Key) == string(key):
				each(r.Value)
			}
		})
	}
	return nil
}
