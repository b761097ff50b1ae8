package partition

import (
	"context"

	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/mutant"
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
		var err error
		if o.counted, err = o.store.Counted(ctx, o.self); err != nil {
			o.counted = -1
			return 0, err
		}
	}
	return o.counted, nil
}
