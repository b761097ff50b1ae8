package partition

import (
	"context"
	"errors"
	"time"

	"sluice/consumer/internal/batch"
)

// Live batches go first. A re-read that was asked for takes a step, one small
// batch, when no live record waits, while a live batch waits for more records, or
// when it has had less than a quarter of the time. A step is sized by what the
// last one took, so that a live record waits for little more than that; and one
// that comes, after a silence, before a step's intent is sent has it put off.
const (
	stepBusy  = 40 * time.Millisecond  // a step's aim while live records come
	stepIdle  = time.Second            // and, from its intent on, while none do
	busyFor   = 5 * time.Second        // how long after a live record others are expected
	leastBusy = 2_000                  // records of a step, at least: an INSERT costs by the month, not by the row
	leastIdle = 25_000                 // one of 10,000 costs ClickHouse near twice as much a row as one of 50,000
	firstRow  = 2_000                  // records of the first step while live records come
	share     = 3                      // after a step live batches have this many times what it took
	tellEach  = 200 * time.Millisecond // progress is told no more often
	patience  = 100 * time.Millisecond // how long a step that could be larger waits for what is being read
	// StepsAtOnce is how many steps the owners of one process take at a time, by
	// [Config.Turns].
	StepsAtOnce = 2
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
	read      int64   // the first offset not read
	most      int     // records of the next step
	pace      float64 // records a second of the last step; 0: there was none
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
	if before := o.replayed; before != nil {
		x.took, x.ended, x.notBefore = before.took, before.ended, before.notBefore
		if time.Since(before.ended) < busyFor {
			x.most, x.pace = before.most, before.pace
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
	x := o.replay
	if x.r.Wanted != nil && !x.r.Wanted() {
		o.dropReplay()
		return nil
	}
	x.p.Next, x.p.To = max(x.p.Next, o.start), min(x.r.To, o.next)
	err := o.stepOn(ctx, x)
	switch {
	case errors.Is(err, errPutOff):
		return nil
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
