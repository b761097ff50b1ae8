package replay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

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
	// nothing is missing of them, and nothing is written but the fate that an erased
	// one may lack. They are in none of the other counts.
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
// writes nothing. Memory is bounded by what ClickHouse has of three chunks, the last of
// which may be half as large again.
type Comparison struct {
	Open   func(partition int32, from int64) (partition.Reader, error)
	Conn   driver.Conn
	Filter Filter
	// Offsets are asked for at a time: [ChunkBeside] or [ChunkAlone]. First, if it is
	// not 0, is how many at first, so that the owner has something to do soon.
	Offsets, First int64
	// Judging is held while a chunk is read and judged, by one of those that share it
	// at a time: the first owner is asked before the others' chunks take its
	// processor. What is read first of a chunk is read before, so that a partition
	// without a leader seldom holds others up. It may be nil.
	Judging sync.Locker
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

	have func(context.Context, Part) (piece, error) // nil: Conn is asked
}

// Chunk is a range of records that was compared.
type Chunk struct {
	Next    int64 // the first offset that was not
	Records int   // read for it, meant or not
	// Missing are few ranges that cover all records of which something is to be
	// written (see [Spans]), in ascending order.
	Missing []Span
}

const (
	// ChunkBeside is how many offsets are compared at a time beside owners that write,
	// ChunkAlone where nothing else is done.
	ChunkBeside = 50_000
	ChunkAlone  = 100_000
	// awayFor is how long ClickHouse or a broker may be away in the middle.
	awayFor = time.Minute
)

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
	reader, err := c.Open(r.Partition, r.From)
	if err != nil {
		return err
	}
	defer reader.Close()
	ctx, cancel := context.WithCancel(ctx)
	answers := make(chan answer, 1)
	done := make(chan struct{})
	defer func() { cancel(); <-done }()
	go func() { // asks for the next chunks while one is compared
		defer close(done)
		c.ask(ctx, r, answers)
	}()
	log := &cursor{Reader: reader, decoder: batch.NewDecoder(r.Partitions)}
	for *next < r.To {
		var have answer
		select {
		case <-ctx.Done():
			return ctx.Err()
		case have = <-answers:
		}
		if have.err != nil {
			return have.err
		}
		chunk := Chunk{Next: have.next}
		var missing Spans
		if err := log.fetch(ctx, have.next); err != nil {
			return fmt.Errorf("reading the log: %w", err)
		}
		if c.Judging != nil {
			c.Judging.Lock()
		}
		err := log.each(ctx, have.next, func(record *batch.Record) {
			chunk.Records++
			if !c.Filter.Meant(record) {
				return
			}
			self, stored := have.of(record.Offset)
			c.judge(record, stored, self, r.Partition, d, &missing)
		})
		if c.Judging != nil {
			c.Judging.Unlock()
		}
		if err != nil { // what was told is not told again
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if log.passed <= *next {
				return fmt.Errorf("reading the log: %w", err)
			}
			chunk.Next = log.passed
		}
		*next, chunk.Missing = chunk.Next, missing.All()
		if err := c.Compared(ctx, chunk); err != nil {
			return stopped{err}
		}
		if err != nil {
			return fmt.Errorf("reading the log: %w", err)
		}
	}
	return nil
}

// ask asks what ClickHouse has, chunk by chunk, until an error, which it tells too.
func (c Comparison) ask(ctx context.Context, r Range, to chan<- answer) {
	have := c.have
	if have == nil {
		have = c.stored
	}
	size := cmp.Or(c.First, c.Offsets)
	for at := r.From; at < r.To; {
		a := answer{next: chunkEnd(at, size, r.To)}
		size = c.Offsets
		for _, part := range r.Parts(at, a.next-1) {
			var p piece
			if p, a.err = have(ctx, part); a.err != nil {
				break
			}
			a.pieces = append(a.pieces, p)
		}
		select {
		case to <- a:
		case <-ctx.Done():
			return
		}
		if a.err != nil {
			return
		}
		at = a.next
	}
}

// chunkEnd is where a chunk of some size from at ends. A small rest belongs to it: what
// is missing of a chunk is asked for by itself, and would be an INSERT of its own.
func chunkEnd(at, size, to int64) int64 {
	if end := at + size; to-end >= size/2 {
		return end
	}
	return to
}

// answer is what ClickHouse has of a chunk, which ends before next.
type answer struct {
	next   int64
	pieces []piece
	err    error
}

// of is what it has of an offset, and the origin that this is.
func (a *answer) of(offset int64) (topic.Origin, stored) {
	for i := range a.pieces {
		if p := &a.pieces[i]; offset >= p.First && offset <= p.Last {
			origin := p.Self
			origin.Offset = offset
			return origin, p.of(offset)
		}
	}
	return topic.Origin{Offset: offset}, stored{}
}

// cursor reads a log record by record.
type cursor struct {
	partition.Reader
	decoder *batch.Decoder
	raws    []batch.Raw
	passed  int64 // the first offset after the records given
	record  batch.Record
}

// each gives the records before an offset, each until the next is given.
func (l *cursor) each(ctx context.Context, end int64, give func(*batch.Record)) error {
	for {
		for i := range l.raws {
			if l.raws[i].Offset >= end {
				l.raws = l.raws[i:]
				return nil
			}
			l.record = batch.Record{Raw: l.raws[i]}
			l.decoder.Identify(&l.record)
			give(&l.record)
			l.passed = l.record.Offset + 1
		}
		l.raws = nil
		if l.Position() >= end {
			return nil
		}
		if err := l.fetch(ctx, end); err != nil {
			return err
		}
	}
}

// fetch reads what comes next, unless something is at hand or end is reached.
func (l *cursor) fetch(ctx context.Context, end int64) (err error) {
	if len(l.raws) == 0 && l.Position() < end {
		l.raws, err = l.Next(ctx)
	}
	return err
}
