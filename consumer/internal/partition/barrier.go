package partition

import (
	"context"
	"fmt"

	"sluice/consumer/internal/intent"
	"sluice/consumer/internal/mutant"
	"sluice/consumer/internal/store"
	"sluice/schemas/topic"
)

// barrier holds the owner back until no other decides by an older partition
// count: keys move when partitions are added, and two owners of one key would
// make two rows of it. It writes its own barrier before it reads the others', as
// they do, so that of two owners at least one sees the other. from is the first
// offset that the new count decides.
func (o *Owner) barrier(ctx context.Context, w Where, from int64) error {
	if o.grown || mutant.On("no-barrier") {
		return nil // what was begun by fewer partitions is finished first, while the others wait
	}
	topicID := o.topicID
	known, err := o.store.Barriers(ctx, topicID)
	if err != nil {
		return err
	}
	if known[o.cfg.Partition] < o.partitions {
		// Only the partition's owner may say so: a member that was frozen
		// since it asked for the count is refused here.
		if w.Committed >= 0 {
			if err := o.at(PointClaim); err != nil {
				return err
			}
			if err := o.log.Commit(ctx, w.Committed, w.Metadata); err != nil {
				return fmt.Errorf("claiming partition %d: %w", o.cfg.Partition, err)
			}
			if err := o.at(PointClaimed); err != nil {
				return err
			}
		}
		n := int64(o.partitions)
		self := o.self
		self.TopicID = topicID
		err := o.note(ctx, intent.Token(topicID, o.cfg.Partition, n, n, "barrier"), self,
			[]store.Entry{{Kind: store.Barrier, Offset: n, Last: n, Epoch: -1, First: topic.Origin{TopicID: o.self.TopicID, Partition: o.cfg.Partition, Offset: from}}})
		if err != nil {
			return err
		}
		if known, err = o.store.Barriers(ctx, topicID); err != nil {
			return err
		}
	}
	older := int32(0)
	for _, n := range known {
		if n > o.partitions {
			return fmt.Errorf("partition %d decides by a topic of %d partitions, and the broker says %d: its metadata are old", o.cfg.Partition, n, o.partitions)
		}
		if n < o.partitions {
			older = max(older, n)
		}
	}
	for p := range older {
		if known[p] < o.partitions {
			return fmt.Errorf("partitions were added: waiting until partition %d decides by %d partitions too; its owner says so as soon as it runs", p, o.partitions)
		}
	}
	return nil
}
