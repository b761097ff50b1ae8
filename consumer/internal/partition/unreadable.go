package partition

import (
	"context"

	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/intent"
	"sluice/consumer/internal/store"
)

// lost journals that the log no longer has what would have come next.
func (o *Owner) lost(ctx context.Context, first, last int64) error {
	return o.without(ctx, first, last, dedup.Lost, "deleted from the log before it was read")
}

// passUnreadable passes over what an operator wants skipped and the log can't give.
func (o *Owner) passUnreadable(ctx context.Context) error {
	if !o.unreadable || o.cfg.SkippedTo == nil || o.within() {
		return nil
	}
	to, reason := o.cfg.SkippedTo(o.self.TopicID, o.next)
	if edge := o.edge(); edge >= 0 {
		to = min(to, edge)
	}
	if to <= o.next {
		return nil
	}
	o.unreadable = false
	return o.without(ctx, o.next, to-1, dedup.Skipped, reason)
}

// without journals a range of which no record is read. What of it became a row, or
// has a fate, before its batch was journaled keeps that.
func (o *Owner) without(ctx context.Context, first, last int64, fate dedup.Fate, detail string) error {
	rows, err := o.store.RowsIn(ctx, o.self, first, last)
	if err != nil {
		return err
	}
	fates, err := o.store.FatesIn(ctx, o.self, first, last)
	if err != nil {
		return err
	}
	seen := len(rows)
	for offset := range fates {
		if _, row := rows[offset]; !row {
			seen++
		}
	}
	all := uint64(last - first + 1)
	left, err := o.countedLeft(ctx)
	if err != nil {
		return err
	}
	counted := min(left, int(all)-seen)
	entries := make([]store.Entry, 0, 2)
	if n := all - uint64(seen+counted); n > 0 {
		if fate == dedup.Lost {
			o.logger.Error("records are lost: the log no longer has them and ClickHouse never had", "first", first, "last", last, "records", n)
		} else {
			o.logger.Warn("records are skipped unread", "first", first, "last", last, "records", n, "reason", detail)
		}
		// At the range's last offset that has no fate: an entry's place is its
		// own, and of two at one place only the first stands.
		at := first
		for _, taken := fates[at]; taken && at < last; _, taken = fates[at] {
			at++
		}
		entries = append(entries, store.Entry{Offset: at, Last: last, Fate: fate, Records: n, Epoch: -1, Detail: detail})
	}
	entries = append(entries, store.Entry{Kind: store.Batch, Offset: first, Last: last, Records: all, Rows: uint64(len(rows)), Epoch: -1})
	token := intent.Token(o.self.TopicID, o.cfg.Partition, first, last, string(fate))
	if err := o.note(ctx, token, o.self, entries); err != nil {
		return err
	}
	o.next = last + 1
	o.counted -= counted
	return nil
}
