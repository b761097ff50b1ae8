package crash

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/store"
)

// stands is what ClickHouse has of one log, physically but for the journal,
// whose repeated entries are one.
type stands struct {
	rows    map[int64][]stored
	fates   map[int64][]fate
	batches []store.Range
	balance string
}

type stored struct {
	id   uuid.UUID
	hash string
}

type fate struct {
	fate  dedup.Fate
	first int64
}

// sound is what balance says of a log that is exact, but for its counts.
const sound = "difference 0, gaps 0, overlaps 0, repeats 0, twice 0"

// engine is ClickHouse itself.
type engine struct{ *store.Store }

func (e engine) empty(ctx context.Context) error {
	return errors.Join(e.Conn().Exec(ctx, "TRUNCATE TABLE event_log"), e.Conn().Exec(ctx, "TRUNCATE TABLE journal"))
}

// read reads all that ClickHouse has, by log.
func (e engine) read(ctx context.Context) (map[uuid.UUID]*stands, error) {
	out := map[uuid.UUID]*stands{}
	of := func(id uuid.UUID) *stands {
		if out[id] == nil {
			out[id] = &stands{rows: map[int64][]stored{}, fates: map[int64][]fate{}}
		}
		return out[id]
	}
	var (
		id                     uuid.UUID
		first, last, reference int64
		row                    stored
		name                   string
	)
	for _, q := range []struct {
		query string
		into  []any
		take  func()
	}{
		{"SELECT topic_id, offset, event_id, payload_hash FROM event_log", []any{&id, &first, &row.id, &row.hash},
			func() { of(id).rows[first] = append(of(id).rows[first], row) }},
		{"SELECT topic_id, offset, last_offset, toString(fate), first_offset FROM journal FINAL WHERE entry = 'fate'", []any{&id, &first, &last, &name, &reference},
			func() {
				for o := first; o <= last; o++ {
					of(id).fates[o] = append(of(id).fates[o], fate{dedup.Fate(name), reference})
				}
			}},
		{"SELECT topic_id, offset, last_offset FROM journal FINAL WHERE entry = 'batch'", []any{&id, &first, &last},
			func() { of(id).batches = append(of(id).batches, store.Range{First: first, End: last + 1}) }},
		{"SELECT topic_id, format('difference {}, gaps {}, overlaps {}, repeats {}, twice {}', toString(difference), toString(gaps), toString(overlaps), toString(repeats), toString(twice)) FROM balance",
			[]any{&id, &name}, func() { of(id).balance = name }},
	} {
		rows, err := e.Conn().Query(ctx, q.query)
		if err != nil {
			return nil, err
		}
		for rows.Next() {
			if err := rows.Scan(q.into...); err != nil {
				return nil, err
			}
			q.take()
		}
		if err := rows.Err(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// faults compares a log with what its history demands.
func (w *world) faults(has *stands) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if has == nil {
		return []string{"ClickHouse has nothing of it"}
	}
	known := map[int64]bool{}
	for _, l := range w.lines {
		known[l.offset] = true
		rows, fates := has.rows[l.offset], has.fates[l.offset]
		want, row := w.want.rows[l.offset]
		switch {
		case row && len(rows) != 1:
			say("offset %d: %d rows instead of 1", l.offset, len(rows))
		case row && (rows[0].id != want.id || rows[0].hash != string(want.hash[:])):
			say("offset %d: the row is not its own", l.offset)
		case row && len(fates) > 0:
			say("offset %d: a row and %v", l.offset, fates)
		case row:
		case len(rows) > 0:
			say("offset %d: %d rows instead of %s", l.offset, len(rows), w.want.fates[l.offset])
		case len(fates) != 1 || fates[0].fate != w.want.fates[l.offset]:
			say("offset %d: %v instead of %s", l.offset, fates, w.want.fates[l.offset])
		}
		if first, ok := w.want.first[l.offset]; ok && len(fates) == 1 && fates[0].first != first {
			say("offset %d: stands against %d instead of %d", l.offset, fates[0].first, first)
		}
		if w.want.fates[l.offset] == dedup.DeadLetter && w.letters[l.offset] == 0 {
			say("offset %d: no dead letter was sent", l.offset)
		}
		if w.want.fates[l.offset] == dedup.Forwarded && w.forwards[l.offset] == 0 {
			say("offset %d: it was not forwarded", l.offset)
		}
	}
	for o := range has.rows {
		if !known[o] {
			say("offset %d: a row of no record", o)
		}
	}
	slices.SortFunc(has.batches, func(a, b store.Range) int { return cmp.Compare(a.First, b.First) })
	end := w.start
	for _, b := range has.batches {
		if b.First != end {
			say("the journal goes on at %d after %d", b.First, end)
		}
		end = b.End
	}
	if end != w.end {
		say("the journal ends at %d instead of %d", end, w.end)
	}
	if has.balance != sound {
		say("balance: %s", has.balance)
	}
	slices.Sort(out)
	return out
}
