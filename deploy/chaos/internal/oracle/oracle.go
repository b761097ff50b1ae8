// Package oracle says what must stand in ClickHouse, from the log alone, and
// how what stands there differs. It is pure, and shares no code with the
// consumer: only the contract in schemas.
package oracle

import (
	"crypto/sha256"
	"time"

	"github.com/google/uuid"

	"sluice/schemas/event"
	"sluice/schemas/topic"
)

// Record is one record of the log.
type Record struct {
	Partition     int32
	Offset        int64
	Key, Value    []byte
	ForwardedFrom string // the header, "" where there is none
}

// Fate is what must become of a record; the text is the journal's, and "row".
type Fate string

// The fates that a log without losses can give.
const (
	Row        Fate = "row"
	Duplicate  Fate = "duplicate"
	Conflict   Fate = "conflict"
	DeadLetter Fate = "dead_letter"
	Forwarded  Fate = "forwarded"
)

// Expected is what must become of one record.
type Expected struct {
	Fate  Fate
	Key   string // "" of a dead letter
	ID    uuid.UUID
	Hash  event.Hash // of the payload; of the value, for a dead letter
	First At         // of a duplicate or conflict: the row that stands
	Home  int32      // of a forwarded record

	tuple event.Event // of a row, for the rollups
}

// At is a place in the log.
type At struct {
	Partition int32
	Offset    int64
}

// Oracle gathers what must be. Its zero value is not usable: see New.
type Oracle struct {
	topicID    uuid.UUID
	partitions int32
	decoder    *event.Decoder

	expected  map[At]Expected
	rows      map[uuid.UUID]At
	present   map[content]bool
	forwarded map[string]content // copies by what they say they are a copy of
	counts    map[Fate]int
}

type content struct {
	id   uuid.UUID
	hash event.Hash
}

// New returns an oracle of an empty log.
func New(topicID uuid.UUID, partitions int32) *Oracle {
	return &Oracle{
		topicID: topicID, partitions: partitions, decoder: event.NewDecoder(event.Ceiling()),
		expected: map[At]Expected{}, rows: map[uuid.UUID]At{}, present: map[content]bool{},
		forwarded: map[string]content{}, counts: map[Fate]int{},
	}
}

// Add takes the next record of a partition, in log order.
func (o *Oracle) Add(r Record) {
	at := At{r.Partition, r.Offset}
	e := o.decide(r, at)
	o.expected[at] = e
	o.counts[e.Fate]++
	if e.Fate == DeadLetter {
		return
	}
	c := content{e.ID, e.Hash}
	o.present[c] = true
	if r.ForwardedFrom != "" {
		o.forwarded[r.ForwardedFrom] = c
	}
}

// ValueHash is the hash of a record's whole value, by which dead letters are
// compared.
func ValueHash(value []byte) event.Hash {
	sum := sha256.Sum256(value)
	return event.Hash(sum[:16])
}

func (o *Oracle) decide(r Record, at At) Expected {
	dead := Expected{Fate: DeadLetter, Hash: ValueHash(r.Value)}
	if len(r.Value) == 0 {
		return dead
	}
	e, faults := o.decoder.Decode(r.Value, time.Time{})
	if len(faults) > 0 {
		return dead
	}
	key := e.AppendKey(nil)
	x := Expected{Key: string(key), ID: event.IDOf(key), Hash: event.PayloadHash(e.Payload), Home: event.Partition(key, o.partitions)}
	if x.Home != r.Partition {
		x.Fate = Forwarded
		return x
	}
	first, taken := o.rows[x.ID]
	switch {
	case !taken:
		x.Fate, x.tuple = Row, e
		x.tuple.Payload = nil // the hash stands for it
		o.rows[x.ID] = at
	case o.expected[first].Hash == x.Hash:
		x.Fate, x.First = Duplicate, first
	default:
		x.Fate, x.First = Conflict, first
	}
	return x
}

// Counts tells how many records have which fate.
func (o *Oracle) Counts() map[Fate]int { return o.counts }

// Records is how many records there are.
func (o *Oracle) Records() int { return len(o.expected) }

// Has tells whether an event with this payload stands in the log.
func (o *Oracle) Has(id uuid.UUID, hash event.Hash) bool { return o.present[content{id, hash}] }

func (o *Oracle) origin(at At) string {
	return topic.Origin{TopicID: o.topicID, Partition: at.Partition, Offset: at.Offset}.String()
}
