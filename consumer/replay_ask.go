package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"sluice/consumer/internal/replay"
)

const (
	// silence is after how long a command says that nobody answers it.
	silence = 20 * time.Second
	// askAtOnce is how many offsets an owner is asked for at a time while it has
	// something to do: enough for large INSERTs.
	askAtOnce = 40_000
)

// asking has the owners write what is missing of a replay's ranges, never past what
// was compared. If there are no owners, this process becomes the owner when something
// is found missing.
type asking struct {
	*running
	parent context.Context //nolint:containedctx // the run's: what starts here lasts beyond the comparison that it starts in
	found  []replay.Spans  // missing, and not asked for yet; under mu

	once   sync.Once
	failed error // why it could not begin
	asker  *replay.Asker
	owning context.Context //nolint:containedctx // ends when the owner in this process does
	done   func(error) error
	pauses map[int32]replay.Pause
	silent *time.Timer

	// written is what the owner of each open request says; progress's alone.
	written map[uuid.UUID]int
}

// begin makes sure that there are owners, and listens to them.
func (a *asking) begin() error {
	a.once.Do(func() {
		opts, control := a.cfg.Kafka.Options(a.log), a.cfg.Kafka.Control
		var orders replay.Orders
		if orders, a.failed = replay.Look(a.parent, opts, control); a.failed != nil {
			return
		}
		a.pauses = orders.Pauses
		if a.owning, a.done, a.failed = a.owned(a.parent); a.failed != nil {
			return
		}
		a.silent = time.AfterFunc(silence, a.waiting)
		var asker *replay.Asker
		if asker, a.failed = replay.NewAsker(a.owning, opts, control, a.progress); a.failed != nil {
			return
		}
		a.mu.Lock()
		a.asker = asker
		a.mu.Unlock()
	})
	return a.failed
}

// add takes what is missing of range i, up to where it was compared, and asks its
// owner for it: at once if it has nothing to do, else when there is enough. It waits
// while the owner has been asked for enough.
func (a *asking) add(ctx context.Context, i int, spans []replay.Span, last bool) error {
	a.mu.Lock()
	found := &a.found[i]
	for _, x := range spans {
		found.AddSpan(x)
	}
	all := found.All()
	a.mu.Unlock()
	for ; len(all) > 0; all = all[1:] {
		if err := a.begin(); err != nil {
			return err
		}
		x, p := all[0], a.ranges[i].Self.Partition
		if pause, paused := a.pauses[p]; paused {
			return fmt.Errorf("partition %d is %s; nothing is written there until \"consumer resume --partitions %d\"", p, pause, p)
		}
		if _, busy := a.asker.Undone(p); busy && !last && len(all) == 1 && x.To-x.From < askAtOnce {
			return nil
		}
		if err := a.ask(ctx, i, x); err != nil {
			return err
		}
		a.mu.Lock()
		found.Shift()
		a.mu.Unlock()
	}
	return nil
}

// ask asks the owner of range i to read x again. The request's name is made of what
// it asks for, so that one that is made twice is one.
func (a *asking) ask(ctx context.Context, i int, x replay.Span) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(a.owning, cancel)()
	self := a.ranges[i].Self
	a.silent.Reset(silence)
	return a.asker.Ask(ctx, replay.Request{
		Run: uuid.NewSHA1(a.op.ID, fmt.Appendf(nil, "%d:%d-%d", self.Partition, x.From, x.To)), Operation: a.op.ID,
		TopicID: self.TopicID, Partition: self.Partition, From: x.From, To: x.To,
		Filter: a.how.filter, Rate: a.how.rate / float64(len(a.ranges)), By: a.op.Who, At: time.Now().UTC(),
	})
}

// end waits until all that was asked is written. cause is why no more is asked.
func (a *asking) end(cause error) error {
	if a.done == nil {
		return cause
	}
	err := cause
	if a.asker != nil {
		if err == nil {
			err = a.asker.Wait(a.owning)
		}
		a.asker.Close()
	}
	a.silent.Stop()
	return a.done(err)
}

// undone is the first offset of range i that was asked for, or is to be, and is not
// written; the range's end if there is none.
func (a *asking) undone(i int) int64 {
	a.mu.Lock()
	next, asker := a.ranges[i].To, a.asker
	if found := a.found[i].All(); len(found) > 0 {
		next = found[0].From
	}
	a.mu.Unlock()
	if asker != nil {
		if open, ok := asker.Undone(a.ranges[i].Self.Partition); ok {
			next = min(next, open)
		}
	}
	return next
}

// waiting says that owners which have something to do have not answered for long.
func (a *asking) waiting() {
	for i, x := range a.ranges {
		if a.undone(i) < x.To {
			fmt.Fprintf(a.err, "the owner of partition %d has not answered for %s; \"consumer status\" shows what holds it up\n", x.Self.Partition, silence)
		}
	}
}

// progress takes an owner's answer.
func (a *asking) progress(r replay.Request, p replay.Progress) {
	a.silent.Reset(silence)
	if p.Error != "" {
		fmt.Fprintf(a.err, "partition %d: %s; it recovers and goes on\n", p.Partition, p.Error)
		return
	}
	n, before := p.Written+p.Journaled, a.written[r.Run]
	if n < before {
		before = 0 // an owner that took over counts from where it began
	}
	a.written[r.Run] = n
	if p.Done {
		delete(a.written, r.Run)
	}
	a.mu.Lock()
	for i := range a.results {
		if a.results[i].Partition == p.Partition {
			a.results[i].Written += n - before
		}
	}
	a.mu.Unlock()
	a.show()
}
