package partition

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/consumer/internal/batch"
)

func (o *Owner) stepOn(ctx context.Context, x *replaying) error {
	if x.p.Next >= x.p.To {
		return nil
	}
	if x.ahead == nil {
		reader, err := o.log.Open(x.p.Next)
		if err != nil {
			return err
		}
		x.read = x.p.Next
		x.ahead = readAhead(ctx, reader, batch.NewDecoder(o.partitions))
		return nil // what it reads is awaited like a live record
	}
	x.most = o.size(x)
	if err := o.gather(ctx, x); err != nil {
		return err
	}
	for len(x.pending) > 0 && x.pending[0].Offset < x.p.Next { // between two requests
		x.pending = x.pending[1:]
	}
	turns := o.turns()
	if !o.cfg.Turns.take(turns) {
		return errPutOff // another was quicker
	}
	defer func() {
		if o.cfg.Turns.giveBack(turns) {
			x.notBefore = latest(x.notBefore, time.Now().Add(leaveIt))
		}
	}()
	began, wrote, pending := time.Now(), x.p.Written+x.p.Journaled, x.pending
	n, err := o.mendPending(ctx, x)
	x.ended = time.Now()
	if errors.Is(err, errPutOff) { // until the live batch has closed
		x.pending, x.notBefore = pending, latest(x.notBefore, x.ended.Add(o.cfg.Limits.Age+leaveIt))
	}
	if err != nil {
		return err
	}
	x.took = x.ended.Sub(began)
	if held := x.ended.Sub(o.heldSince(began)); n > 0 {
		x.pace = float64(n) / max(held, time.Millisecond).Seconds()
	}
	o.after(x, n, x.p.Written+x.p.Journaled > wrote)
	if err := o.index.Take(ctx); err != nil { // it keeps to its budget only so
		o.logger.Warn("keys are asked of ClickHouse until they are loaded", "error", err)
	}
	return nil
}

// errPutOff: a step was not taken; nothing was done, and it is taken later.
var errPutOff = errors.New("put off")

// putOff tells that a step about to send its intent is to let a live record go first
// that came meanwhile. Where live records are expected steps are small, and are not
// put off, or there would be none.
func (o *Owner) putOff() func() bool {
	busy := o.busy()
	return func() bool { return !busy && o.ahead.has() }
}

// heldSince is since when a step has held live records up: where none are expected,
// since its intent was sent, if it sent one.
func (o *Owner) heldSince(began time.Time) time.Time {
	if o.busy() {
		return began
	}
	return latest(began, o.answered)
}

// gather takes what has been read, as much as a step may have. While no live record
// is expected it waits a little for what is being read.
func (o *Owner) gather(ctx context.Context, x *replaying) error {
	var enough <-chan time.Time
	if !o.busy() {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		enough = timer.C
	}
	for len(x.pending) < x.most && x.read < x.p.To && (enough != nil && !o.ahead.has() || x.ahead.has()) {
		select {
		case c, ok := <-x.ahead.chunks:
			if !ok {
				return fmt.Errorf("reading again from offset %d: %w", x.p.Next, x.ahead.err)
			}
			x.pending, x.read = append(x.pending, c.records...), c.end
		case <-enough:
			enough = nil
		case <-o.ahead.ready: // a live record
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// mendPending mends one batch of what was read, which lies under one log id.
func (o *Owner) mendPending(ctx context.Context, x *replaying) (records int, err error) {
	self, end := o.self, x.p.To
	defer func() { o.self = self }()
	for i, s := range o.segments {
		if s.from > x.p.Next {
			end = min(end, s.from)
			break
		}
		o.self.TopicID = o.segments[i].id
	}
	limits := o.cfg.Limits
	limits.Rows = min(limits.Rows, x.evenly())
	if o.stepBatch == nil {
		o.stepBatch = batch.New(0)
	}
	b := o.stepBatch.Reset(x.p.Next)
	for len(x.pending) > 0 && x.pending[0].Offset < end && b.Fits(&x.pending[0], limits) {
		b.Add(&x.pending[0])
		x.pending = x.pending[1:]
	}
	if len(b.Records) > 0 {
		if err := o.mend(ctx, b, &x.p, b.Last()+1, x.r.Only, o.putOff()); err != nil {
			return 0, err
		}
		x.p.Next = b.Last() + 1
	}
	switch {
	case len(x.pending) > 0 && x.pending[0].Offset >= end, len(x.pending) == 0 && x.read >= end:
		x.p.Next = max(x.p.Next, end) // the rest were markers
	case len(x.pending) == 0:
		x.p.Next = max(x.p.Next, x.read)
	}
	return len(b.Records), nil
}

// evenly is how many records the next step may have: what is left to be read again
// is divided so that no small rest remains.
func (x *replaying) evenly() int {
	left := max(x.p.To-x.p.Next, 1)
	steps := (left + int64(x.most) - 1) / int64(x.most)
	return int((left + steps - 1) / steps)
}

// size is how many records the next step may have.
func (o *Owner) size(x *replaying) int {
	aim, least, first := stepIdle, leastIdle, leastIdle
	if o.busy() {
		aim, least, first = stepBusy, leastBusy, firstRow
	}
	if x.pace == 0 {
		return min(first, o.cfg.Limits.Rows)
	}
	return min(max(int(x.pace*aim.Seconds()), least), max(2*x.most, least), o.cfg.Limits.Rows)
}

// after settles when the next step may be, after one of n records.
func (o *Owner) after(x *replaying, n int, wrote bool) {
	if x.r.Rate > 0 {
		x.notBefore = x.ended.Add(time.Duration(float64(n) / x.r.Rate * float64(time.Second)))
	}
	if wrote && o.cfg.Budget != nil { // a step that writes is an INSERT like another
		x.notBefore = latest(x.notBefore, x.ended.Add(o.cfg.Budget.Reserve().Delay()))
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
