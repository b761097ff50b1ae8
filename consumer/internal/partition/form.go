package partition

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/time/rate"

	"sluice/consumer/internal/batch"
)

// rangeBound is how long the records of an open intent may take to be read.
const rangeBound = 15 * time.Second

func stopped(stop <-chan struct{}) bool {
	select {
	case <-stop:
		return true
	default:
		return false
	}
}

// form gathers the next batch. It returns an empty one when there is something
// else to do: to close, to stop, to serve a request.
func (o *Owner) form(ctx context.Context, stop <-chan struct{}) (*batch.Batch, error) {
	b := o.batch.Reset(o.next)
	idle := time.Second
	if o.open {
		idle = o.cfg.CloseAfter
	}
	age := o.cfg.Limits.Age
	if o.within() { // an open intent's range must come whole
		idle, age = rangeBound, rangeBound
	}
	var deadline time.Time
	var turn *rate.Reservation
	defer func() {
		if turn != nil && len(b.Records) == 0 {
			turn.Cancel()
		}
	}()
	for {
		if full := o.fill(b, o.ceiling()); full || !o.within() && len(b.Records) >= o.cfg.Limits.Rows {
			return b, nil
		}
		if len(b.Records) > 0 && deadline.IsZero() {
			deadline = time.Now().Add(age)
			if o.cfg.Budget != nil && !o.within() {
				turn = o.cfg.Budget.Reserve()
				deadline = time.Now().Add(max(age, turn.Delay()))
			}
		}
		wait := idle
		if !deadline.IsZero() {
			wait = time.Until(deadline)
		}
		if len(b.Records) > 0 && o.due() && !o.ahead.has() && time.Until(deadline) > o.replay.took {
			if err := o.step(ctx); err != nil { // there is time until this batch's
				return nil, err
			}
			continue
		}
		if len(b.Records) == 0 && !o.ahead.has() && o.due() {
			return b, nil // it became due just now
		}
		wake, wait := o.wakes(wait)
		c, err := o.ahead.next(ctx, stop, wake, wait)
		switch {
		case errors.Is(err, errQuiet) && !o.within() && (len(b.Records) == 0 || !time.Now().Before(deadline) || stopped(stop)):
			return b, nil
		case errors.Is(err, errQuiet) && !o.within():
			continue // there is something for the re-read to do
		case errors.Is(err, errQuiet) && stopped(stop):
			return b.Reset(o.next), nil
		case errors.Is(err, errQuiet):
			return nil, fmt.Errorf("the records of the open intent, up to offset %d, did not all come within %s", o.bound.End-1, rangeBound)
		case err != nil && len(b.Records) > 0 && ctx.Err() == nil && !o.within():
			return b, nil // what came before it stands; the error comes again
		case err != nil:
			o.unreadable = ctx.Err() == nil
			return nil, err
		}
		if o.unreadable = false; len(c.records) > 0 {
			o.lastLive = time.Now()
		}
		o.take(c.records)
		o.read = max(o.read, c.end)
		if o.within() {
			deadline = time.Time{} // it comes, if slowly
		}
	}
}

// take puts what has arrived behind what is pending.
func (o *Owner) take(records []batch.Record) {
	for len(records) > 0 && records[0].Offset < o.next {
		records = records[1:]
	}
	if len(o.pending) == 0 {
		o.pending = records
		return
	}
	o.pending = append(o.pending, records...)
}

// ceiling is the last offset the batch at hand may reach: an open intent's
// range is written again as it was, and what must be compared is not mixed with
// what is new. -1: any.
func (o *Owner) ceiling() int64 {
	if o.within() {
		return o.bound.End - 1
	}
	at := int64(-1)
	if o.compareTo >= o.next {
		at = o.compareTo
	}
	if edge := o.edge(); edge >= 0 && (at < 0 || at >= edge) {
		at = edge - 1
	}
	return at
}

// fill moves pending records into b. It tells whether b is full, or ends at
// ceiling (-1: none).
func (o *Owner) fill(b *batch.Batch, ceiling int64) bool {
	b.Grow(min(len(o.pending), o.cfg.Limits.Rows-len(b.Records)))
	for i := range o.pending {
		r := &o.pending[i]
		if ceiling >= 0 && r.Offset > ceiling && (len(b.Records) > 0 || o.bridge()) || !o.fits(b, r) {
			o.pending = o.pending[i:]
			return true
		}
		b.Add(r)
		if r.Offset == ceiling {
			o.pending = o.pending[i+1:]
			return true
		}
	}
	o.pending = nil
	return false
}

// fits applies the limits, but not inside an open intent's range: that batch
// was formed under the limits of its time.
func (o *Owner) fits(b *batch.Batch, r *batch.Record) bool {
	return o.within() && r.Offset < o.bound.End || b.Fits(r, o.cfg.Limits)
}
