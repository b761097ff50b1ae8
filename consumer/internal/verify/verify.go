// Package verify re-reads the log and compares it with ClickHouse, record by
// record. It decides by the same rule as the owners but from the log alone, and
// takes nothing from what they say of themselves.
//
// A partition is read once, in chunks of bounded size: what each record is, is
// compared with rows and fates of the same offsets ([Verifier.Partition],
// compare.go). What depends on a key's other records, which may lie anywhere in
// the log, is spilled to temporary files, split by key so that one fits in
// memory (spill.go), and judged a split at a time (keys.go). What was found
// lies there by offset; only if there is anything is the log read once more, to
// say of which key it is (explain.go).
package verify

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/uuid"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/partition"
	"sluice/schemas/event"
	"sluice/schemas/topic"
)

// Log opens a partition for reading.
type Log interface {
	Open(p int32, from int64) (partition.Reader, error)
}

// Store is what is asked of ClickHouse, as [ClickHouse] has it. In all of it
// self's offset is of no meaning.
type Store interface {
	// Rows calls each for every row whose origin lies in first..last of
	// self, in offset order. A row that is stored twice is given twice.
	Rows(ctx context.Context, self topic.Origin, first, last int64, each func(Row)) error
	// Fates calls each for every fate that stands and whose range begins in
	// first..last of self, in offset order.
	Fates(ctx context.Context, self topic.Origin, first, last int64, each func(Fate)) error
	// Reaching calls each for every fate of a range that begins before offset
	// and reaches it.
	Reaching(ctx context.Context, self topic.Origin, offset int64, each func(Fate)) error
	// Named returns the rows that have these origins.
	Named(ctx context.Context, origins []topic.Origin) (map[topic.Origin]Row, error)
}

// Row is what is compared of a row.
type Row struct {
	Offset int64
	ID     uuid.UUID
	Hash   event.Hash
	// Content is [contentOf] the columns that hold the event.
	Content uint64
}

// Fate is an entry of the journal. Offset and Last are one offset unless it is
// of a range.
type Fate struct {
	Offset, Last int64
	Fate         dedup.Fate
	ID           uuid.UUID // zero: not written down
	Hash         event.Hash
	// Text is the hash (XXH64) of the payload's text, of a conflict.
	Text   uint64
	First  topic.Origin // zero: not written down
	Reason string
}

// Counts are counts of records, but for Rows and Extra, which are rows.
type Counts struct {
	Records, Rows, Duplicates, Conflicts, DeadLettered, Forwarded int
	// Missing records have neither row nor fate; Different ones have another
	// than the log says, or a row with another payload; Extra rows have no
	// such record.
	Missing, Different, Extra int
	// Unverifiable records have neither row nor fate, and occurred before what
	// retention keeps.
	Unverifiable int
}

// Add adds other's counts.
func (c *Counts) Add(other Counts) {
	c.Records += other.Records
	c.Rows += other.Rows
	c.Duplicates += other.Duplicates
	c.Conflicts += other.Conflicts
	c.DeadLettered += other.DeadLettered
	c.Forwarded += other.Forwarded
	c.Missing += other.Missing
	c.Different += other.Different
	c.Extra += other.Extra
	c.Unverifiable += other.Unverifiable
}

// The kinds of findings.
const (
	Missing   = "missing"
	Different = "different"
	Extra     = "extra"
	Rollup    = "rollup"
)

// Finding is one thing that is not as it should be.
type Finding struct {
	Kind string
	// Origin is the record's or the row's; of a rollup it is zero.
	Origin topic.Origin
	Key    string // the event's key, a rollup's bucket, or ""
	What   string
}

// String says it to a person.
func (f Finding) String() string {
	switch {
	case f.Origin == topic.Origin{}:
		return fmt.Sprintf("%s: %s", f.Key, f.What)
	case f.Key == "":
		return fmt.Sprintf("partition %d offset %d: %s", f.Origin.Partition, f.Origin.Offset, f.What)
	}
	return fmt.Sprintf("partition %d offset %d %s: %s", f.Origin.Partition, f.Origin.Offset, f.Key, f.What)
}

// Segment is a stretch of a partition's log under one log id: the topic's id,
// or, since the log took records back that had been decided, one derived of it.
type Segment struct {
	LogID uuid.UUID
	From  int64 // it ends where the next begins
}

// Range is what is compared: From inclusive, To exclusive.
type Range struct {
	Self topic.Origin // topic id and partition
	// Partitions is how many the topic has. Counts are those it has had as
	// well, if any: a record may have been decided when keys lay elsewhere.
	Partitions int32
	Counts     []int32
	// Segments of the log in ascending order; none: the topic's id throughout.
	Segments []Segment
	From, To int64
}

// segments are those of r that any of r lies in.
func (r Range) segments() []Segment {
	if len(r.Segments) == 0 {
		return []Segment{{LogID: r.Self.TopicID}}
	}
	return r.Segments
}

// Stretch is a part of a range under one log id: First to Last, inclusive.
type Stretch struct {
	Self        topic.Origin
	First, Last int64
}

// Stretches cuts first..last where segments begin.
func (r Range) Stretches(first, last int64) []Stretch {
	segments := r.segments()
	var out []Stretch
	for i, s := range segments {
		a, b := max(first, s.From), last
		if i == 0 {
			a = first
		}
		if i+1 < len(segments) {
			b = min(b, segments[i+1].From-1)
		}
		if a <= b {
			out = append(out, Stretch{topic.Origin{TopicID: s.LogID, Partition: r.Self.Partition}, a, b})
		}
	}
	return out
}

// At is the origin of an offset of the log as it is now.
func (r Range) At(offset int64) topic.Origin {
	o := r.Stretches(offset, offset)[0].Self
	o.Offset = offset
	return o
}

// holds tells whether a record of r has this origin, unless none has.
func (r Range) holds(o topic.Origin) bool {
	return o.Partition == r.Self.Partition && o.Offset >= r.From && o.Offset < r.To && r.At(o.Offset) == o
}

// DefaultMemory is the default of [Verifier.Memory].
const DefaultMemory = 256 << 20

// Verifier compares partitions, one after another. It is not for concurrent use.
type Verifier struct {
	Log   Log
	Store Store
	// Memory bounds, in bytes, what is held of records and keys; the reader's
	// buffers (tens of MiB) come on top, and what the garbage collector lets
	// pile up. All records of one event are held at once (64 bytes each),
	// whatever the bound. Default 256 MiB.
	Memory int64
	// TempDir is where the temporary files go: 50 bytes a record of the
	// largest partition. They have no names, so that they are gone when the
	// process is, however it ends. Default: the system's.
	TempDir string
	// Expired tells whether retention has taken what occurred at a time. It may
	// be nil: nothing has.
	Expired func(time.Time) bool
	// PresenceOnly leaves out what depends on a key's other records. For a
	// range that does not begin where the log does.
	PresenceOnly bool
}

// Partition compares one partition's range with what ClickHouse has of it.
// found is called for each finding in offset order, progress with the first
// offset not yet read.
//
// What is decided stands: where the journal names another record of the key as
// the one that became the row, that decision is not found wrong because the log
// alone would have it otherwise.
func (v Verifier) Partition(ctx context.Context, r Range, found func(Finding), progress func(next int64)) (Counts, error) {
	if v.Memory <= 0 {
		v.Memory = DefaultMemory
	}
	if v.TempDir == "" {
		v.TempDir = os.TempDir()
	}
	if r.From >= r.To {
		return Counts{}, nil
	}
	c := comparison{Verifier: v, r: r, progress: progress, runs: runs{dir: v.TempDir}}
	defer c.runs.close()
	if !v.PresenceOnly {
		splits, err := newSplits(v.TempDir, r.To-r.From, v.Memory/3)
		if err != nil {
			return Counts{}, err
		}
		defer splits.close()
		c.splits = splits
	}
	if err := c.read(ctx); err != nil {
		return c.counts, err
	}
	if c.splits != nil {
		if err := c.judgeKeys(ctx); err != nil {
			return c.counts, err
		}
	}
	return c.counts, c.explain(ctx, found)
}

// Partition compares one partition's range, with the defaults. When From is the
// log's start (whole), each record's fate is checked against the rule; keys
// first seen before From are unknown, so with whole false only presence and
// payload are.
func Partition(ctx context.Context, log Log, st interface{ Conn() driver.Conn }, r Range, whole bool, found func(Finding), progress func(next int64)) (Counts, error) {
	v := Verifier{Log: log, Store: ClickHouse{st.Conn()}, PresenceOnly: !whole}
	return v.Partition(ctx, r, found, progress)
}

// read goes through the log and compares it, a chunk at a time.
func (c *comparison) read(ctx context.Context) error {
	reader, err := c.Log.Open(c.r.Self.Partition, c.r.From)
	if err != nil {
		return err
	}
	defer reader.Close()
	most := int(min(max(c.Memory/3/factBytes, 4), 4<<20))
	decoder := batch.NewDecoder(c.r.Partitions)
	c.facts = make([]fact, 0, min(int64(most), c.r.To-c.r.From))
	next := c.r.From
	for reader.Position() < c.r.To {
		raws, err := reader.Next(ctx)
		if err != nil {
			return fmt.Errorf("reading the log: %w", err)
		}
		for _, raw := range raws {
			if raw.Offset >= c.r.To {
				break
			}
			if len(c.facts) == most {
				if err := c.compare(ctx, next, raw.Offset-1); err != nil {
					return err
				}
				next = raw.Offset
			}
			record := decoder.Decode(raw)
			c.facts = append(c.facts, c.fact(&record))
		}
		c.progress(min(reader.Position(), c.r.To))
	}
	return c.compare(ctx, next, c.r.To-1)
}
