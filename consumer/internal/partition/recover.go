package partition

import (
	"context"
	"fmt"
	"time"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/index"
	"sluice/consumer/internal/intent"
	"sluice/consumer/internal/store"
	"sluice/schemas/topic"
)

// recover finds where to start: at the journal's contiguous end, with whatever
// an earlier owner left open stopped and marked for comparison. The group's
// commit is a hint, never proof.
func (o *Owner) recover(ctx context.Context) error {
	o.open, o.cap = false, -1
	w, err := o.log.Where(ctx)
	if err != nil {
		return err
	}
	o.self = topic.Origin{TopicID: w.TopicID, Partition: o.cfg.Partition}
	o.partitions = w.Partitions
	o.decoder = batch.NewDecoder(w.Partitions)

	in, ours, err := intent.Parse(w.Metadata)
	if err != nil {
		o.logger.Warn("an unreadable commit counts as none of ours", "error", err)
	}
	if ours && in.TopicID == w.TopicID && !in.Closed {
		token := intent.Token(w.TopicID, o.cfg.Partition, w.Committed, in.Last, in.Hash)
		if err := o.store.Stop(ctx, token); err != nil {
			return err
		}
		o.open = true
	}
	// Asked after the statement is gone: it can't write behind our back.
	seen, err := o.store.Seen(ctx, o.self)
	if err != nil {
		return err
	}
	o.next, o.compareTo, o.islands = max(seen.End, 0), seen.Beyond, seen.Islands
	if len(o.islands) > 0 {
		o.logger.Warn("the journal has a gap: deciding it again, by comparison", "from", o.next, "to", o.islands[0].First)
	}
	if seen.End < 0 {
		o.next = w.Start
	}
	if o.next > w.End {
		return fmt.Errorf("the log ends at offset %d but the journal at %d: records that were decided are gone from it; check the topic for an unclean leader election or a restored broker", w.End, o.next)
	}
	if o.next < w.Start {
		if err := o.lost(ctx, o.next, w.Start-1); err != nil {
			return err
		}
	}
	if o.open && w.Committed == o.next && in.Last >= o.next {
		o.cap, o.compareTo = in.Last, max(o.compareTo, in.Last)
	}
	if o.sent != nil && o.sent.first == o.next {
		o.cap, o.compareTo = o.sent.in.Last, max(o.compareTo, o.sent.in.Last)
	}
	if err := o.load(ctx); err != nil {
		return err
	}
	// What was written before and then deleted has left its tokens behind, and
	// a block under one of them is dropped. So what may have been written is
	// compared afterwards: all before the commit, or, without one, all there is.
	if w.Committed < 0 {
		o.compareTo = max(o.compareTo, w.End-1)
	}
	o.compareTo = max(o.compareTo, min(w.Committed, w.End)-1)
	if w.Committed > o.next {
		o.logger.Warn("the group's offset lies past what ClickHouse has: going back to the journal's end", "committed", w.Committed, "journal_end", o.next)
	}
	if err := o.goBack(ctx, w, in, ours); err != nil {
		return err
	}
	reader, err := o.log.Open(o.next)
	if err != nil {
		return err
	}
	o.ahead = readAhead(ctx, reader, batch.NewDecoder(o.partitions))
	o.logger.Info("owning the partition", "from", o.next, "compare_to", o.compareTo, "log_end", w.End, "keys_in_memory", o.index.Keys())
	return nil
}

// goBack reads a journaled range again where the group's offset asks for it:
// an operator set it back, or an owner died while it did this.
func (o *Owner) goBack(ctx context.Context, w Where, in intent.Intent, ours bool) error {
	to := o.next
	switch {
	case w.Committed < 0 || w.Committed >= o.next:
		return nil
	case !ours:
		o.logger.Info("the group's offset was set back: comparing again from there", "committed", w.Committed, "journal_end", o.next)
	case in.TopicID == w.TopicID && in.Reread > 0 && !in.Closed:
		to = min(in.Reread, o.next)
	default:
		return nil
	}
	if err := o.serve(ctx, Reread{From: max(w.Committed, w.Start), To: to}); err != nil {
		return err
	}
	o.open = true // a closing commit of ours takes the place of what stands there
	return nil
}

// load fills the index with what ClickHouse has of recent keys.
func (o *Owner) load(ctx context.Context) error {
	// Which keys are kept in memory decides nothing, so our clock may choose.
	o.index = index.New(time.Now().Add(-o.cfg.IndexAge), o.cfg.IndexKeys)
	return o.store.Since(ctx, o.index.Floor(), o.cfg.Partition, o.partitions, o.index.Add)
}

// lost journals that the log no longer has what would have come next.
func (o *Owner) lost(ctx context.Context, first, last int64) error {
	n := uint64(last - first + 1)
	o.logger.Error("records are lost: the log no longer has them and ClickHouse never had", "first", first, "last", last)
	entries := []store.Entry{
		{Offset: first, Last: last, Fate: dedup.Lost, Records: n, Detail: "deleted from the log before it was read"},
		{Batch: true, Offset: first, Last: last, Records: n},
	}
	token := intent.Token(o.self.TopicID, o.cfg.Partition, first, last, "lost")
	if err := o.store.Journal(ctx, token, o.cfg.Topic, o.self, entries); err != nil {
		return err
	}
	o.next = last + 1
	return nil
}
