package main

import (
	"context"
	"fmt"
	"time"

	"sluice/consumer/internal/intent"
	"sluice/consumer/internal/partition"
	"sluice/consumer/internal/verify"
)

// underWay are the commits of the group, by partition, that say that a batch is under
// way. An owner asks for tombstones when its intent stands, so what was decided
// without the latest has its intent among these. The journal's end tells of live
// batches when they are done, but not of ranges that are read again.
func (t *tools) underWay(ctx context.Context, ranges []verify.Range) (map[int32]partition.Where, error) {
	out := map[int32]partition.Where{}
	for _, r := range ranges {
		p := r.Self.Partition
		w, err := t.kafka.Where(ctx, p)
		if err != nil {
			return nil, err
		}
		in, ours, err := intent.Parse(w.Metadata)
		if err != nil {
			return nil, fmt.Errorf("partition %d: %w", p, err)
		}
		if !ours || in.Closed {
			continue
		}
		if in.Reread == 0 { // begun by an owner that was killed after it had finished, perhaps
			at := r.Self
			at.TopicID = in.TopicID
			seen, err := t.store.Seen(ctx, at)
			if err != nil {
				return nil, err
			}
			if seen.End > in.Last {
				continue
			}
		}
		out[p] = w
	}
	return out, nil
}

// ended returns when the batches that were under way are done: when other commits
// stand in their place.
func (t *tools) ended(ctx context.Context, under map[int32]partition.Where, deadline time.Time) error {
	for p, before := range under {
		for {
			now, err := t.kafka.Where(ctx, p)
			if err != nil {
				return err
			}
			if now.Committed != before.Committed || now.Metadata != before.Metadata {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("partition %d has a batch under way since before, from offset %d on: start a consumer, or wait until the one that has it goes on, and run this again", p, before.Committed)
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	return nil
}
