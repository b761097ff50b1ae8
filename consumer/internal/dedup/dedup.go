// Package dedup is the rule that decides what becomes of each record. It is
// pure: everything it needs to know is handed to it.
package dedup

import (
	"slices"

	"github.com/google/uuid"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/mutant"
	"sluice/schemas/event"
	"sluice/schemas/topic"
)

// Fate is what becomes of a record. Its text is what the journal holds.
type Fate string

// The fates that the rule itself gives.
const (
	Row        Fate = "row"
	Duplicate  Fate = "duplicate"
	Conflict   Fate = "conflict"
	DeadLetter Fate = "dead_letter"
	Forwarded  Fate = "forwarded"
	Skipped    Fate = "skipped"
	Lost       Fate = "lost"
	Cut        Fate = "cut"
	// Expired and Erased: taken on purpose, by retention or erasure.
	Expired Fate = "expired"
	Erased  Fate = "erased"
)

// First is the row that stands for a key.
type First struct {
	Origin topic.Origin
	Hash   event.Hash
}

// Known is what has been decided before the batch.
type Known struct {
	// Rows are the event ids of stored rows by their own offset in this
	// partition; Fates the journal's by offset. Both may be empty when nothing
	// at these offsets can have been decided.
	Rows  map[int64]uuid.UUID
	Fates map[int64]Fate
	// Skipped tells that an operator wants the record of an offset passed over.
	// It may be nil.
	Skipped func(offset int64) bool
	// Gone tells of an event that was taken on purpose, and by what. It may be nil.
	Gone func(r *batch.Record) (fate Fate, taken bool)
	// Counted: what has expired is counted already, since the range was
	// journaled before; else each record of it gets a fate.
	Counted bool
	// First finds the row that a record's key has, from wherever it came.
	First func(r *batch.Record) (First, bool)
	// Repeats are the ids that may be those of several records, or have a row already;
	// nil: any may.
	Repeats *Repeats
}

// Decision is a record's fate.
type Decision struct {
	Fate Fate
	// Stands: the fate is written down already and must not be written again.
	Stands bool
	// First is the row that stands, for a duplicate and a conflict; else nil. Most
	// records are neither, and decisions are held by the ten thousand.
	First *First
}

// Decide gives each record its fate, in log order. The rule, in this order:
//
//  1. a row with the record's own origin and its key is stored: it is that row;
//  2. the journal has a fate for this origin: it stands;
//  3. what an operator wants passed over is skipped; what cannot become a row is
//     a dead letter; what belongs to another partition is forwarded, and decided
//     only there;
//  4. what was erased, or has expired, does not come back;
//  5. a row of this key is stored from another origin, or an earlier record of
//     the batch has the key: a duplicate, or a conflict if the payload differs;
//  6. else it becomes a row.
//
// The decisions take the memory of into, if it has enough; what it held is gone.
func Decide(into []Decision, records []*batch.Record, self topic.Origin, known Known) []Decision {
	out := slices.Grow(into[:0], len(records))[:len(records)]
	rows := newOwn(records)
	origin := self
	for i := range records {
		origin.Offset = records[i].Offset
		out[i] = decide(records[i], origin, &known, rows)
		if out[i].Fate == Row && known.Repeats.May(records[i].ID) {
			rows.add(i)
		}
	}
	return out
}

func decide(r *batch.Record, origin topic.Origin, known *Known, rows *own) Decision {
	if id, ok := known.Rows[r.Offset]; ok && !mutant.On("duplicate-of-itself") && r.Reason == "" && id == r.ID {
		return Decision{Fate: Row, Stands: true}
	}
	if f, ok := known.Fates[r.Offset]; ok {
		return Decision{Fate: f, Stands: true}
	}
	if known.Skipped != nil && known.Skipped(r.Offset) {
		return Decision{Fate: Skipped}
	}
	if r.Reason != "" {
		return Decision{Fate: DeadLetter}
	}
	if r.Home != origin.Partition && !mutant.On("misplaced-decided-in-place") {
		return Decision{Fate: Forwarded}
	}
	if known.Gone != nil {
		if fate, taken := known.Gone(r); taken {
			return Decision{Fate: fate, Stands: fate == Expired && known.Counted}
		}
	}
	if !known.Repeats.May(r.ID) {
		return Decision{Fate: Row}
	}
	var first First
	var ok bool
	i, here := rows.row(r.ID)
	if here {
		origin := origin
		origin.Offset = rows.records[i].Offset
		first, ok = First{Origin: origin, Hash: rows.records[i].Hash}, true
	} else if first, ok = known.First(r); ok && first.Origin == origin && !mutant.On("duplicate-of-itself") {
		ok = false // a record is no duplicate of itself
	}
	if !ok {
		return Decision{Fate: Row}
	}
	stands := first // only what is held lies on the heap
	if first.Hash == r.Hash {
		return Decision{Fate: Duplicate, First: &stands}
	}
	return Decision{Fate: Conflict, First: &stands}
}
