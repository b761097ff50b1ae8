package partition

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/failure"
	"sluice/consumer/internal/intent"
	"sluice/consumer/internal/mutant"
	"sluice/consumer/internal/store"
)

// live decides and writes the batch that follows the journal's end.
func (o *Owner) live(ctx context.Context, b *batch.Batch) error {
	if err := o.at(PointFetched); err != nil {
		return err
	}
	compare := b.First <= o.compareTo
	w := writing{b: b, first: b.First, in: o.horizon(intent.Of(b, o.self.TopicID, o.partitions)), compare: compare, live: true}
	if o.within() && b.First == o.bound.First && !o.begun.Begun(b) && !mutant.On("other-records-not-seen") {
		if err := o.cut(ctx, b.First, o.next, o.compareTo+1); err != nil {
			return err
		}
		return fmt.Errorf("%w: at offsets %d to %d stand other records than were begun", errAnew, b.First, w.in.Last)
	}
	if o.within() && !mutant.On("begun-under-another-hash") {
		// As it was begun, by whatever rules, and though its head be gone from the log:
		// whoever finds this intent seals the token that the INSERT goes under.
		w.in.Hash, w.in.Rules = o.begun.Hash, o.begun.Rules
		w.first = o.bound.First
	}
	if err := o.passed(ctx, b); err != nil {
		return err
	}
	s, err := o.write(ctx, &w)
	if err != nil {
		return err
	}
	o.next = w.in.Last + 1
	o.counted -= w.counted
	o.epoch, o.upTo = w.in.Epoch, o.next
	o.observe.Decided(o.cfg.Partition, s.standing, len(s.rows), o.next)
	return o.at(PointIndexed)
}

// horizon writes into an intent how far must be compared, where that is beyond
// it: the commit that told it is replaced by this one.
func (o *Owner) horizon(in intent.Intent) intent.Intent {
	if o.compareTo > in.Last && !mutant.On("horizon-forgotten") {
		in.CompareTo = o.compareTo
	}
	if len(o.segments) > 1 { // the edge asks for the topic's own id
		in.Topic = o.segments[0].id
	}
	return in
}

// writing is one batch on its way: a live one, or one that is read again.
type writing struct {
	b       *batch.Batch
	first   int64 // the offset that its intent is committed at
	in      intent.Intent
	compare bool                     // something of it may have been decided before
	live    bool                     // its range is to be journaled
	only    func(*batch.Record) bool // nil: all
	putOff  func() bool              // asked before the intent is sent; nil: it is sent
	refused int
	// claimed: the keys of its records, but for those left out, were claimed when they
	// were looked for last, in this round of the index; taken is what had rows.
	claimed bool
	round   int
	left    map[*batch.Record]dedup.Fate
	taken   map[uuid.UUID]dedup.First
	gone    Gone // what was known to be taken when it was decided
	// counted is how many records have no fate of their own since retention counted
	// them.
	counted int
	// journaled is how many fates were written.
	journaled int
	away      map[int64]bool // dead letters and forwards that are acknowledged
}

// write takes a batch through the protocol: decide, intent, dead letters and
// forwards, rows, journal. Where ClickHouse refuses rows, they become dead
// letters and the whole batch is decided again: a later record of the same key
// may be the row now.
func (o *Owner) write(ctx context.Context, w *writing) (sorted, error) {
	w.away = map[int64]bool{}
	token := o.token(w)
	for {
		decisions, err := o.decide(ctx, w)
		if err != nil {
			return sorted{}, err
		}
		if w.live {
			if err := o.leaveCounted(ctx, w, decisions); err != nil {
				return sorted{}, err
			}
		}
		if err := o.at(PointDecided); err != nil {
			return sorted{}, err
		}
		w.leave(decisions)
		s, lines := o.sort(w.b, decisions), o.entries(w, decisions)
		if !w.live && len(s.rows) == 0 && len(lines) == 0 {
			if !mutant.On("whole-range-not-remembered") {
				o.remember(w, s) // it may have been written after the index was loaded
			}
			return s, nil // a range read again of which nothing is missing
		}
		if w.refused == 0 && w.putOff != nil && w.putOff() {
			return s, errPutOff
		}
		if w.refused == 0 && !mutant.On("no-intent") && !mutant.On("intent-after-insert") {
			if err := o.intend(ctx, w.first, w.in); err != nil {
				return s, err
			}
			w.putOff = nil
			if ok, err := o.holds(ctx, w); err != nil {
				return s, err
			} else if !ok {
				continue
			}
		}
		if mutant.On("journal-before-rows") {
			if err := o.journal(ctx, token, w, s, lines); err != nil {
				return s, err
			}
		}
		if !mutant.On("letters-after-journal") {
			if err := o.sendAway(ctx, w, s); err != nil {
				return s, err
			}
		}
		if mutant.On("index-before-rows") {
			o.remember(w, s)
		}
		refused, err := o.rows(ctx, token, w, s.rows)
		if err != nil {
			return s, err
		}
		if len(refused) > 0 && !mutant.On("refused-not-decided-again") {
			if w.refused += len(refused); w.refused > mostRefused {
				return s, fmt.Errorf("%w: ClickHouse refuses more than %d rows of one batch, which is the table's fault rather than theirs; the last: %s",
					failure.ErrMend, mostRefused, refused[0].Detail)
			}
			if !mutant.On("refused-in-memory-alone") {
				if err := o.refuse(ctx, token, w, refused); err != nil {
					return s, err
				}
			}
			w.compare = true
			continue
		}
		if mutant.On("intent-after-insert") {
			if err := o.intend(ctx, w.first, w.in); err != nil {
				return s, err
			}
		}
		if err := o.journal(ctx, token, w, s, lines); err != nil {
			return s, err
		}
		if mutant.On("letters-after-journal") {
			if err := o.sendAway(ctx, w, s); err != nil {
				return s, err
			}
		}
		o.remember(w, s)
		return s, nil
	}
}

// refuse writes down that records became dead letters since ClickHouse refused
// their rows. It does so before anything is decided by it: once a later record of
// the key is the row, the next owner would take these for its conflicts.
func (o *Owner) refuse(ctx context.Context, token string, w *writing, refused []*batch.Record) error {
	if err := o.sendAway(ctx, w, sorted{dead: refused}); err != nil {
		return err
	}
	if err := o.fresh(ctx); err != nil {
		return err
	}
	lines := make([]store.Entry, len(refused))
	for i, r := range refused {
		lines[i] = entry(r, dedup.Decision{Fate: dedup.DeadLetter})
	}
	if err := o.at(PointJournal); err != nil {
		return err
	}
	if err := o.store.Journal(ctx, token, o.cfg.Topic, o.self, lines); err != nil {
		return err
	}
	w.journaled += len(lines)
	return o.at(PointJournaled)
}

// token names the batch's INSERT.
func (o *Owner) token(w *writing) string {
	switch {
	case mutant.On("no-token"):
		return uuid.NewString()
	case mutant.On("token-without-topic-id"):
		return intent.Token(uuid.Nil, o.cfg.Partition, w.b.First, w.in.Last, w.in.Hash)
	case mutant.On("token-without-hash"):
		return intent.Token(o.self.TopicID, o.cfg.Partition, w.b.First, w.in.Last, "")
	}
	if w.live && o.within() { // also when the head of the range is gone from the log: what seals it is its own
		return intent.Token(o.self.TopicID, o.cfg.Partition, o.bound.First, o.bound.End-1, o.begun.Hash)
	}
	return intent.Token(o.self.TopicID, o.cfg.Partition, w.b.First, w.in.Last, w.in.Hash)
}

// intend commits an intent. Until its answer is seen it counts as sent.
func (o *Owner) intend(ctx context.Context, first int64, in intent.Intent) error {
	if err := o.at(PointIntend); err != nil {
		return err
	}
	o.sent, o.answered = &sentIntent{first: first, in: in}, time.Time{}
	// Its age counts from here: a process may be frozen between the answer and
	// the reading of it.
	begun := time.Now()
	if err := o.log.Commit(ctx, first, in.Metadata()); err != nil {
		return fmt.Errorf("committing the intent %d to %d: %w", first, in.Last, err)
	}
	o.open, o.answered = true, begun
	return o.at(PointIntended)
}

// fresh makes sure, before anything is written, that the intent was not
// acknowledged too long ago. A process that was frozen may have lost the
// partition meanwhile: the broker refuses the repeated intent then. The wall
// clock is read too, since the monotonic one stops in some suspends.
func (o *Owner) fresh(ctx context.Context) error {
	if mutant.On("frozen-not-stopped") || o.sent == nil || !late(o.answered, time.Now(), o.cfg.IntentFresh) {
		return nil
	}
	if err := o.at(PointRenew); err != nil {
		return err
	}
	begun := time.Now()
	if err := o.log.Commit(ctx, o.sent.first, o.sent.in.Metadata()); err != nil {
		return fmt.Errorf("committing the intent %d to %d again: %w", o.sent.first, o.sent.in.Last, err)
	}
	o.answered = begun
	return o.at(PointRenewed)
}

func late(from, now time.Time, bound time.Duration) bool {
	return max(now.Sub(from), now.Round(0).Sub(from.Round(0))) > bound
}

// sendAway sends what does not stay here; it is acknowledged before the journal
// says so.
func (o *Owner) sendAway(ctx context.Context, w *writing, s sorted) error {
	dead, forward := w.pending(s.dead), w.pending(s.forward)
	if len(dead) > 0 {
		if err := o.at(PointLetters); err != nil {
			return err
		}
		if err := o.log.DeadLetter(ctx, o.self, dead); err != nil {
			return fmt.Errorf("writing %d dead letters: %w", len(dead), err)
		}
		if err := o.at(PointLettered); err != nil {
			return err
		}
	}
	if len(forward) > 0 {
		if err := o.at(PointForward); err != nil {
			return err
		}
		if err := o.log.Forward(ctx, o.self, forward); err != nil {
			return fmt.Errorf("forwarding %d records: %w", len(forward), err)
		}
		if err := o.at(PointForwarded); err != nil {
			return err
		}
	}
	for _, r := range append(dead, forward...) {
		w.away[r.Offset] = true
	}
	return nil
}

// pending are those of records that have not been sent away yet.
func (w *writing) pending(records []*batch.Record) []*batch.Record {
	var out []*batch.Record
	for _, r := range records {
		if !w.away[r.Offset] {
			out = append(out, r)
		}
	}
	return out
}

// journal writes the batch's fates and, of a live one, that its range is done.
func (o *Owner) journal(ctx context.Context, token string, w *writing, s sorted, lines []store.Entry) error {
	fates := len(lines)
	if w.live {
		lines = append(lines, store.Entry{
			Kind: store.Batch, Offset: w.b.First, Last: w.in.Last, Records: uint64(len(w.b.Records)), Rows: uint64(s.standing[dedup.Row]),
			Hash: w.b.Hash(), Epoch: w.in.Epoch,
		})
	}
	if len(lines) == 0 {
		return nil
	}
	if err := o.fresh(ctx); err != nil {
		return err
	}
	if err := o.at(PointJournal); err != nil {
		return err
	}
	w.journaled += fates
	if err := o.store.Journal(ctx, token, o.cfg.Topic, o.self, lines); err != nil {
		return err
	}
	return o.at(PointJournaled)
}

// leave makes the decisions of records that are not meant ones of which nothing is
// written. They are made all the same: the batch, its token and its intent are
// those of the whole range, so that whoever finds the intent seals that token.
func (w *writing) leave(decisions []dedup.Decision) {
	for i := range decisions {
		if w.only != nil && !w.only(w.b.Records[i]) {
			decisions[i] = dedup.Decision{Stands: true}
		}
	}
}
