package verify

import (
	"strconv"
	"unsafe"

	"github.com/cespare/xxhash/v2"
	"github.com/google/uuid"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/schemas/event"
	"sluice/schemas/topic"
)

// state is what became of a record, in a byte.
type state uint8

const (
	nothing state = iota // neither row nor fate
	row
	duplicate
	conflict
	deadLetter
	refused // a dead letter because ClickHouse refused the row
	forwarded
	skipped
	expired
	erased
	lost
	unknown // a fate that this program does not know
)

var states = [...]string{"nothing", "row", "duplicate", "conflict", "dead letter", "refused dead letter", "forwarded record", "skipped record", "expired record", "erased record", "lost record", "record of an unknown fate"}

func (s state) String() string { return states[s] }

func stateOf(f Fate) state {
	switch f.Fate {
	case dedup.Duplicate:
		return duplicate
	case dedup.Conflict:
		return conflict
	case dedup.DeadLetter:
		if f.Reason == topic.ReasonRefused {
			return refused
		}
		return deadLetter
	case dedup.Forwarded:
		return forwarded
	case "skipped":
		return skipped
	case "expired":
		return expired
	case "erased":
		return erased
	case dedup.Lost:
		return lost
	}
	return unknown
}

// given tells that people or retention decided it, and the log can't know.
func (s state) given() bool { return s == skipped || s == expired || s == erased }

// class is what the log alone says of a record.
type class uint8

const (
	unreadable class = iota // becomes a dead letter
	home                    // its key belongs to this partition
	away                    // its key belongs to another
)

// sees says where the record lies that a duplicate or conflict names as first.
type sees uint8

const (
	unnamed sees = iota
	inside       // in the range, at the offset first
	outside      // elsewhere, and compared already
)

// fact is what is kept of one record while its chunk is compared.
type fact struct {
	offset  int64
	id      uuid.UUID
	hash    event.Hash
	content uint64 // contentOf the event
	text    uint64 // XXH64 of the payload's text
	first   int64
	class   class
	once    bool // by a partition count of before it was the other of home and away
	actual  state
	sees    sees
	expired bool // retention has taken what occurred then: only what is there is compared
	told    bool // there is a finding about it already
}

const factBytes = int64(unsafe.Sizeof(fact{}))

// contentOf hashes what a row holds of an event; ClickHouse computes the same of
// the row's columns. Payload and tuple hold no NUL.
func contentOf(d *xxhash.Digest, e *event.Event) uint64 {
	d.Reset()
	d.Write(e.Payload) //nolint:errcheck // a hash takes all
	for _, s := range [...]string{e.Source, e.EventType, e.ActorID, e.ClientEventID} {
		d.Write(nul)     //nolint:errcheck // as above
		d.WriteString(s) //nolint:errcheck // as above
	}
	var n [21]byte
	d.Write(strconv.AppendInt(n[:1], e.OccurredAt.UnixNano(), 10)) //nolint:errcheck // n[0] is the NUL
	return d.Sum64()
}

var nul = []byte{0}

// fact sums a record up.
func (c *comparison) fact(r *batch.Record) fact {
	f := fact{offset: r.Offset}
	if r.Reason != "" {
		return f
	}
	f.id, f.hash = r.ID, r.Hash
	f.content, f.text = contentOf(&c.digest, &r.Event), xxhash.Sum64(r.Event.Payload)
	f.class = c.classOf(r.Home)
	f.expired = c.Expired != nil && c.Expired(r.Event.OccurredAt)
	if len(c.r.Counts) > 0 {
		c.key = r.Event.AppendKey(c.key[:0])
		for _, n := range c.r.Counts {
			f.once = f.once || c.classOf(event.Partition(c.key, n)) != f.class
		}
	}
	return f
}

func (c *comparison) classOf(partition int32) class {
	if partition == c.r.Self.Partition {
		return home
	}
	return away
}
