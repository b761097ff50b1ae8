package partition

import (
	"context"
	"fmt"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/intent"
)

// Reread asks the owner to read From (inclusive) to To (exclusive) again and to
// write what ClickHouse lacks of it. To is cut to the journal's end: what lies
// beyond is being written anyway.
type Reread struct {
	From, To int64
	// Last, if positive, is where the first batch ends whatever the limits are:
	// an owner that died had begun to write it.
	Last int64
	// Wanted is asked before each batch; false: it is no longer needed. It may
	// be nil.
	Wanted func() bool
	// Only tells which records are meant: of others nothing is written. Records
	// of one key must all be meant or none. It may be nil: all are.
	Only func(*batch.Record) bool
	// Rate is the most records a second; 0: as fast as live batches allow.
	Rate float64
	// Report is told how far it is, after each batch and once at the end, with
	// done set or the error that stopped it. It may be nil.
	Report func(Progress)
}

// Progress is how far a re-read is.
type Progress struct {
	Next, To int64
	// Records were compared, of which Written rows and Journaled fates were
	// missing.
	Records, Written, Journaled int
	Done                        bool
	Err                         error

	whole int64 // To over all log ids of the partition
}

// Request hands a re-read to the owner, which serves it between its batches.
func (o *Owner) Request(ctx context.Context, r Reread) error {
	select {
	case o.rereads <- r:
		select {
		case o.asked <- struct{}{}: // it need not wait for a live record
		default:
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// serve re-reads by the same rule as ever. What is decided stands, so a range
// that ClickHouse has whole costs two queries a batch and no write.
func (o *Owner) serve(ctx context.Context, r Reread) error {
	p := Progress{Next: max(r.From, o.start), To: min(r.To, o.next)}
	report := r.Report
	if report == nil {
		report = func(Progress) {}
	}
	err := o.rereadSegments(ctx, &p, r.Last, report)
	p.Done, p.Err = err == nil, err
	report(p)
	if err == nil {
		o.logger.Info("read again", "from", r.From, "to", p.To, "records", p.Records, "rows_written", p.Written, "fates_written", p.Journaled)
	}
	return err
}

// rereadSegments reads again what lies on each side of a cut under its own id.
func (o *Owner) rereadSegments(ctx context.Context, p *Progress, last int64, report func(Progress)) error {
	self, to := o.self, p.To
	p.whole = to
	defer func() { o.self, p.To = self, to }()
	for i, s := range o.segments {
		end := to
		if i+1 < len(o.segments) {
			end = min(end, o.segments[i+1].from)
		}
		if p.Next >= end {
			continue
		}
		o.self.TopicID, p.To = s.id, end
		if err := o.reread(ctx, p, last, report); err != nil {
			return err
		}
	}
	return nil
}

func (o *Owner) reread(ctx context.Context, p *Progress, last int64, report func(Progress)) error {
	if p.Next >= p.To {
		return nil
	}
	err := o.walk(ctx, p.Next, p.To, last, func(b *batch.Batch) error {
		if err := o.mend(ctx, b, p, max(p.To, p.whole), nil, nil); err != nil {
			return err
		}
		p.Next = b.Last() + 1
		report(*p)
		if err := o.index.Take(ctx); err != nil { // it keeps to its budget only so
			o.logger.Warn("keys are asked of ClickHouse until they are loaded", "error", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	p.Next = p.To
	return nil
}

// walk reads from one offset (inclusive) to another (exclusive) again and calls each
// with what it finds, a batch at a time. The first ends at last, if that is positive,
// whatever the limits are.
func (o *Owner) walk(ctx context.Context, from, to, last int64, each func(*batch.Batch) error) error {
	reader, err := o.log.Open(from)
	if err != nil {
		return err
	}
	defer reader.Close()
	b := batch.New(from)
	flush := func() error {
		if len(b.Records) == 0 {
			return nil
		}
		if err := each(b); err != nil {
			return err
		}
		b = batch.New(b.Last() + 1)
		return nil
	}
	for reader.Position() < to {
		raws, err := reader.Next(ctx)
		if err != nil {
			return fmt.Errorf("reading again from offset %d: %w", b.First, err)
		}
		for _, raw := range raws {
			if raw.Offset >= to {
				break
			}
			record := o.decoder.Decode(raw)
			bound := last > 0 && raw.Offset <= last // what was begun is one batch
			ends := last > 0 && b.Last() <= last && !bound
			if ends || !bound && !b.Fits(&record, o.cfg.Limits) {
				if err := flush(); err != nil {
					return err
				}
			}
			b.Add(&record)
		}
	}
	return flush()
}

// mend compares a journaled range and writes what is missing of it. to (exclusive)
// is up to where an owner that finds its intent must read again. putOff, if it is not
// nil, is asked before the intent is sent; where it says so the error is errPutOff,
// and nothing was done.
func (o *Owner) mend(ctx context.Context, b *batch.Batch, p *Progress, to int64, only func(*batch.Record) bool, putOff func() bool) error {
	w := writing{b: b, first: b.First, in: o.horizon(intent.Of(b, o.self.TopicID, o.partitions)), compare: true, only: only, putOff: putOff}
	w.in.Reread = to
	s, err := o.write(ctx, &w)
	if err != nil {
		return err
	}
	p.Records += len(b.Records)
	p.Written += len(s.rows)
	p.Journaled += w.journaled
	if len(s.rows)+w.journaled > 0 {
		o.observe.Decided(o.cfg.Partition, map[dedup.Fate]int{}, len(s.rows), o.next)
	}
	return nil
}
