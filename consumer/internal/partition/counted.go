package partition

import (
	"context"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/mutant"
	"sluice/consumer/internal/store"
)

// Retention counts the rows that it drops by the month, and no record's fate says
// which they were. Their ranges are journaled, so a live batch meets none of them,
// unless the journal was lost there: then as many of the expired records that have no
// fate as were counted need none.

// leaveCounted makes decisions of expired records stand as far as they were counted, of a
// range that is to be journaled, and notes how many.
func (o *Owner) leaveCounted(ctx context.Context, w *writing, decisions []dedup.Decision) error {
	w.counted = 0
	for i := range decisions {
		d := &decisions[i]
		if d.Fate != dedup.Expired || d.Stands {
			continue
		}
		n, err := o.countedLeft(ctx)
		if err != nil || w.counted == n {
			return err
		}
		d.Stands = true
		w.counted++
	}
	return nil
}

// countedLeft is how many records were counted that no journaled range has. It is
// asked for when it is first needed.
func (o *Owner) countedLeft(ctx context.Context) (int, error) {
	if mutant.On("expired-counted-again") {
		return 0, nil
	}
	if o.counted < 0 {
		n, counted, err := o.store.Counted(ctx, o.self)
		if err != nil {
			return 0, err
		}
		if counted && o.torn && !mutant.On("lost-rows-taken-for-counted") {
			lacking, err := o.lacking(ctx)
			if err != nil {
				return 0, err
			}
			n += lacking
		}
		o.counted = max(n, 0)
	}
	return o.counted, nil
}

// lacking is how many records of the journaled ranges have neither row nor fate and
// would get one if they were read again: rows that were lost beside the journal's gap.
// Of those that retention has counted none would. It reads what the log has of these
// ranges, since nothing else can tell the two apart.
//
// Where the log can't be read before the gap, none is looked for from there to the gap:
// nothing of it need be read again, so it must not hold the partition up. Where ClickHouse
// does not answer there is no number: a wrong one would stay in the journal.
func (o *Owner) lacking(ctx context.Context) (n int, err error) {
	ranges := append([]store.Range{{First: o.from(), End: o.next}}, o.islands...)
	for i, r := range ranges {
		r.First = max(r.First, o.start)
		if r.First >= r.End {
			continue
		}
		o.logger.Info("reading a journaled range again, to tell rows that were lost from those that expired", "from", r.First, "to", r.End)
		var asking error
		err := o.walk(ctx, r.First, r.End, 0, func(b *batch.Batch) error {
			var lacks int
			lacks, asking = o.lacks(ctx, b)
			n += lacks
			return asking
		})
		switch {
		case err == nil:
		case i > 0 || asking != nil || ctx.Err() != nil:
			return 0, err
		default:
			o.logger.Warn("rows that were lost before the journal's gap, if any, are not told from those that expired", "from", r.First, "to", r.End, "error", err)
		}
	}
	return n, nil
}

// lacks is how many records of a journaled batch would get a row or a fate.
func (o *Owner) lacks(ctx context.Context, b *batch.Batch) (n int, err error) {
	known, err := o.known(ctx, &writing{b: b, compare: true})
	if err != nil {
		return 0, err
	}
	known.First = func(*batch.Record) (dedup.First, bool) { return dedup.First{}, false }
	for _, d := range dedup.Decide(nil, b.Records, o.self, known) {
		if !d.Stands {
			n++
		}
	}
	return n, nil
}
