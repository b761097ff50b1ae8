package partition

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/failure"
	"sluice/consumer/internal/index"
	"sluice/consumer/internal/intent"
	"sluice/consumer/internal/mutant"
	"sluice/consumer/internal/store"
	"sluice/schemas/topic"
)

// recover finds where to start: at the journal's contiguous end, with whatever
// an earlier owner left open stopped and marked for comparison. The group's
// commit is a hint, never proof.
func (o *Owner) recover(ctx context.Context) error {
	o.open, o.bound, o.read, o.counted = false, store.Range{}, 0, -1
	if o.cfg.Before != nil {
		if err := o.cfg.Before(ctx); err != nil {
			return fmt.Errorf("%w: %w", failure.ErrMend, err)
		}
	}
	w, err := o.log.Where(ctx)
	if err != nil {
		return err
	}
	o.start = w.Start
	o.topicID, o.self = w.TopicID, topic.Origin{TopicID: w.TopicID, Partition: o.cfg.Partition}
	in, ours, err := o.found(w)
	if err != nil {
		return err
	}
	seen, err := o.seen(ctx, w)
	if err != nil {
		return err
	}
	if ours {
		if err := o.shortened(ctx, w, in, seen); err != nil {
			return err
		}
	}
	if begin := max(w.Start, o.from()); seen.End >= 0 && seen.First > begin {
		// The log goes back further than the journal: its beginning was lost,
		// and the first range is an island too.
		seen.Islands = append([]store.Range{{First: seen.First, End: seen.End}}, seen.Islands...)
		seen.End, seen.Beyond = begin, max(seen.Beyond, seen.First-1)
	}
	o.next, o.compareTo, o.islands = max(seen.End, 0), seen.Beyond, seen.Islands
	o.torn = o.tears(w, in, ours, seen.Beyond)
	if len(o.islands) > 0 {
		o.logger.Warn("the journal has a gap: deciding it again, by comparison", "from", o.next, "to", o.islands[0].First)
	}
	o.count(w, in, ours)
	o.decoder = batch.NewDecoder(o.partitions)
	if err := o.barrier(ctx, w, o.next); err != nil {
		return err
	}
	if seen.End < 0 {
		o.next = max(w.Start, o.from())
		if ours && in.TopicID == o.self.TopicID && w.Committed < o.next {
			o.next = max(w.Committed, o.from()) // begun, then deleted from the log: that is lost
		}
	}
	if mutant.On("start-at-commit") && w.Committed >= 0 {
		o.next = w.Committed
	}
	if mutant.On("jump-taken-for-done") && w.Committed > o.next {
		o.next = w.Committed
	}
	for o.next < w.Start { // the log no longer has what comes next, be it journaled further on or not
		last := w.Start - 1
		if len(o.islands) > 0 {
			last = min(last, o.islands[0].First-1)
		}
		if err := o.lost(ctx, o.next, last); err != nil {
			return err
		}
		if len(o.islands) > 0 && o.islands[0].First == o.next {
			o.next, o.islands = o.islands[0].End, o.islands[1:]
		}
	}
	o.expect(w, in, ours)
	o.load(ctx)
	if w.Committed > o.next {
		o.logger.Warn("the group's offset lies past what ClickHouse has: going back to the journal's end", "committed", w.Committed, "journal_end", o.next)
		if !ours {
			o.happened(Event{Kind: JumpNotFollowed, From: o.next, To: w.Committed, Progress: Progress{Done: true}})
		}
	}
	if err := o.goBack(ctx, w, in, ours); err != nil {
		return err
	}
	if err := o.passUnreadable(ctx); err != nil {
		return err
	}
	reader, err := o.log.Open(o.next)
	if err != nil {
		return err
	}
	o.ahead = readAhead(ctx, reader, batch.NewDecoder(o.partitions))
	o.logger.Info("owning the partition", "from", o.next, "compare_to", o.compareTo, "log_end", w.End)
	return nil
}

// tears tells whether the journal has lost ranges, or may have: it has a gap; or it ends
// before the group's commit, before what the commit says was written once (the intents of
// who began to decide it again carry that on), or before rows and fates that lie in no
// open intent's range.
func (o *Owner) tears(w Where, in intent.Intent, ours bool, beyond int64) bool {
	carried, begun := int64(-1), o.next-1
	if ours && in.CompareTo > in.Last {
		carried = in.CompareTo
	}
	if ours && in.TopicID == o.self.TopicID && !in.Closed {
		begun = max(begun, in.Last)
	}
	return len(o.islands) > 0 || w.Committed > o.next || carried >= o.next || beyond > begun
}

// count settles by how many partitions is decided: the topic's, but for the range
// of an intent that was begun by fewer and is not journaled. Were it decided by
// the new count, all its rows might be forwarded; nothing would be written under
// its token then, and a late copy of its INSERT would be stored.
func (o *Owner) count(w Where, in intent.Intent, ours bool) {
	o.partitions, o.grown = w.Partitions, false
	older := func(first int64, in intent.Intent) {
		if in.TopicID == o.self.TopicID && !in.Closed && o.unjournaled(first, in) && in.Partitions > 0 && in.Partitions < o.partitions {
			o.partitions, o.grown = in.Partitions, true
		}
	}
	if ours {
		older(w.Committed, in)
	}
	if o.sent != nil && o.answered.IsZero() {
		older(o.sent.first, o.sent.in)
	}
	if mutant.On("open-intent-by-new-count") {
		o.partitions, o.grown = w.Partitions, false
	}
}

// found reads the group's commit. What may be under way by rules we don't know
// must not be joined.
func (o *Owner) found(w Where) (in intent.Intent, ours bool, err error) {
	in, ours, err = intent.Parse(w.Metadata)
	switch {
	case errors.Is(err, intent.ErrNewer):
		return in, false, fmt.Errorf("offset %d of the group: %w", w.Committed, err)
	case err != nil:
		// Cut short, or written over. Every statement of the partition is ended
		// before anything is compared, so nothing is lost by not knowing it.
		o.logger.Warn("an unreadable commit counts as none of ours", "error", err)
		return intent.Intent{}, false, nil
	}
	return in, ours, nil
}

// seen asks what ClickHouse has of the log, following it over its cuts, once no
// statement of it runs any more.
func (o *Owner) seen(ctx context.Context, w Where) (store.Seen, error) {
	var none store.Seen
	if err := o.follow(ctx); err != nil {
		return none, err
	}
	for _, s := range o.segments {
		if mutant.On("no-stop") {
			break
		}
		if err := o.store.Stop(ctx, topic.Origin{TopicID: s.id, Partition: o.cfg.Partition}); err != nil {
			return none, err
		}
	}
	seen, err := o.store.Seen(ctx, o.self)
	if err != nil || seen.End < 0 && len(o.segments) == 1 {
		return seen, err
	}
	if seen.End < 0 { // nothing is journaled since the log was cut
		seen.First, seen.End = o.from(), o.from()
	}
	at, whole, err := o.uncut(ctx, w.End, seen.End)
	if err != nil || whole {
		return seen, err
	}
	if err := o.cut(ctx, at, seen.End, seen.Beyond+1); err != nil {
		return none, err
	}
	return none, fmt.Errorf("%w: the log was cut at offset %d", errAnew, at)
}

// shortened cuts the log at an open intent whose range is no longer all there:
// the leader epoch of its last record ended before it. The records that are left
// of it are decided under the log's next id.
func (o *Owner) shortened(ctx context.Context, w Where, in intent.Intent, seen store.Seen) error {
	at := w.Committed
	if in.Closed || in.Reread > 0 || in.TopicID != o.self.TopicID || in.Epoch < 0 || at < o.from() || seen.End >= 0 && seen.End != at {
		return nil
	}
	end, known, err := o.log.EpochEnd(ctx, in.Epoch)
	if err != nil || !known || end > in.Last {
		return err
	}
	if err := o.cut(ctx, at, at, max(seen.Beyond, in.Last)+1); err != nil {
		return err
	}
	return fmt.Errorf("%w: the log was cut at offset %d, in the range of an open intent", errAnew, end)
}

// expect sets what must be compared, and which range was begun.
func (o *Owner) expect(w Where, in intent.Intent, ours bool) {
	// What was written before and then deleted has left its tokens behind, and
	// a block under one of them is dropped. So what may have been written is
	// compared afterwards: all before the commit and what it says itself, or,
	// where there is none or none of ours, all there is.
	if (w.Committed < 0 || !ours) && !mutant.On("foreign-trusted") {
		o.compareTo = max(o.compareTo, w.End-1)
	}
	if ours {
		o.compareTo = max(o.compareTo, min(in.CompareTo, w.End-1))
	}
	o.compareTo = max(o.compareTo, min(w.Committed, w.End)-1)
	if mutant.On("changed-intent") {
		return
	}
	if ours && in.TopicID == o.self.TopicID && !in.Closed {
		o.open = true
		o.bind(w.Committed, in)
	}
	// Sent and not answered: it stands in the group, or arrives there yet.
	if o.sent != nil && o.answered.IsZero() && o.sent.in.TopicID == o.self.TopicID && !mutant.On("unanswered-forgotten") {
		o.bind(o.sent.first, o.sent.in)
	}
}

// bind makes an intent's range, where it is not journaled, a batch of its own.
func (o *Owner) bind(first int64, in intent.Intent) {
	if o.unjournaled(first, in) {
		o.bound, o.begun = store.Range{First: first, End: in.Last + 1}, in
		o.compareTo = max(o.compareTo, in.Last)
	}
}

// unjournaled tells that nothing of an intent's range is journaled.
func (o *Owner) unjournaled(first int64, in intent.Intent) bool {
	if in.Reread > 0 || in.Last < o.next {
		return false
	}
	for _, island := range o.islands {
		if first < island.End && in.Last >= island.First {
			return false
		}
	}
	return true
}

// goBack reads a journaled range again where the group's offset asks for it:
// an operator set it back, or an owner died while it did this.
func (o *Owner) goBack(ctx context.Context, w Where, in intent.Intent, ours bool) error {
	to, last, kind := o.next, int64(0), TakenOver
	switch {
	case w.Committed < 0 || w.Committed >= o.next:
		return nil
	case !ours:
		kind = SetBack
		o.logger.Info("the group's offset was set back: comparing again from there", "committed", w.Committed, "journal_end", o.next)
	case o.knows(in.TopicID) && in.Reread > 0 && !in.Closed:
		to, last = min(in.Reread, o.next), in.Last
	default:
		return nil
	}
	from := max(w.Committed, w.Start)
	told := func(p Progress) { o.happened(Event{Kind: kind, From: from, To: to, Progress: p}) }
	if err := o.serve(ctx, Reread{From: from, To: to, Last: last, Report: told}); err != nil {
		return err
	}
	o.open = true // a closing commit of ours takes the place of what stands there
	return nil
}

// knows tells whether id is of this partition's log, as it is or was.
func (o *Owner) knows(id uuid.UUID) bool {
	return slices.ContainsFunc(o.segments, func(s segment) bool { return s.id == id })
}

// load opens the index, which loads what ClickHouse has of recent keys beside
// the work. No statement of an earlier owner runs any more.
func (o *Owner) load(ctx context.Context) {
	partition, count := o.cfg.Partition, o.partitions
	o.index = index.New(index.Config{
		Source: func(ctx context.Context, from, to time.Time, add func(int32, uuid.UUID)) error {
			return o.store.Keys(ctx, from, to, partition, count, add)
		},
		Budget: o.cfg.Index, Live: o.cfg.IndexLive,
		Now: time.Now(), // which keys are in memory decides nothing, so our clock may choose
	})
	if err := o.index.Take(ctx); err != nil {
		o.logger.Warn("keys are asked of ClickHouse until they are loaded", "error", err)
	}
}
