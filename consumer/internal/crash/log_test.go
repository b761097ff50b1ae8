package crash

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/google/uuid"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/failure"
	"sluice/consumer/internal/intent"
	"sluice/consumer/internal/partition"
	"sluice/schemas/topic"
)

// partitions of the topic; the log is that of partition 0.
const partitions = 3

// cluster is Kafka as one partition's owners see it: a log, and a group whose
// generation grows with every owner.
type cluster struct {
	mu         sync.Mutex
	id         uuid.UUID
	partitions int32
	records    []batch.Raw
	start, end int64         // end: the log may end in a marker
	hidden     int64         // records from here on have not been produced yet; -1: all have
	changed    chan struct{} // closed and made anew when records come
	generation int
	committed  int64
	metadata   string
	letters    map[int64]int
	forwards   map[int64]int
}

func newCluster(id uuid.UUID, records []batch.Raw, end int64) *cluster {
	return &cluster{
		id: id, partitions: partitions, records: records, end: end, hidden: -1, changed: make(chan struct{}),
		committed: -1, letters: map[int64]int{}, forwards: map[int64]int{},
	}
}

// rebalance begins a generation and returns its number.
func (c *cluster) rebalance() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation++
	return c.generation
}

// reveal produces the records that were held back.
func (c *cluster) reveal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hidden >= 0 {
		c.hidden = -1
		close(c.changed)
		c.changed = make(chan struct{})
	}
}

// deleteHead deletes what lies before an offset, as retention does.
func (c *cluster) deleteHead(before int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.start = before
	c.records = slices.DeleteFunc(c.records, func(r batch.Raw) bool { return r.Offset < before })
}

// grow sets the topic's partition count.
func (c *cluster) grow(partitions int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.partitions = partitions
}

// closed tells whether the group says that all of the log is written.
func (c *cluster) closed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	in, ours, err := intent.Parse(c.metadata)
	return err == nil && ours && in.Closed && c.committed == c.end
}

func (c *cluster) logEnd() int64 {
	if c.hidden >= 0 {
		return c.hidden
	}
	return c.end
}

// view is the cluster as an owner of one generation uses it.
type view struct {
	*cluster
	generation int
}

func (v *view) Where(context.Context) (partition.Where, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return partition.Where{
		TopicID: v.id, Partitions: v.partitions, Start: v.start, End: v.logEnd(), Committed: v.committed, Metadata: v.metadata,
	}, nil
}

func (v *view) EpochEnd(context.Context, int32) (int64, bool, error) { return 0, false, nil }

func (v *view) Open(from int64) (partition.Reader, error) {
	return &reader{cluster: v.cluster, position: from}, nil
}

// Commit is refused to an owner whose generation is over, as a group does, and
// as the committer tells the owner.
func (v *view) Commit(_ context.Context, offset int64, metadata string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.generation != v.cluster.generation {
		return fmt.Errorf("generation %d: %w", v.generation, failure.ErrOver)
	}
	v.committed, v.metadata = offset, metadata
	return nil
}

func (v *view) DeadLetter(_ context.Context, _ topic.Origin, letters []*batch.Record) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, r := range letters {
		v.letters[r.Offset]++
	}
	return nil
}

func (v *view) Forward(_ context.Context, _ topic.Origin, moved []*batch.Record) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, r := range moved {
		v.forwards[r.Offset]++
	}
	return nil
}

type reader struct {
	*cluster
	position int64
}

// Next returns all that there is, or waits for more.
func (r *reader) Next(ctx context.Context) ([]batch.Raw, error) {
	for {
		r.mu.Lock()
		end, changed := r.logEnd(), r.changed
		if r.position < r.start {
			r.mu.Unlock()
			return nil, fmt.Errorf("offset %d is gone: the log begins at %d", r.position, r.start)
		}
		at, _ := slices.BinarySearchFunc(r.records, r.position, func(raw batch.Raw, o int64) int { return int(raw.Offset - o) })
		var out []batch.Raw
		for _, raw := range r.records[at:] {
			if raw.Offset < end {
				out = append(out, raw)
			}
		}
		behind := r.position < end
		r.position = max(r.position, end)
		r.mu.Unlock()
		if behind {
			return out, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (r *reader) Position() int64 { return r.position }

func (r *reader) Close() {}
