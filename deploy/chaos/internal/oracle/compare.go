package oracle

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"sluice/schemas/event"
)

// Difference is one thing that is not as it must be.
type Difference struct {
	Key  string // "" where there is none
	At   At
	What string
}

func (d Difference) String() string {
	return fmt.Sprintf("%d/%d %q: %s", d.At.Partition, d.At.Offset, d.Key, d.What)
}

// StoredRow is a physical row of event_log.
type StoredRow struct {
	At   At
	ID   uuid.UUID
	Key  string     // made of the row's columns
	Hash event.Hash // the column
	Text event.Hash // of payload_text, computed afresh
}

// StoredFate is a fate of the journal.
type StoredFate struct {
	At    At
	Fate  Fate
	ID    uuid.UUID
	Hash  event.Hash
	First At
}

// Bucket is one row of a rollup.
type Bucket struct {
	Time              time.Time
	Source, EventType string
}

// Figures are a bucket's.
type Figures struct{ Events, Actors uint64 }

// StoredConflict is a row of event_conflicts.
type StoredConflict struct {
	ID          uuid.UUID
	Hash        event.Hash // of payload_text
	Times       uint64
	First, Last At
}

// Sheet is a row of the balance sheet.
type Sheet struct {
	Partition                                                     int32
	Records, Rows, Duplicates, Conflicts, DeadLettered, Forwarded uint64
	Others                                                        uint64 // every other fate
	Difference                                                    int64
}

// Range is a range of offsets that the journal covers: First inclusive, End
// exclusive.
type Range struct {
	Partition  int32
	First, End int64
}

// Stored is what ClickHouse and the dead-letter topic hold. Records of another
// topic id are not in it.
type Stored struct {
	Rows        []StoredRow // physical, repeats included
	View        []StoredRow // of the view events; Hash is not set
	Fates       []StoredFate
	PerMinute   map[Bucket]Figures
	PerHour     map[Bucket]Figures
	Conflicts   []StoredConflict
	Balance     []Sheet
	Ranges      []Range
	DeadLetters map[string]event.Hash // by origin: hash of the value
}

// Compare tells all that differs, ordered by key, what has no key at the end.
func (o *Oracle) Compare(s Stored) []Difference {
	c := comparison{o: o}
	c.rows(s.Rows)
	c.view(s.View)
	c.fates(s.Fates)
	c.away(s.DeadLetters)
	c.rollup("events_per_minute", s.PerMinute, time.Minute)
	c.rollup("events_per_hour", s.PerHour, time.Hour)
	c.conflicts(s.Conflicts)
	c.balance(s.Balance)
	c.ranges(s.Ranges)
	slices.SortStableFunc(c.found, func(a, b Difference) int {
		if (a.Key == "") != (b.Key == "") {
			return cmp.Compare(b.Key, a.Key) // sums come last: they follow from the keys
		}
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.At.Partition, b.At.Partition), cmp.Compare(a.At.Offset, b.At.Offset))
	})
	return c.found
}

type comparison struct {
	o     *Oracle
	found []Difference
}

func (c *comparison) report(key string, at At, format string, args ...any) {
	c.found = append(c.found, Difference{key, at, fmt.Sprintf(format, args...)})
}

func (c *comparison) rows(rows []StoredRow) {
	seen := map[uuid.UUID]At{}
	for _, r := range rows {
		if at, twice := seen[r.ID]; twice {
			c.report(r.Key, r.At, "a physical repeat: the key's row is stored at %d/%d too", at.Partition, at.Offset)
			continue
		}
		seen[r.ID] = r.At
		x, known := c.o.expected[r.At]
		switch {
		case !known:
			c.report(r.Key, r.At, "a row whose origin is not in the log")
		case x.Fate != Row:
			c.report(r.Key, r.At, "a row, and should be %s of %d/%d (%s)", x.Fate, x.First.Partition, x.First.Offset, x.Key)
		case r.ID != x.ID || r.Key != x.Key:
			c.report(r.Key, r.At, "the row of another key: should be %q", x.Key)
		case r.Hash != x.Hash || r.Text != x.Hash:
			c.report(r.Key, r.At, "the row has another payload: hash %x, of the text %x, should be %x", r.Hash, r.Text, x.Hash)
		}
	}
	for id, at := range c.o.rows {
		if _, ok := seen[id]; !ok {
			c.report(c.o.expected[at].Key, at, "no row")
		}
	}
}

func (c *comparison) view(rows []StoredRow) {
	seen := map[uuid.UUID]bool{}
	for _, r := range rows {
		at, ok := c.o.rows[r.ID]
		switch {
		case seen[r.ID]:
			c.report(r.Key, r.At, "twice in the view events")
		case !ok || at != r.At:
			c.report(r.Key, r.At, "in the view events, and should not be")
		case r.Text != c.o.expected[at].Hash:
			c.report(r.Key, r.At, "another payload in the view events")
		}
		seen[r.ID] = true
	}
	for id, at := range c.o.rows {
		if !seen[id] {
			c.report(c.o.expected[at].Key, at, "not in the view events")
		}
	}
}

func (c *comparison) fates(fates []StoredFate) {
	seen := map[At]bool{}
	for _, f := range fates {
		x, known := c.o.expected[f.At]
		switch {
		case seen[f.At]:
			c.report(x.Key, f.At, "two fates in the journal")
		case !known:
			c.report("", f.At, "journaled as %s, and is not in the log", f.Fate)
		case f.Fate != x.Fate:
			c.report(x.Key, f.At, "journaled as %s, should be %s", f.Fate, x.Fate)
		case (f.Fate == Duplicate || f.Fate == Conflict) && f.First != x.First:
			c.report(x.Key, f.At, "journaled as %s of %d/%d, which should be %d/%d", f.Fate, f.First.Partition, f.First.Offset, x.First.Partition, x.First.Offset)
		case f.Fate != DeadLetter && (f.ID != x.ID || f.Hash != x.Hash):
			c.report(x.Key, f.At, "journaled as %s with another key or payload", f.Fate)
		}
		seen[f.At] = true
	}
	for at, x := range c.o.expected {
		if x.Fate != Row && !seen[at] {
			c.report(x.Key, at, "should be %s; the journal has no fate", x.Fate)
		}
	}
}

// away checks what left the partition: it must have arrived where it went.
func (c *comparison) away(letters map[string]event.Hash) {
	for at, x := range c.o.expected {
		origin := c.o.origin(at)
		switch x.Fate {
		case DeadLetter:
			if hash, ok := letters[origin]; !ok {
				c.report("", at, "not among the dead letters")
			} else if hash != x.Hash {
				c.report("", at, "another value among the dead letters")
			}
		case Forwarded:
			if got, ok := c.o.forwarded[origin]; !ok {
				c.report(x.Key, at, "has not arrived in partition %d", x.Home)
			} else if got != (content{x.ID, x.Hash}) {
				c.report(x.Key, at, "arrived in partition %d as something else", x.Home)
			}
		}
	}
	for origin := range letters {
		if !c.isDead(origin) {
			c.report("", At{}, "the dead letter of %s, which is none", origin)
		}
	}
}
