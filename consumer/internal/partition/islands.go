package partition

import (
	"context"

	"sluice/consumer/internal/intent"
	"sluice/consumer/internal/store"
)

// An island is a range that is journaled beyond a gap: ClickHouse lost a part of
// the journal. The gap is decided again by comparison, in batches that end where
// the island begins, so that no offset is in two batches.

// bridge tells that the next record lies in or past the first island, with none
// before it: the rest of the gap is markers.
func (o *Owner) bridge() bool {
	return len(o.islands) > 0 && len(o.pending) > 0 && o.pending[0].Offset >= o.islands[0].First
}

// pass goes over islands that have been reached. What is journaled in them
// stands; it is read again all the same, since whatever lost entries may have
// lost rows too.
func (o *Owner) pass(ctx context.Context) error {
	for len(o.islands) > 0 && (o.next >= o.islands[0].First || o.bridge()) {
		island := o.islands[0]
		if o.next < island.First {
			if err := o.empty(ctx, island.First); err != nil {
				return err
			}
		}
		o.islands = o.islands[1:]
		o.next = max(o.next, island.End)
		if err := o.serve(ctx, Reread{From: island.First, To: island.End}); err != nil {
			return err
		}
		pending := o.pending
		o.pending = nil
		o.take(pending)
	}
	return nil
}

// empty journals that no record lies before end.
func (o *Owner) empty(ctx context.Context, end int64) error {
	token := intent.Token(o.self.TopicID, o.cfg.Partition, o.next, end-1, "empty")
	err := o.store.Journal(ctx, token, o.cfg.Topic, o.self, []store.Entry{{Batch: true, Offset: o.next, Last: end - 1}})
	if err == nil {
		o.next = end
	}
	return err
}
