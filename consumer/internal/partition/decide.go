package partition

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/index"
	"sluice/consumer/internal/mutant"
)

// decide applies the rule. Where w is to be compared it asks first what has been
// decided already. The decisions stand until the next batch is decided.
func (o *Owner) decide(ctx context.Context, w *writing) ([]dedup.Decision, error) {
	b := w.b
	known, err := o.known(ctx, w)
	if err != nil {
		return nil, err
	}
	open := make([]*batch.Record, 0, len(b.Records))
	gone := map[*batch.Record]dedup.Fate{}
	for _, r := range b.Records {
		if r.Reason != "" || r.Home != o.cfg.Partition && !mutant.On("misplaced-decided-in-place") || decided(r, &known) {
			continue
		}
		if w.gone != nil {
			if fate, taken := w.gone.Fate(&r.Event); taken { // whatever is known of its key
				gone[r] = fate
				continue
			}
		}
		open = append(open, r)
	}
	known.Gone = func(r *batch.Record) (dedup.Fate, bool) {
		fate, taken := gone[r]
		return fate, taken
	}
	looked := w.claimed && !w.compare // then what was found stands: nothing was written since
	for r := range w.left {
		_, still := gone[r]
		looked = looked && still
	}
	if !looked {
		if w.taken, err = o.taken(ctx, w, open); err != nil {
			return nil, err
		}
		w.left = gone
	}
	known.First = func(r *batch.Record) (dedup.First, bool) {
		f, ok := w.taken[r.ID]
		return f, ok
	}
	if w.claimed {
		known.Repeats = &o.repeats
	}
	o.decisions = dedup.Decide(o.decisions, b.Records, o.self, known)
	return o.decisions, nil
}

// known is what is known of a batch but for its keys.
func (o *Owner) known(ctx context.Context, w *writing) (dedup.Known, error) {
	b, known := w.b, dedup.Known{Counted: !w.live}
	if o.cfg.Gone != nil {
		gone, err := o.cfg.Gone(ctx)
		if err != nil {
			return known, err
		}
		w.gone, known.Gone = gone, func(r *batch.Record) (dedup.Fate, bool) { return gone.Fate(&r.Event) }
	}
	if w.compare && !mutant.On("no-comparison") {
		var err error
		if known.Rows, err = o.store.RowsIn(ctx, o.self, b.First, b.Last()); err != nil {
			return known, err
		}
		if known.Fates, err = o.store.FatesIn(ctx, o.self, b.First, b.Last()); err != nil {
			return known, err
		}
	}
	if o.cfg.SkippedTo != nil {
		known.Skipped = func(offset int64) bool {
			to, _ := o.cfg.SkippedTo(o.self.TopicID, offset)
			return offset < to
		}
	}
	return known, nil
}

// holds tells whether nothing was taken on purpose since the batch was decided. It is
// asked when the intent stands: who takes waits for the intents that stand when all
// know of it, so whatever is written by an older decision is waited for.
func (o *Owner) holds(ctx context.Context, w *writing) (bool, error) {
	if o.cfg.Gone == nil || mutant.On("taken-meanwhile-not-seen") {
		return true, nil
	}
	gone, err := o.cfg.Gone(ctx)
	return gone == w.gone, err
}

// askFirst is how many keys of a range read again ClickHouse is asked for first,
// where many are to be asked for. If it has few of them, the index is loaded anew.
const askFirst = 5_000

// loadWait is how long is waited for the index where so many keys would have to be
// asked for. It is a variable for tests.
var loadWait = 200 * time.Millisecond

// taken are the keys of records that have rows. Those of a live batch are claimed, unless
// some of it may be decided already: rows that stand are not among records, and what
// repeats them would seem to come for the first time.
func (o *Owner) taken(ctx context.Context, w *writing, records []*batch.Record) (map[uuid.UUID]dedup.First, error) {
	again, taken := !w.live, map[uuid.UUID]dedup.First{}
	look := func(records []*batch.Record) []*batch.Record { return o.look(records, taken) }
	if w.claimed = w.live && (!w.compare || mutant.On("claims-beside-what-stands")); w.claimed {
		o.repeats, w.round = dedup.Repeats{}, o.index.Round()
		look = func(records []*batch.Record) []*batch.Record { return o.claim(records, taken) }
	}
	ask := look(records)
	if len(ask) >= askFirst && o.index.Stats().Loading {
		// The first batches of a backlog, mostly: to ask for so many keys takes
		// longer than most loads do.
		if err := o.await(ctx); err != nil {
			return nil, err
		}
		ask = look(ask)
	}
	for len(ask) > 0 {
		now := ask
		if again && len(ask) > 2*askFirst {
			now, again = ask[:askFirst], false
		}
		ask = ask[len(now):]
		stored, err := o.store.FirstOf(ctx, now)
		if err != nil {
			return nil, err
		}
		for id, first := range stored {
			taken[id] = first
			o.index.Note(id, first)
		}
		stale := false
		for _, r := range now {
			if _, ok := stored[r.ID]; !ok {
				stale = o.index.Gone(r.Event.OccurredAt, r.ID) || stale
			}
		}
		if stale && len(ask) > 0 {
			if err := o.reload(ctx); err != nil {
				return nil, err
			}
			ask = look(ask)
		}
	}
	return taken, nil
}

// reload has the index loaded, and waits a little for it.
func (o *Owner) reload(ctx context.Context) error {
	if err := o.index.Take(ctx); err != nil {
		o.logger.Warn("keys are asked of ClickHouse until they are loaded", "error", err)
	}
	return o.await(ctx)
}

// await waits a little for the load under way.
func (o *Owner) await(ctx context.Context) error {
	bound, cancel := context.WithTimeout(ctx, loadWait)
	defer cancel()
	if err := o.index.Wait(bound); err != nil && bound.Err() == nil {
		o.logger.Warn("keys are asked of ClickHouse until they are loaded", "error", err)
	}
	return ctx.Err()
}

// look asks the index, puts what it has into taken, and returns the records, one a
// key, of which it can't tell.
func (o *Owner) look(records []*batch.Record, taken map[uuid.UUID]dedup.First) (ask []*batch.Record) {
	asked := map[uuid.UUID]struct{}{}
	o.index.Look(records, func(r *batch.Record, first dedup.First, answer index.Answer) {
		switch answer {
		case index.Taken:
			taken[r.ID] = first
		case index.Ask:
			if _, ok := asked[r.ID]; !ok {
				asked[r.ID] = struct{}{}
				ask = append(ask, r)
			}
		case index.Free:
		}
	})
	return ask
}

// claim is look for records that are about to be written, each key of which it takes.
// A key that an earlier record has taken has no row yet, and needs no asking for: what
// comes of the two is for the rule to say. They are noted as repeats.
func (o *Owner) claim(records []*batch.Record, taken map[uuid.UUID]dedup.First) (ask []*batch.Record) {
	asked := map[uuid.UUID]*batch.Record{}
	claimed := 0
	o.index.Claim(records, func(r *batch.Record, first dedup.First, answer index.Answer) {
		switch answer {
		case index.Free:
			claimed++
			return
		case index.Taken:
			taken[r.ID] = first
		case index.Ask:
			if asked[r.ID] == nil {
				asked[r.ID] = r
				ask = append(ask, r)
			}
		}
		if !mutant.On("repeats-not-noted") {
			o.repeats.Note(r.ID)
		}
	})
	if claimed == 0 || len(ask) == 0 {
		return ask
	}
	for _, r := range records {
		if o.repeats.May(r.ID) {
			if q := asked[r.ID]; q != nil && r != q && r.Offset < q.Offset {
				delete(asked, r.ID) // r has taken it
			}
		}
	}
	return slices.DeleteFunc(ask, func(r *batch.Record) bool { return asked[r.ID] == nil })
}

// decided tells that what became of a record stands, whatever is known of its key.
func decided(r *batch.Record, known *dedup.Known) bool {
	if id, ok := known.Rows[r.Offset]; ok && id == r.ID && !mutant.On("duplicate-of-itself") {
		return true
	}
	_, ok := known.Fates[r.Offset]
	return ok
}

// sorted is a batch's records by what is to be done with them.
type sorted struct {
	rows, dead, forward []*batch.Record
	stored              []*batch.Record    // rows that stand already
	standing            map[dedup.Fate]int // all records, those decided before too
}

func (o *Owner) sort(b *batch.Batch, decisions []dedup.Decision) sorted {
	s := sorted{standing: map[dedup.Fate]int{}, rows: make([]*batch.Record, 0, len(b.Records))}
	rows := 0 // counted apart: they are nearly all
	for i := range b.Records {
		r, d := b.Records[i], &decisions[i]
		if d.Fate == dedup.Row {
			rows++
		} else {
			s.standing[d.Fate]++
		}
		if d.Stands {
			if d.Fate == dedup.Row {
				s.stored = append(s.stored, r)
			}
			continue
		}
		switch d.Fate {
		case dedup.Row:
			s.rows = append(s.rows, r)
		case dedup.DeadLetter:
			s.dead = append(s.dead, r)
		case dedup.Forwarded:
			s.forward = append(s.forward, r)
		}
	}
	if rows > 0 {
		s.standing[dedup.Row] = rows
	}
	return s
}

// remember adds rows to the index, now that they are stored: those that were
// found stored too, since they may have been written after the index was loaded,
// late by an earlier owner or before this batch was decided again.
func (o *Owner) remember(w *writing, s sorted) {
	if mutant.On("stored-rows-forgotten") {
		s.stored = nil
	}
	o.index.Add(s.stored, o.self)
	if w.claimed {
		o.index.Written(s.rows, o.self, w.round)
	} else {
		o.index.Add(s.rows, o.self)
	}
}
