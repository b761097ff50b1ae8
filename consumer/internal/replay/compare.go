package replay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/uuid"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/failure"
	"sluice/consumer/internal/partition"
	"sluice/schemas/event"
	"sluice/schemas/topic"
)

// Diff is what a comparison found of one partition's range: counts of records.
type Diff struct {
	// Records were read and meant; Present ones are a row or have a fate,
	// Missing ones neither.
	Records, Present, Missing int
	// Expired and Erased ones were taken on purpose, by retention or an erasure:
	// nothing is missing of them, and nothing is written. They are in none of the
	// other counts.
	Expired, Erased int
	// Different ones are present, and are not what their record says: a row of
	// another event or payload, or a row and a fate at once. What is decided
	// stands, so nothing is written of them.
	Different int
	// GoodNow ones are dead letters that today's rules would take.
	GoodNow int
}

// Part is one stretch of what is compared, under one log id: First to Last,
// inclusive.
type Part struct {
	Self        topic.Origin
	First, Last int64
}

// Range is what is compared of one partition: From inclusive, To exclusive.
type Range struct {
	Partition  int32
	Partitions int32 // of the topic
	From, To   int64
	// Parts cuts first..last (inclusive) where the log goes on under another id.
	Parts func(first, last int64) []Part
}

// The kinds of a [Found].
const (
	Missing   = "missing"
	Different = "different"
	GoodNow   = "good now"
)

// Found is one record that is not as it should be.
type Found struct {
	Kind   string
	Origin topic.Origin
	Key    string // "" when the record is no event
	What   string
}

// Comparison compares the log with ClickHouse by origin. It decides nothing and
// writes nothing. Memory is bounded by two chunks of records.
type Comparison struct {
	Open   func(partition int32, from int64) (partition.Reader, error)
	Conn   driver.Conn
	Filter Filter
	// Records are compared at a time: [ChunkBeside] or [ChunkAlone].
	Records int
	// Settled tells that somebody dealt with a dead letter already. It may be nil.
	Settled func(topic.Origin) bool
	// Taken tells that an event was taken on purpose, and by what: [dedup.Expired]
	// or [dedup.Erased]. Retention keeps no fate of each record, so this is how its
	// are known. It may be nil: nothing was.
	Taken func(*event.Event) (fate dedup.Fate, taken bool)
	// Found is told of each record that is not as it should be, in offset order.
	Found func(Found)
	// Compared is told of each chunk of records as soon as it was compared, with a
	// context that ends with the comparison. Its error ends the comparison.
	Compared func(context.Context, Chunk) error
}

// Chunk is a range of records that was compared.
type Chunk struct {
	Next    int64 // the first offset that was not
	Records int   // read for it, meant or not
	// Missing are few ranges that cover all records that are missing (see
	// [Spans]), in ascending order.
	Missing []Span
}

const (
	// ChunkBeside is how many records are compared at a time beside other ranges and
	// their owners, ChunkAlone where nothing else is done.
	ChunkBeside = 25_000
	ChunkAlone  = 50_000
	// awayFor is how long ClickHouse or a broker may be away in the middle.
	awayFor = time.Minute
)

// fact is what is kept of a record until its chunk is compared.
type fact struct {
	offset int64
	id     uuid.UUID
	hash   event.Hash
	good   bool
	meant  bool
	taken  dedup.Fate // "": it was not
	key    []byte
	detail string
	home   int32
}

type facts struct {
	of    []fact
	keys  []byte // where the next key stands
	first int64
	next  int64
	err   error
}

// stopped is an error of [Comparison.Compared].
type stopped struct{ error }

// Run compares r. next is the first offset not compared, also when there is an
// error: a comparison may go on from there.
func (c Comparison) Run(ctx context.Context, r Range) (d Diff, next int64, err error) {
	next = r.From
	var failing time.Time
	for next < r.To {
		rest := r
		rest.From = next
		before := next
		err = c.run(ctx, rest, &d, &next)
		var s stopped
		switch {
		case errors.As(err, &s):
			return d, next, s.error
		case err == nil || ctx.Err() != nil || failure.Of(err) == failure.Halt:
			return d, next, err
		case next > before || failing.IsZero():
			failing = time.Now()
		case time.Since(failing) > awayFor:
			return d, next, fmt.Errorf("for %s: %w", awayFor, err)
		}
		select {
		case <-ctx.Done():
			return d, next, ctx.Err()
		case <-time.After(time.Second):
		}
	}
	return d, next, nil
}

func (c Comparison) run(ctx context.Context, r Range, d *Diff, next *int64) error {
	ctx, cancel := context.WithCancel(ctx)
	chunks := make(chan facts, 1)
	done := make(chan struct{})
	defer func() { cancel(); <-done }()
	go func() { // reads and decodes while the chunk before is compared
		defer close(done)
		defer close(chunks)
		if err := c.read(ctx, r, chunks); err != nil {
			select {
			case chunks <- facts{err: err}:
			case <-ctx.Done():
			}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case f, ok := <-chunks:
			if !ok {
				return ctx.Err()
			}
			if f.err != nil {
				return f.err
			}
			var missing Spans
			if err := c.compare(ctx, r, f, d, &missing); err != nil {
				return err
			}
			*next = f.next
			if err := c.Compared(ctx, Chunk{f.next, len(f.of), missing.All()}); err != nil {
				return stopped{err}
			}
		}
	}
}

func (c Comparison) read(ctx context.Context, r Range, out chan<- facts) error {
	reader, err := c.Open(r.Partition, r.From)
	if err != nil {
		return err
	}
	defer reader.Close()
	decoder := batch.NewDecoder(r.Partitions)
	at := facts{first: r.From}
	send := func(next int64) error {
		at.next = next
		select {
		case out <- at:
		case <-ctx.Done():
			return ctx.Err()
		}
		at = facts{first: next}
		return nil
	}
	for reader.Position() < r.To {
		raws, err := reader.Next(ctx)
		if err != nil {
			return fmt.Errorf("reading the log: %w", err)
		}
		for _, raw := range raws {
			if raw.Offset >= r.To {
				break
			}
			if len(at.of) == c.Records {
				if err := send(raw.Offset); err != nil {
					return err
				}
			}
			record := decoder.Decode(raw)
			f := fact{offset: raw.Offset, meant: c.Filter.Meant(&record), good: record.Reason == "", detail: record.Detail}
			if f.good && f.meant {
				f.id, f.hash, f.home = record.ID, record.Hash, record.Home
				if cap(at.keys)-len(at.keys) < 1<<10 { // what was begun is not copied
					at.keys = make([]byte, 0, 64<<10)
				}
				from := len(at.keys)
				at.keys = record.Event.AppendKey(at.keys)
				f.key = at.keys[from:]
				if c.Taken != nil {
					f.taken, _ = c.Taken(&record.Event)
				}
			}
			at.of = append(at.of, f)
		}
	}
	return send(r.To)
}

func (c Comparison) compare(ctx context.Context, r Range, f facts, d *Diff, missing *Spans) error {
	type piece struct {
		self     topic.Origin
		from, to int
		have     map[int64]stored
	}
	var pieces []piece // all is asked for first, so that an error has told nothing
	for _, part := range r.Parts(f.first, f.next-1) {
		x := piece{self: part.Self}
		x.from, _ = slices.BinarySearchFunc(f.of, part.First, func(f fact, o int64) int { return cmp.Compare(f.offset, o) })
		x.to, _ = slices.BinarySearchFunc(f.of, part.Last+1, func(f fact, o int64) int { return cmp.Compare(f.offset, o) })
		if x.from == x.to {
			continue
		}
		var err error
		if x.have, err = c.stored(ctx, part.Self, f.of[x.from].offset, f.of[x.to-1].offset); err != nil {
			return err
		}
		pieces = append(pieces, x)
	}
	for _, x := range pieces {
		for i := x.from; i < x.to; i++ {
			if f.of[i].meant {
				origin := x.self
				origin.Offset = f.of[i].offset
				c.judge(&f.of[i], x.have[origin.Offset], origin, r.Partition, d, missing)
			}
		}
	}
	return nil
}
