// Package kafka is the log as a partition's owner sees it: where it stands,
// its records, and the way to other topics.
package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/partition"
)

// Log is shared by all owners of a process.
type Log struct {
	opts     []kgo.Opt
	producer *kgo.Client
	admin    *kadm.Client
	names    Names
	count    atomic.Int32
}

// countAge is how old the topic's partition count may become.
const countAge = 5 * time.Second

// homeward sends a record of the events' topic where its sender says, so that
// what is forwarded cannot come back by a partition count that is out of date;
// other topics' records by their key.
type homeward struct {
	kgo.Partitioner
	topic string
}

func (h homeward) ForTopic(name string) kgo.TopicPartitioner {
	if name == h.topic {
		return kgo.ManualPartitioner().ForTopic(name)
	}
	return h.Partitioner.ForTopic(name)
}

// Names are the topics and the group.
type Names struct{ Topic, DeadLetters, Group string }

// New returns a Log whose clients have opts. Close it when its owners ended.
func New(opts []kgo.Opt, names Names) (*Log, error) {
	producer, err := kgo.NewClient(append(opts[:len(opts):len(opts)],
		// Idempotent and acks=all are the defaults, and this service's
		// promises rest on both.
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(homeward{kgo.StickyKeyPartitioner(nil), names.Topic}),
		// A partition that was added must be known before records go there.
		kgo.MetadataMaxAge(countAge), kgo.MetadataMinAge(time.Second),
		kgo.ProducerBatchMaxBytes(16<<20), // the topic's own bound decides
		// Full batches of several partitions; what is over fails at once rather
		// than wait behind another partition's.
		kgo.MaxBufferedRecords(500_000),
	)...)
	if err != nil {
		return nil, fmt.Errorf("kafka producer: %w", err)
	}
	return &Log{opts: opts, producer: producer, admin: kadm.NewClient(producer), names: names}, nil
}

// Close closes the clients.
func (l *Log) Close() { l.producer.Close() }

// Admin asks the cluster about itself.
func (l *Log) Admin() *kadm.Client { return l.admin }

// Topic tells the topic's id and partition count.
func (l *Log) Topic(ctx context.Context) (uuid.UUID, int32, error) {
	topics, err := l.admin.ListTopics(ctx, l.names.Topic)
	if err != nil {
		return uuid.Nil, 0, fmt.Errorf("looking up the topic %s: %w", l.names.Topic, err)
	}
	t := topics[l.names.Topic]
	if t.Err != nil {
		return uuid.Nil, 0, fmt.Errorf("topic %s: %w (\"consumer topics ensure\" creates it)", l.names.Topic, t.Err)
	}
	return uuid.UUID(t.ID), int32(len(t.Partitions)), nil
}

// Watch asks for the topic every few seconds until ctx ends; see [Log.Partitions].
// It returns early, with true, when the topic has been deleted and made again:
// clients that knew the old one must be opened anew.
func (l *Log) Watch(ctx context.Context) (anew bool) {
	var known uuid.UUID
	for {
		if id, n, err := l.Topic(ctx); err == nil {
			if known != uuid.Nil && id != known {
				return true
			}
			known = id
			l.count.Store(n)
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(countAge):
		}
	}
}

// Partitions is the topic's partition count as [Log.Watch] last heard of it; 0
// while it is unknown.
func (l *Log) Partitions() int32 { return l.count.Load() }

// EpochEnd is where a leader epoch of a partition ended (KIP-320); known is
// false when the broker can't tell.
func (l *Log) EpochEnd(ctx context.Context, p, epoch int32) (end int64, known bool, err error) {
	var req kadm.OffsetForLeaderEpochRequest
	req.Add(l.names.Topic, p, epoch)
	ends, err := l.admin.OffsetForLeaderEpoch(ctx, req)
	if err != nil {
		return 0, false, fmt.Errorf("where epoch %d of partition %d ended: %w", epoch, p, err)
	}
	e, ok := ends[l.names.Topic][p]
	if !ok {
		return 0, false, nil
	}
	if e.Err != nil {
		return 0, false, fmt.Errorf("where epoch %d of partition %d ended: %w", epoch, p, e.Err)
	}
	return e.EndOffset, e.EndOffset >= 0 && e.LeaderEpoch >= 0, nil
}

// Where tells where a partition stands.
func (l *Log) Where(ctx context.Context, p int32) (partition.Where, error) {
	w := partition.Where{Committed: -1}
	var err error
	if w.TopicID, w.Partitions, err = l.Topic(ctx); err != nil {
		return w, err
	}
	if w.Start, w.End, err = l.Bounds(ctx, p); err != nil {
		return w, err
	}
	committed, err := l.admin.FetchOffsets(ctx, l.names.Group)
	if errors.Is(err, kerr.GroupIDNotFound) {
		return w, nil // no group, no commit
	}
	if err != nil {
		return w, fmt.Errorf("the group's offsets: %w", err)
	}
	if o, ok := committed.Lookup(l.names.Topic, p); ok {
		if o.Err != nil {
			return w, fmt.Errorf("the group's offset of partition %d: %w", p, o.Err)
		}
		w.Committed, w.Metadata = o.At, o.Metadata
	}
	return w, nil
}

// Bounds are the first offset a partition still has and the end of what is
// committed in it (read committed).
func (l *Log) Bounds(ctx context.Context, p int32) (start, end int64, err error) {
	// All partitions' leaders are asked; that another's is away is not this one's
	// concern.
	starts, err1 := l.admin.ListStartOffsets(ctx, l.names.Topic)
	ends, err2 := l.admin.ListCommittedOffsets(ctx, l.names.Topic)
	s, ok1 := starts.Lookup(l.names.Topic, p)
	e, ok2 := ends.Lookup(l.names.Topic, p)
	switch {
	case !ok1 || !ok2:
		return 0, 0, fmt.Errorf("where partition %d of %s begins and ends: %w", p, l.names.Topic,
			cmp.Or(errors.Join(err1, err2), errors.New("the broker does not say")))
	case s.Err != nil || e.Err != nil:
		return 0, 0, fmt.Errorf("offsets of partition %d: %w", p, errors.Join(s.Err, e.Err))
	}
	return s.Offset, e.Offset, nil
}

// Ends are where all partitions end now, whatever of it is committed: past all
// that was acknowledged before the call.
func (l *Log) Ends(ctx context.Context) (map[int32]int64, error) {
	ends, err := l.admin.ListEndOffsets(ctx, l.names.Topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("where the partitions of %s end: %w", l.names.Topic, err)
	}
	out := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) { out[o.Partition] = o.Offset })
	return out, nil
}

// Open reads a partition from an offset on, only what is committed. The reader
// fetches ahead while its records are being worked on, up to 16 MiB.
func (l *Log) Open(p int32, from int64) (partition.Reader, error) {
	return l.open(p, from, 16<<20, 20_000)
}

// OpenSmall is [Log.Open] with a sixteenth of the memory, for who reads several
// partitions beside what others do.
func (l *Log) OpenSmall(p int32, from int64) (partition.Reader, error) {
	return l.open(p, from, 1<<20, 5_000)
}

func (l *Log) open(p int32, from int64, bytes int32, records int) (partition.Reader, error) {
	client, err := kgo.NewClient(append(l.opts[:len(l.opts):len(l.opts)],
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{l.names.Topic: {p: kgo.NewOffset().At(from)}}),
		// An offset that is gone must not become another one in silence.
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxBytes(bytes),
		kgo.FetchMaxPartitionBytes(bytes/2),
		kgo.FetchMaxWait(500*time.Millisecond),
		kgo.KeepControlRecords(), // they say how far the log was read
	)...)
	if err != nil {
		return nil, fmt.Errorf("reading partition %d: %w", p, err)
	}
	return &reader{client: client, partition: p, position: from, atOnce: records}, nil
}

type reader struct {
	client    *kgo.Client
	partition int32
	position  int64
	atOnce    int // records that Next returns at most
}

// Next implements [partition.Reader].
func (r *reader) Next(ctx context.Context) ([]batch.Raw, error) {
	for {
		fetches := r.client.PollRecords(ctx, r.atOnce)
		if errs := fetches.Errors(); len(errs) > 0 && ctx.Err() == nil {
			return nil, fmt.Errorf("reading partition %d: %w", r.partition, errs[0].Err)
		}
		if fetches.NumRecords() == 0 {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			continue
		}
		return r.raws(fetches), nil
	}
}

// raws are the records of what was fetched, but for control records.
func (r *reader) raws(fetches kgo.Fetches) []batch.Raw {
	raws, most := make([]batch.Raw, 0, fetches.NumRecords()), 0
	fetches.EachRecord(func(rec *kgo.Record) { most += len(rec.Headers) })
	headers := make([]batch.Header, 0, most) // in one piece, rather than some pieces a record
	fetches.EachRecord(func(rec *kgo.Record) {
		r.position = rec.Offset + 1
		if rec.Attrs.IsControl() {
			return
		}
		raw := batch.Raw{Offset: rec.Offset, Epoch: rec.LeaderEpoch, Timestamp: rec.Timestamp, Key: rec.Key, Value: rec.Value}
		if len(rec.Headers) > 0 {
			at := len(headers)
			for _, h := range rec.Headers {
				headers = append(headers, batch.Header(h))
			}
			raw.Headers = headers[at:len(headers):len(headers)]
		}
		raws = append(raws, raw)
	})
	return raws
}

// Position implements [partition.Reader].
func (r *reader) Position() int64 { return r.position }

// Close implements [partition.Reader].
func (r *reader) Close() { r.client.Close() }

// ackBound is how long an acknowledgement may take. The record is tried on after
// that: written then, it is a copy.
const ackBound = 10 * time.Second

// Owned is the log as the owner of one partition uses it.
type Owned struct {
	*Log
	Partition  int32
	CommitFunc func(ctx context.Context, offset int64, metadata string) error
}

// Where implements [partition.Log].
func (o Owned) Where(ctx context.Context) (partition.Where, error) {
	return o.Log.Where(ctx, o.Partition)
}

// EpochEnd implements [partition.Log].
func (o Owned) EpochEnd(ctx context.Context, epoch int32) (int64, bool, error) {
	return o.Log.EpochEnd(ctx, o.Partition, epoch)
}

// Open implements [partition.Log].
func (o Owned) Open(from int64) (partition.Reader, error) { return o.Log.Open(o.Partition, from) }

// Commit implements [partition.Log].
func (o Owned) Commit(ctx context.Context, offset int64, metadata string) error {
	return o.CommitFunc(ctx, offset, metadata)
}
