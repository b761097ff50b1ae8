package partition

import (
	"context"
	"time"
)

// EventKind is what an owner tells operators of.
type EventKind string

// The kinds of events.
const (
	// SetBack: the group's offset was set back by someone else, and From to To
	// is read again. It is told after each batch, and with Done at the end.
	SetBack EventKind = "offsets set back"
	// TakenOver: an owner ended while it read a range again, which this one
	// finishes.
	TakenOver EventKind = "re-read taken over"
	// JumpNotFollowed: someone set the group's offset to To, past the journal's
	// end From, which is gone on from.
	JumpNotFollowed EventKind = "jump not followed"
	// Paused: the partition does not move, for Reason; "": it does again.
	Paused EventKind = "paused"
)

// Event is something that operators want to know of a partition.
type Event struct {
	Partition int32
	Kind      EventKind
	From, To  int64
	Progress  Progress
	Reason    string
}

func (o *Owner) happened(e Event) {
	if o.cfg.Happened != nil {
		e.Partition = o.cfg.Partition
		o.cfg.Happened(e)
	}
}

// hold waits while an operator wants the partition not to move; what was begun is
// closed first. over tells that the incarnation ended meanwhile.
func (o *Owner) hold(ctx context.Context, stop <-chan struct{}) (over bool, err error) {
	if o.cfg.Paused == nil {
		return false, nil
	}
	told := ""
	for {
		reason, changed := o.cfg.Paused()
		if reason != told {
			o.happened(Event{Kind: Paused, Reason: reason})
			told = reason
		}
		if reason == "" {
			return false, nil
		}
		if o.ahead != nil && !o.within() {
			if err := o.close(ctx); err != nil {
				return false, err
			}
		}
		select {
		case <-ctx.Done():
			return true, ctx.Err()
		case <-stop:
			return true, nil
		case <-changed:
		case <-time.After(time.Minute):
		}
	}
}
