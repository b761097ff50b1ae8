// Package evidence reads what is there: the log from its start, the dead
// letters, and every table and view of ClickHouse, physical rows included.
package evidence

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/deploy/chaos/internal/oracle"
	"sluice/schemas/event"
	"sluice/schemas/topic"
)

// Log reads topics from their starts. It is for one goroutine.
type Log struct {
	opts   []kgo.Opt
	client *kgo.Client
	admin  *kadm.Client
}

// OpenLog returns a Log whose clients have opts. Close it.
func OpenLog(opts ...kgo.Opt) (*Log, error) {
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	return &Log{opts: opts, client: client, admin: kadm.NewClient(client)}, nil
}

// Close closes the clients.
func (l *Log) Close() { l.client.Close() }

// Admin asks and tells the cluster.
func (l *Log) Admin() *kadm.Client { return l.admin }

// Ping is nil when a broker answers.
func (l *Log) Ping(ctx context.Context) error { return l.client.Ping(ctx) }

// Topic tells the id and the partition count of the events' topic.
func (l *Log) Topic(ctx context.Context) (uuid.UUID, int32, error) {
	topics, err := l.admin.ListTopics(ctx, topic.Events)
	if err != nil {
		return uuid.Nil, 0, fmt.Errorf("kafka: %w", err)
	}
	t := topics[topic.Events]
	if t.Err != nil {
		return uuid.Nil, 0, fmt.Errorf("topic %s: %w", topic.Events, t.Err)
	}
	return uuid.UUID(t.ID), int32(len(t.Partitions)), nil
}

// Ends are the offsets past the last committed record, by partition.
func (l *Log) Ends(ctx context.Context, name string) (map[int32]int64, error) {
	listed, err := l.admin.ListCommittedOffsets(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("the ends of %s: %w", name, err)
	}
	out := map[int32]int64{}
	var failed error
	listed.Each(func(o kadm.ListedOffset) {
		if o.Err != nil {
			failed = fmt.Errorf("the end of %s, partition %d: %w", name, o.Partition, o.Err)
		}
		out[o.Partition] = o.Offset
	})
	return out, failed
}

// readBound is how long reading a topic may make no progress.
const readBound = 20 * time.Second

// Read calls each for every committed record of a topic before ends, each
// partition's in order, from offset 0. A log that begins later is an error:
// nothing may have been deleted from it.
func (l *Log) Read(ctx context.Context, name string, ends map[int32]int64, each func(*kgo.Record)) error {
	from, open := map[int32]kgo.Offset{}, 0
	for p, end := range ends {
		if end > 0 {
			from[p] = kgo.NewOffset().At(0)
			open++
		}
	}
	if open == 0 {
		return nil
	}
	client, err := kgo.NewClient(append(l.opts[:len(l.opts):len(l.opts)],
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{name: from}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // they say how far the log was read
	)...)
	if err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	defer client.Close()
	done := map[int32]bool{}
	for len(done) < open {
		ctx, cancel := context.WithTimeout(ctx, readBound)
		fetches := client.PollFetches(ctx)
		cancel()
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("reading %s: %w", name, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset < ends[r.Partition] && !r.Attrs.IsControl() {
				each(r)
			}
			if r.Offset >= ends[r.Partition]-1 {
				done[r.Partition] = true
			}
		})
	}
	return nil
}

// Expect reads the events' topic up to ends into an oracle. values are the
// records' values by place, for whoever was promised a place.
func (l *Log) Expect(ctx context.Context, ends map[int32]int64) (o *oracle.Oracle, values map[oracle.At]event.Hash, err error) {
	id, partitions, err := l.Topic(ctx)
	if err != nil {
		return nil, nil, err
	}
	o, values = oracle.New(id, partitions), map[oracle.At]event.Hash{}
	err = l.Read(ctx, topic.Events, ends, func(r *kgo.Record) {
		values[oracle.At{Partition: r.Partition, Offset: r.Offset}] = oracle.ValueHash(r.Value)
		o.Add(oracle.Record{
			Partition: r.Partition, Offset: r.Offset, Key: r.Key, Value: r.Value,
			ForwardedFrom: header(r, topic.HeaderForwardedFrom),
		})
	})
	return o, values, err
}

// DeadLetters reads the dead letters: their values' hashes by origin.
func (l *Log) DeadLetters(ctx context.Context) (map[string]event.Hash, error) {
	ends, err := l.Ends(ctx, topic.DeadLetters)
	if err != nil {
		return nil, err
	}
	out := map[string]event.Hash{}
	err = l.Read(ctx, topic.DeadLetters, ends, func(r *kgo.Record) {
		out[string(r.Key)] = oracle.ValueHash(r.Value)
	})
	return out, err
}

// header is the last header of a name, "" without one. A forwarded record that
// was forwarded again has several.
func header(r *kgo.Record, name string) string {
	for i := len(r.Headers) - 1; i >= 0; i-- {
		if r.Headers[i].Key == name {
			return string(r.Headers[i].Value)
		}
	}
	return ""
}
