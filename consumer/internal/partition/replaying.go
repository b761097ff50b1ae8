package partition

import (
	"context"
	"fmt"
	"time"

	"sluice/consumer/internal/batch"
)

// Live batches go first. A re-read that was asked for takes a step, one small
// batch, when no live record waits, while a live batch waits for more records, or
// when it has had less than a quarter of the time. A step is sized by what the
// last one took, so that a live record waits for little more than that.
const (
	stepBusy  = 40 * time.Millisecond  // a step's aim while live records come
	stepIdle  = 200 * time.Millisecond // and while none do
	busyFor   = 5 * time.Second        // how long after a live record others are expected
	leastBusy = 2_000                  // records of a step, at least: an INSERT costs by the month, not by the row
	leastIdle = 50_000                 // as a live batch when many wait: one of 10,000 costs ClickHouse near twice as much a row
	firstRow  = 2_000                  // records of the first step while live records come
	share     = 3                      // after a step live batches have this many times what it took
	tellEach  = 200 * time.Millisecond // progress is told no more often
	// StepsAtOnce is how many steps the owners of one process take at a time, by
	// [Config.Turns].
	StepsAtOnce = 3
	// leaveIt is how long an owner leaves a turn to others that wait for one.
	leaveIt = 5 * time.Millisecond
	// keepFor is how long the reader of a re-read that is done is kept: a replay
	// asks for range after range, each when it has been compared.
	keepFor = 2 * time.Second
	// nearby is how many offsets are read and left out rather than looked up anew.
	nearby = 20_000
)

// replaying is a re-read on its way. It outlives a run: what was compared stays so.
type replaying struct {
	r         Reread
	p         Progress
	ahead     *ahead // nil: to be opened at p.Next
	pending   []batch.Record
	read      int64 // the first offset not read
	most      int   // records of the next step
	took      time.Duration
	ended     time.Time // when the last step ended
	notBefore time.Time
	told      time.Time
}

// beginReplay takes a request up. What the one before has learned of the pace, and
// owes to live batches, goes on; so does its reader, if it stands near.
func (o *Owner) beginReplay(r Reread) {
	if r.Report == nil {
		r.Report = func(Progress) {}
	}
	x := &replaying{r: r, p: Progress{Next: r.From, To: r.To}, most: firstRow}
	if !o.busy() {
		x.most = leastIdle / 2
	}
	if before := o.replayed; before != nil {
		x.took, x.ended, x.notBefore = before.took, before.ended, before.notBefore
		if time.Since(before.ended) < busyFor {
			x.most = before.most
		}
		if before.ahead != nil && before.p.Next <= r.From && r.From <= before.read+nearby {
			x.ahead, x.pending, x.read = before.ahead, before.pending, before.read
			before.ahead = nil
		}
		o.forgetReplayed()
	}
	o.replay = x
}

// endReplay keeps what a re-read that is done leaves to the next, for a while.
func (o *Owner) endReplay() {
	o.forgetReplayed()
	o.replayed, o.replay = o.replay, nil
}

// forgetReplayed lets go of what is kept.
func (o *Owner) forgetReplayed() {
	o.replayed.rest()
	o.replayed = nil
}

// letGo stops reading for requests that have not come.
func (o *Owner) letGo() {
	if x := o.replayed; x != nil && time.Since(x.ended) > keepFor {
		x.rest() // what it learned stays
		o.stepBatch = nil
	}
}

// dropReplay forgets it: it is called off, or the incarnation is over.
func (o *Owner) dropReplay() {
	o.replay.rest()
	o.replay, o.stepBatch = nil, nil
	o.forgetReplayed()
}

// rest stops reading; the next step begins where the last one ended.
func (x *replaying) rest() {
	if x == nil || x.ahead == nil {
		return
	}
	x.ahead.close()
	x.ahead, x.pending = nil, nil
}

// busy tells that live records are expected.
func (o *Owner) busy() bool { return time.Since(o.lastLive) < busyFor }

// turns are how many of the process's turns a step takes: all of them while live
// records come, so that their batches have one step beside them at most.
func (o *Owner) turns() int {
	if o.busy() {
		return StepsAtOnce
	}
	return 1
}

// ready tells that a step can be taken, if it is its turn.
func (o *Owner) ready() bool {
	x := o.replay
	return x != nil && !o.mayNotReplay() && !time.Now().Before(x.notBefore) &&
		(x.ahead == nil || len(x.pending) > 0 || x.read >= x.p.To || x.ahead.has())
}

// due tells that a step can be taken at once.
func (o *Owner) due() bool {
	if !o.ready() {
		return false
	}
	free, _ := o.cfg.Turns.has(o.turns())
	return free
}

// turn tells that a step is to be taken before the next live batch.
func (o *Owner) turn() bool {
	if !o.due() {
		return false
	}
	live := len(o.pending) > 0 || o.ahead.has()
	return !live || time.Since(o.replay.ended) > share*o.replay.took
}

// wakes is what a live batch that waits is woken by, and for how long it waits.
func (o *Owner) wakes(wait time.Duration) (<-chan struct{}, time.Duration) {
	x := o.replay
	switch {
	case o.mayNotReplay():
		return nil, wait
	case x == nil:
		return o.asked, wait
	}
	if early := time.Until(x.notBefore); early > 0 {
		return nil, min(wait, early)
	}
	if o.ready() {
		if free, freed := o.cfg.Turns.has(o.turns()); !free {
			return freed, wait
		}
	}
	if x.ahead == nil {
		return nil, wait
	}
	return x.ahead.ready, wait
}

// step compares what has been read, as much as fits, and mends it. It is a re-read
// of a range of its own: an owner that finds its intent finishes that range, and
// the request says what else is to be done.
func (o *Owner) step(ctx context.Context) error {
	x, turns := o.replay, o.turns()
	if !o.cfg.Turns.take(turns) {
		return nil // another was quicker
	}
	defer func() {
		if o.cfg.Turns.giveBack(turns) {
			x.notBefore = latest(x.notBefore, time.Now().Add(leaveIt))
		}
	}()
	if x.r.Wanted != nil && !x.r.Wanted() {
		o.dropReplay()
		return nil
	}
	x.p.Next, x.p.To = max(x.p.Next, o.start), min(x.r.To, o.next)
	err := o.stepOn(ctx, x)
	switch {
	case err != nil: // the run ends; the next goes on from here
		x.p.Err = err
		x.r.Report(x.p)
		x.p.Err = nil
		return err
	case x.p.Next >= x.p.To:
		x.p.Next, x.p.Done = x.p.To, true
		x.r.Report(x.p)
		o.logger.Info("read again", "from", x.r.From, "to", x.p.To, "records", x.p.Records, "rows_written", x.p.Written, "fates_written", x.p.Journaled)
		o.endReplay()
	case time.Since(x.told) >= tellEach:
		x.told = time.Now()
		x.r.Report(x.p)
	}
	return nil
}

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
	if err := o.gather(ctx, x); err != nil {
		return err
	}
	for len(x.pending) > 0 && x.pending[0].Offset < x.p.Next { // between two requests
		x.pending = x.pending[1:]
	}
	began, wrote := time.Now(), x.p.Written+x.p.Journaled
	n, err := o.mendPending(ctx, x)
	if err != nil {
		return err
	}
	x.ended = time.Now()
	x.took = x.ended.Sub(began)
	o.pace(x, n, x.p.Written+x.p.Journaled > wrote)
	if err := o.index.Take(ctx); err != nil { // it keeps to its budget only so
		o.logger.Warn("keys are asked of ClickHouse until they are loaded", "error", err)
	}
	return nil
}

// gather takes what has been read, as much as a step may have. While no live record
// is expected it waits a little for what is being read.
func (o *Owner) gather(ctx context.Context, x *replaying) error {
	var patience <-chan time.Time
	if !o.busy() {
		timer := time.NewTimer(stepIdle / 2)
		defer timer.Stop()
		patience = timer.C
	}
	for len(x.pending) < x.most && x.read < x.p.To && (patience != nil || x.ahead.has()) {
		select {
		case c, ok := <-x.ahead.chunks:
			if !ok {
				return fmt.Errorf("reading again from offset %d: %w", x.p.Next, x.ahead.err)
			}
			x.pending, x.read = append(x.pending, c.records...), c.end
		case <-patience:
			patience = nil
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
		if err := o.mend(ctx, b, &x.p, b.Last()+1, x.r.Only); err != nil {
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

// pace settles how large the next step is, and when it may be.
func (o *Owner) pace(x *replaying, n int, wrote bool) {
	aim, least := stepIdle, leastIdle
	if o.busy() {
		aim, least = stepBusy, leastBusy
	}
	if n > 0 {
		fits := int(float64(n) * float64(aim) / float64(max(x.took, time.Millisecond)))
		x.most = min(max(fits, least), max(2*max(x.most, n), least), o.cfg.Limits.Rows)
	}
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
