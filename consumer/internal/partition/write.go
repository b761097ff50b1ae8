package partition

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/intent"
	"sluice/consumer/internal/store"
	"sluice/schemas/topic"
)

// live decides and writes the batch that follows the journal's end:
// intent, dead letters and forwards, rows, journal.
func (o *Owner) live(ctx context.Context, b *batch.Batch) error {
	compare := b.First <= o.compareTo
	decisions, err := o.decide(ctx, b, compare)
	if err != nil {
		return err
	}
	in := intent.Of(b, o.self.TopicID, o.partitions)
	if err := o.intend(ctx, b.First, in); err != nil {
		return err
	}
	acknowledged := time.Now()

	sorted := o.sort(b, decisions)
	if err := o.away(ctx, sorted); err != nil {
		return err
	}
	// A process that was frozen may have lost the partition meanwhile. The
	// broker refuses the repeated intent then, and nothing is written. The
	// wall clock is read too: the monotonic one stops in some suspends.
	if late(acknowledged, time.Now(), o.cfg.IntentFresh) {
		if err := o.log.Commit(ctx, b.First, in.Metadata()); err != nil {
			return fmt.Errorf("committing the intent %d to %d again: %w", b.First, in.Last, err)
		}
	}
	token := intent.Token(o.self.TopicID, o.cfg.Partition, b.First, in.Last, in.Hash)
	if err := o.rows(ctx, token, sorted.rows, compare); err != nil {
		return err
	}
	lines := append(entries(decisions, b), store.Entry{
		Batch: true, Offset: b.First, Last: in.Last, Records: uint64(len(b.Records)), Rows: uint64(sorted.standing[dedup.Row]),
		Hash: b.Hash(), Epoch: in.Epoch,
	})
	if err := o.store.Journal(ctx, token, o.cfg.Topic, o.self, lines); err != nil {
		return err
	}
	o.remember(sorted)
	o.next = in.Last + 1
	o.observe.Decided(o.cfg.Partition, sorted.standing, len(sorted.rows), o.next)
	return nil
}

// intend commits an intent. Until its answer is seen it counts as sent.
func (o *Owner) intend(ctx context.Context, first int64, in intent.Intent) error {
	o.sent = &sentIntent{first: first, in: in}
	if err := o.log.Commit(ctx, first, in.Metadata()); err != nil {
		return fmt.Errorf("committing the intent %d to %d: %w", first, in.Last, err)
	}
	o.sent, o.open = nil, true
	return nil
}

func late(from, now time.Time, bound time.Duration) bool {
	return max(now.Sub(from), now.Round(0).Sub(from.Round(0))) > bound
}

// decide applies the rule. compare asks first what has been decided already.
func (o *Owner) decide(ctx context.Context, b *batch.Batch, compare bool) ([]dedup.Decision, error) {
	var known dedup.Known
	if compare {
		var err error
		if known.Rows, err = o.store.RowsIn(ctx, o.self, b.First, b.Last()); err != nil {
			return nil, err
		}
		if known.Fates, err = o.store.FatesIn(ctx, o.self, b.First, b.Last()); err != nil {
			return nil, err
		}
	}
	var cold []*batch.Record
	asked := map[uuid.UUID]struct{}{}
	for i := range b.Records {
		r := &b.Records[i]
		if r.Reason != "" || r.Home != o.cfg.Partition || o.index.Knows(r.Event.OccurredAt) {
			continue
		}
		if _, ok := asked[r.ID]; !ok {
			asked[r.ID] = struct{}{}
			cold = append(cold, r)
		}
	}
	stored, err := o.store.FirstOf(ctx, cold)
	if err != nil {
		return nil, err
	}
	known.First = func(r *batch.Record) (dedup.First, bool) {
		if o.index.Knows(r.Event.OccurredAt) {
			return o.index.Find(r.Event.OccurredAt, r.ID)
		}
		f, ok := stored[r.ID]
		return f, ok
	}
	return dedup.Decide(b.Records, o.self, known), nil
}

// sorted is a batch's records by what is to be done with them.
type sorted struct {
	rows, dead, forward []*batch.Record
	standing            map[dedup.Fate]int // all records, those decided before too
}

func (o *Owner) sort(b *batch.Batch, decisions []dedup.Decision) sorted {
	s := sorted{standing: map[dedup.Fate]int{}}
	for i := range b.Records {
		r, d := &b.Records[i], decisions[i]
		s.standing[d.Fate]++
		if d.Stands {
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
	return s
}

// away sends what does not stay here; it is acknowledged before the journal
// says so.
func (o *Owner) away(ctx context.Context, s sorted) error {
	if len(s.dead) > 0 {
		if err := o.log.DeadLetter(ctx, o.self, s.dead); err != nil {
			return fmt.Errorf("writing %d dead letters: %w", len(s.dead), err)
		}
	}
	if len(s.forward) > 0 {
		if err := o.log.Forward(ctx, o.self, s.forward); err != nil {
			return fmt.Errorf("forwarding %d records: %w", len(s.forward), err)
		}
	}
	return nil
}

// rows writes rows under token. When earlier attempts may have been made, the
// table is compared afterwards: a token that was used before makes ClickHouse
// drop the block and report success.
func (o *Owner) rows(ctx context.Context, token string, rows []*batch.Record, compare bool) error {
	for attempt := 0; len(rows) > 0; attempt++ {
		if attempt > 3 {
			return fmt.Errorf("%d rows are not in event_log although ClickHouse took them", len(rows))
		}
		if attempt > 0 { // the comparison proved them missing
			token += "/mend/" + uuid.NewString()
		}
		if err := o.store.Rows(ctx, token, o.self, rows); err != nil {
			return err
		}
		if !compare {
			return nil
		}
		have, err := o.store.RowsIn(ctx, o.self, rows[0].Offset, rows[len(rows)-1].Offset)
		if err != nil {
			return err
		}
		rows = missing(rows, have)
	}
	return nil
}

func missing(rows []*batch.Record, have map[int64]uuid.UUID) []*batch.Record {
	var out []*batch.Record
	for _, r := range rows {
		if have[r.Offset] != r.ID {
			out = append(out, r)
		}
	}
	return out
}

// entries are the journal's lines for what is newly decided not to be a row.
func entries(decisions []dedup.Decision, b *batch.Batch) []store.Entry {
	var out []store.Entry
	for i := range b.Records {
		r, d := &b.Records[i], decisions[i]
		if d.Stands || d.Fate == dedup.Row {
			continue
		}
		out = append(out, store.Entry{
			Offset: r.Offset, Last: r.Offset, Fate: d.Fate, Records: 1, Hash: r.Hash, Epoch: r.Epoch,
			ID: r.ID, Event: r.Event, First: d.First.Origin, Reason: r.Reason, Detail: r.Detail,
			ForwardedTo: r.Home, Timestamp: r.Timestamp,
		})
	}
	return out
}

// remember adds rows to the index, now that they are stored.
func (o *Owner) remember(s sorted) {
	for _, r := range s.rows {
		origin := topic.Origin{TopicID: o.self.TopicID, Partition: o.cfg.Partition, Offset: r.Offset}
		o.index.Add(r.Event.OccurredAt, r.ID, dedup.First{Origin: origin, Hash: r.Hash})
	}
}
