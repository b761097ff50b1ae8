package partition

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/intent"
)

// Reread asks the owner to read From (inclusive) to To (exclusive) again and to
// write what ClickHouse lacks of it. To is cut to the journal's end: what lies
// beyond is being written anyway.
type Reread struct {
	From, To int64
	// Wanted is asked before it begins; false: it is no longer needed. It may
	// be nil.
	Wanted func() bool
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
}

// Request hands a re-read to the owner, which serves it between two batches.
func (o *Owner) Request(ctx context.Context, r Reread) error {
	select {
	case o.rereads <- r:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// serve re-reads by the same rule as ever. What is decided stands, so a range
// that ClickHouse has whole costs two queries a batch and no write.
func (o *Owner) serve(ctx context.Context, r Reread) error {
	if r.Wanted != nil && !r.Wanted() {
		return nil
	}
	p := Progress{Next: r.From, To: min(r.To, o.next)}
	report := r.Report
	if report == nil {
		report = func(Progress) {}
	}
	err := o.reread(ctx, &p, report)
	p.Done, p.Err = err == nil, err
	report(p)
	if err == nil {
		o.logger.Info("read again", "from", r.From, "to", p.To, "records", p.Records, "rows_written", p.Written, "fates_written", p.Journaled)
	}
	return err
}

func (o *Owner) reread(ctx context.Context, p *Progress, report func(Progress)) error {
	if p.Next >= p.To {
		return nil
	}
	reader, err := o.log.Open(p.Next)
	if err != nil {
		return err
	}
	defer reader.Close()
	b := batch.New(p.Next)
	flush := func() error {
		if len(b.Records) == 0 {
			return nil
		}
		if err := o.mend(ctx, b, p); err != nil {
			return err
		}
		p.Next = b.Last() + 1
		b = batch.New(p.Next)
		report(*p)
		return nil
	}
	for reader.Position() < p.To {
		raws, err := reader.Next(ctx)
		if err != nil {
			return fmt.Errorf("reading again from offset %d: %w", p.Next, err)
		}
		for _, raw := range raws {
			if raw.Offset >= p.To {
				break
			}
			record := o.decoder.Decode(raw)
			if !b.Fits(&record, o.cfg.Limits) {
				if err := flush(); err != nil {
					return err
				}
			}
			b.Add(record)
		}
	}
	if err := flush(); err != nil {
		return err
	}
	p.Next = p.To
	return nil
}

// mend compares a journaled range and writes what is missing, under tokens of
// its own: the range's old token could make ClickHouse drop the block.
func (o *Owner) mend(ctx context.Context, b *batch.Batch, p *Progress) error {
	decisions, err := o.decide(ctx, b, true)
	if err != nil {
		return err
	}
	s := o.sort(b, decisions)
	lines := entries(decisions, b)
	p.Records += len(b.Records)
	if len(s.rows) == 0 && len(lines) == 0 {
		return nil
	}
	in := intent.Of(b, o.self.TopicID, o.partitions)
	in.Reread = p.To
	if err := o.intend(ctx, b.First, in); err != nil {
		return err
	}
	if err := o.away(ctx, s); err != nil {
		return err
	}
	token := intent.Token(o.self.TopicID, o.cfg.Partition, b.First, in.Last, in.Hash) + "/mend/" + uuid.NewString()
	if err := o.rows(ctx, token, s.rows, true); err != nil {
		return err
	}
	if len(lines) > 0 {
		if err := o.store.Journal(ctx, token, o.cfg.Topic, o.self, lines); err != nil {
			return err
		}
	}
	o.remember(s)
	p.Written += len(s.rows)
	p.Journaled += len(lines)
	o.observe.Decided(o.cfg.Partition, map[dedup.Fate]int{}, len(s.rows), o.next)
	return nil
}
