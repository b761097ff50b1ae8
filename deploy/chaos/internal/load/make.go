// Package load makes the events of a round and sends them: as A7 does, over
// HTTP, trying again with the same key until it is told 202; and as a producer
// of somebody else's does, straight into the log, wherever it likes.
package load

import (
	"fmt"
	"math/rand/v2"
	"time"

	"sluice/deploy/chaos/internal/plan"
	"sluice/schemas/event"
)

// Post is one request to the edge.
type Post struct {
	At     time.Duration // from the round's beginning
	Batch  bool          // to the batch endpoint; else one event
	Events []event.Event
}

// Direct is one record produced past the edge.
type Direct struct {
	At        time.Duration
	Partition int32
	Key       []byte
	Value     []byte // nil: a tombstone
}

// Work is what a round sends.
type Work struct {
	Posts   []Post
	Directs []Direct
	// Events is how many events and records there are in all, Fresh how many
	// of them are the first with their key.
	Events, Fresh int
}

// Maker makes work. What it makes depends on its seed, its base and the rounds
// asked for before, since events come back in later rounds.
type Maker struct {
	seed       uint64
	base       time.Time
	partitions int32
	earlier    []event.Event // what later posts repeat
	fresh      int
}

// earlierKept bounds how far back repeats reach.
const earlierKept = 5000

// NewMaker returns a maker of events that occurred around base and before.
func NewMaker(seed uint64, base time.Time, partitions int32) *Maker {
	return &Maker{seed: seed, base: base, partitions: partitions}
}

// Round makes the work of a round, spread over window.
func (m *Maker) Round(number int, window time.Duration) Work {
	r := plan.Rand(m.seed, number, "load")
	var w Work
	target := 300 + r.IntN(1000)
	strange := target / 12
	for w.Events < target {
		at := time.Duration(r.Int64N(int64(window)))
		if len(w.Directs) < strange {
			w.Directs = append(w.Directs, m.direct(r, at, &w))
			w.Events++
			continue
		}
		p := Post{At: at, Batch: r.IntN(2) == 0}
		n := 1
		if p.Batch {
			n = 1 + r.IntN(60)
		}
		for range n {
			p.Events = append(p.Events, m.next(r, &w))
		}
		w.Posts = append(w.Posts, p)
		w.Events += n
	}
	return w
}

// next is a new event, a repeat of an earlier one, or one that contradicts it.
func (m *Maker) next(r *rand.Rand, w *Work) event.Event {
	dice := r.IntN(100)
	if len(m.earlier) == 0 || dice >= 37 {
		e := m.new(r)
		w.Fresh++
		m.earlier = append(m.earlier, e)
		if len(m.earlier) > 2*earlierKept {
			m.earlier = append([]event.Event(nil), m.earlier[earlierKept:]...)
		}
		return e
	}
	e := m.old(r)
	if dice < 4 { // the same tuple, another payload
		e.Payload = fmt.Appendf(nil, `{"other":%d}`, r.IntN(3))
	}
	return e
}

// old is an earlier event: mostly a recent one.
func (m *Maker) old(r *rand.Rand) event.Event {
	n := len(m.earlier)
	if r.IntN(3) > 0 {
		return m.earlier[n-1-r.IntN(min(n, 200))]
	}
	return m.earlier[r.IntN(n)]
}

// awkward are names that keys must escape and SQL must quote.
var awkward = []string{"a7", "a7", "a7:mobile", "50%", `it's "quoted" \ tab	`, "ünïcode"}

// new is an event no one has seen. Two thirds occurred just now, the others in
// any of nine months, which makes INSERTs into several table partitions.
func (m *Maker) new(r *rand.Rand) event.Event {
	m.fresh++
	at := m.base.Add(-time.Duration(r.Int64N(int64(time.Hour))))
	if r.IntN(3) == 0 {
		at = m.base.AddDate(0, -r.IntN(9), -r.IntN(28))
	}
	// The count makes the time, and so the tuple, unique.
	at = at.Truncate(time.Second).Add(time.Duration(m.fresh))
	return event.Event{
		Source:     awkward[r.IntN(len(awkward))],
		EventType:  fmt.Sprintf("type.%d", r.IntN(4)),
		ActorID:    fmt.Sprintf("actor-%d", r.IntN(200)),
		OccurredAt: at.UTC(),
		Payload:    fmt.Appendf(nil, `{"n":%d,"pad":"%0*d","nested":{"a":[1,2,%d]}}`, m.fresh, 1+r.IntN(120), 0, r.IntN(9)),
	}
}

// direct is a record of a producer that knows no rules: a partition of its own
// choice, sometimes no event at all.
func (m *Maker) direct(r *rand.Rand, at time.Duration, w *Work) Direct {
	d := Direct{At: at, Partition: r.Int32N(m.partitions)}
	switch r.IntN(8) {
	case 0:
		d.Value = fmt.Appendf(nil, "garbage %d", r.Uint32())
	case 1:
		d.Key = []byte("tombstone")
	case 2:
		d.Value = []byte(`{"source":"a7","event_type":"t","actor_id":"","occurred_at":"yesterday"}`)
	case 3: // a known event with its members in another order and white space
		e := m.next(r, w)
		d.Value = fmt.Appendf(nil, ` { "payload" : %s , "occurred_at":%q, "actor_id":%q , "event_type":%q,"source":%q } `,
			e.Payload, event.AppendTime(nil, e.OccurredAt), e.ActorID, e.EventType, e.Source)
	default:
		e := m.next(r, w)
		d.Value = e.AppendJSON(nil)
		d.Key = e.AppendKey(nil)
		if r.IntN(3) == 0 {
			d.Partition = event.Partition(d.Key, m.partitions)
		}
		if r.IntN(4) == 0 {
			d.Key = nil
		}
	}
	return d
}
