package replay

import (
	"cmp"
	"context"
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
	// Settled tells that somebody dealt with a dead letter already. It may be nil.
	Settled func(topic.Origin) bool
	// Taken tells that an event was taken on purpose, and by what: [dedup.Expired]
	// or [dedup.Erased]. Retention keeps no fate of each record, so this is how its
	// are known. It may be nil: nothing was.
	Taken func(*event.Event) (fate dedup.Fate, taken bool)
	// Found is told of each record that is not as it should be, in offset order.
	Found func(Found)
	// Progress is told the first offset not compared, and how many records were
	// read for it.
	Progress func(next int64, records int)
}

const (
	chunkRecords = 50_000
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
	key    string
	detail string
	home   int32
}

type facts struct {
	of    []fact
	first int64
	next  int64
	err   error
}

// Run compares r. missing are few ranges that cover all records that are missing
// (see [Spans]), in ascending order; next is the first offset not compared, also when there is an
// error: a comparison may go on from there.
func (c Comparison) Run(ctx context.Context, r Range) (d Diff, missing []Span, next int64, err error) {
	next = r.From
	var lacks Spans
	defer func() { missing = lacks.All() }()
	var failing time.Time
	for next < r.To {
		rest := r
		rest.From = next
		before := next
		err = c.run(ctx, rest, &d, &lacks, &next)
		switch {
		case err == nil || ctx.Err() != nil:
			return d, missing, next, err
		case failure.Of(err) == failure.Halt:
			return d, missing, next, err
		case next > before || failing.IsZero():
			failing = time.Now()
		case time.Since(failing) > awayFor:
			return d, missing, next, fmt.Errorf("for %s: %w", awayFor, err)
		}
		select {
		case <-ctx.Done():
			return d, missing, next, ctx.Err()
		case <-time.After(time.Second):
		}
	}
	return d, missing, next, nil
}

func (c Comparison) run(ctx context.Context, r Range, d *Diff, missing *Spans, next *int64) error {
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
			if err := c.compare(ctx, r, f, d, missing); err != nil {
				return err
			}
			*next = f.next
			c.Progress(f.next, len(f.of))
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
			if len(at.of) == chunkRecords {
				if err := send(raw.Offset); err != nil {
					return err
				}
			}
			record := decoder.Decode(raw)
			f := fact{offset: raw.Offset, meant: c.Filter.Meant(&record), good: record.Reason == "", detail: record.Detail}
			if f.good && f.meant {
				f.id, f.hash, f.home = record.ID, record.Hash, record.Home
				f.key = string(record.Event.AppendKey(nil))
				if c.Taken != nil {
					f.taken, _ = c.Taken(&record.Event)
				}
			}
			at.of = append(at.of, f)
		}
	}
	return send(r.To)
}

// stored is what ClickHouse has of one offset.
type stored struct {
	row    bool
	id     uuid.UUID
	hash   event.Hash
	fate   dedup.Fate
	reason string
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

func (c Comparison) judge(f *fact, s stored, origin topic.Origin, self int32, d *Diff, missing *Spans) {
	tell := func(kind, what string) {
		c.Found(Found{Kind: kind, Origin: origin, Key: f.key, What: what})
	}
	d.Records++
	switch {
	case s.row && s.fate != "":
		d.Different++
		tell(Different, fmt.Sprintf("is a row and in the journal a %s too", s.fate))
	case s.row && (!f.good || s.id != f.id):
		d.Different++
		tell(Different, "the row is of another event than the record")
	case s.row && s.hash != f.hash:
		d.Different++
		tell(Different, "the row has another payload than the record")
	case s.row:
		d.Present++
		return
	case s.fate == dedup.Expired, s.fate == "" && f.taken == dedup.Expired:
		d.Expired++
		return
	case s.fate == dedup.Erased, s.fate == "" && f.taken == dedup.Erased:
		d.Erased++
		return
	case s.fate != "":
		d.Present++
		if s.fate != dedup.DeadLetter || !f.good || c.Settled != nil && c.Settled(origin) {
			return
		}
		d.GoodNow++
		what := "a dead letter that today's rules take; \"consumer dlq redrive\" puts it through"
		if s.reason == topic.ReasonRefused {
			what = "a dead letter since ClickHouse refused its row then; \"consumer dlq redrive\" tries again"
		}
		tell(GoodNow, what)
		return
	default:
		d.Missing++
		missing.Add(f.offset)
		switch {
		case !f.good:
			tell(Missing, "has no fate; it is no event: "+f.detail)
		case f.home != self:
			tell(Missing, fmt.Sprintf("has no fate; it belongs to partition %d", f.home))
		default:
			tell(Missing, "has neither row nor fate")
		}
		return
	}
	d.Present++
}

func (c Comparison) stored(ctx context.Context, self topic.Origin, first, last int64) (map[int64]stored, error) {
	out := make(map[int64]stored, min(last-first+1, chunkRecords))
	rows, err := c.Conn.Query(ctx, "SELECT offset, event_id, payload_hash FROM event_log WHERE topic_id = ? AND partition = ? AND offset BETWEEN ? AND ?",
		self.TopicID, self.Partition, first, last)
	err = each(rows, err, func() error {
		var offset int64
		var s stored
		var hash string
		if err := rows.Scan(&offset, &s.id, &hash); err != nil {
			return err
		}
		s.row = true
		copy(s.hash[:], hash)
		out[offset] = s
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("comparing offsets %d to %d with event_log: %w", first, last, err)
	}
	rows, err = c.Conn.Query(ctx, `SELECT offset, last_offset, toString(fate), toString(reason) FROM journal FINAL
		WHERE topic_id = ? AND partition = ? AND entry = 'fate' AND last_offset >= ? AND offset <= ?`, self.TopicID, self.Partition, first, last)
	err = each(rows, err, func() error {
		var from, to int64
		var fate, reason string
		if err := rows.Scan(&from, &to, &fate, &reason); err != nil {
			return err
		}
		for o := max(from, first); o <= min(to, last); o++ {
			s := out[o]
			if from != to && (s.row || s.fate != "") {
				continue // a range's fate is of what has none of its own
			}
			s.fate, s.reason = dedup.Fate(fate), reason
			out[o] = s
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("fates of offsets %d to %d: %w", first, last, err)
	}
	return out, nil
}

// each reads an answer to its end.
func each(rows driver.Rows, err error, scan func() error) error {
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // Err below tells
	for rows.Next() {
		if err := scan(); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Span is a range of offsets: From inclusive, To exclusive.
type Span struct{ From, To int64 }

const (
	spanGap   = 5_000 // offsets that lie between two spans at least
	mostSpans = 64
)

// Spans covers offsets, which ascend, with few ranges: an owner is asked to read
// these again, and not what lies between. Its memory does not grow with their
// number. The zero value covers nothing.
type Spans struct {
	all []Span
	gap int64 // what lies closer together is one range
}

// Add takes the next offset.
func (s *Spans) Add(offset int64) {
	s.gap = max(s.gap, spanGap)
	s.all = s.join(append(s.all, Span{offset, offset + 1}), len(s.all))
	for len(s.all) > mostSpans {
		s.gap *= 2
		s.all = s.join(s.all, 1)
	}
}

// All are the ranges, in ascending order.
func (s *Spans) All() []Span { return s.all }

// join joins each span from all[from] on with the one before, if it is close.
func (s *Spans) join(all []Span, from int) []Span {
	out := all[:min(from, len(all))]
	for _, x := range all[len(out):] {
		if n := len(out); n > 0 && x.From-out[n-1].To < s.gap {
			out[n-1].To = x.To
			continue
		}
		out = append(out, x)
	}
	return out
}
