package partition

import (
	"context"

	"sluice/consumer/internal/intent"
	"sluice/consumer/internal/store"
)

// An island is a range that is journaled beyond a gap: ClickHouse lost a part of
// the journal. The gap is decided again by comparison, in batches that end where
// the island begins, so that no offset is in two batches.

// edge is where the next batch must end at the latest: where an island begins,
// or the range of an open intent that lies further on. -1: nowhere.
func (o *Owner) edge() int64 {
	at := int64(-1)
	if len(o.islands) > 0 {
		at = o.islands[0].First
	}
	if o.bound.First > o.next && o.bound.End > o.bound.First && (at < 0 || o.bound.First < at) {
		at = o.bound.First
	}
	return at
}

// bridge tells that the next record lies at the edge or past it, with none
// before: the rest of the gap is markers.
func (o *Owner) bridge() bool {
	edge := o.edge()
	return edge >= 0 && len(o.pending) > 0 && o.pending[0].Offset >= edge
}

// pass goes over islands that have been reached. What is journaled in them
// stands; it is read again all the same, since whatever lost entries may have
// lost rows too.
func (o *Owner) pass(ctx context.Context) error {
	for {
		if edge := o.edge(); o.bridge() && o.next < edge {
			if err := o.empty(ctx, edge); err != nil {
				return err
			}
		}
		if len(o.islands) == 0 || o.next < o.islands[0].First {
			return nil
		}
		island := o.islands[0]
		o.islands = o.islands[1:]
		o.next = max(o.next, island.End)
		if err := o.serve(ctx, Reread{From: island.First, To: island.End}); err != nil {
			return err
		}
		pending := o.pending
		o.pending = nil
		o.take(pending)
	}
}

// empty journals that no record lies before end.
func (o *Owner) empty(ctx context.Context, end int64) error {
	token := intent.Token(o.self.TopicID, o.cfg.Partition, o.next, end-1, "empty")
	err := o.note(ctx, token, o.self, []store.Entry{{Kind: store.Batch, Offset: o.next, Last: end - 1, Epoch: -1}})
	if err == nil {
		o.next = end
	}
	return err
}
