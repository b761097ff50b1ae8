package oracle

import (
	"time"

	"github.com/google/uuid"

	"sluice/schemas/event"
	"sluice/schemas/topic"
)

func (c *comparison) isDead(origin string) bool {
	from, err := topic.ParseOrigin(origin)
	return err == nil && from.TopicID == c.o.topicID && c.o.expected[At{from.Partition, from.Offset}].Fate == DeadLetter
}

func (c *comparison) rollup(name string, have map[Bucket]Figures, width time.Duration) {
	want := map[Bucket]Figures{}
	actors := map[Bucket]map[string]bool{}
	for _, at := range c.o.rows {
		e := c.o.expected[at].tuple
		b := Bucket{Time: floor(e.OccurredAt, width), Source: e.Source, EventType: e.EventType}
		if actors[b] == nil {
			actors[b] = map[string]bool{}
		}
		actors[b][e.ActorID] = true
		want[b] = Figures{Events: want[b].Events + 1, Actors: uint64(len(actors[b]))}
	}
	for b, w := range want {
		if h := have[b]; h != w {
			c.report("", At{}, "%s %s %s %s: %d events of %d actors, should be %d of %d",
				name, b.Time.Format(time.RFC3339), b.Source, b.EventType, h.Events, h.Actors, w.Events, w.Actors)
		}
	}
	for b, h := range have {
		if _, ok := want[b]; !ok {
			c.report("", At{}, "%s %s %s %s: %d events, should be none", name, b.Time.Format(time.RFC3339), b.Source, b.EventType, h.Events)
		}
	}
}

// floor is the beginning of t's minute or hour, also before 1970.
func floor(t time.Time, width time.Duration) time.Time {
	seconds, w := t.Unix(), int64(width/time.Second)
	return time.Unix(seconds-((seconds%w)+w)%w, 0).UTC()
}

func (c *comparison) conflicts(have []StoredConflict) {
	type times struct {
		n   uint64
		key string
		at  map[At]bool
	}
	want := map[content]*times{}
	for at, x := range c.o.expected {
		if x.Fate != Conflict {
			continue
		}
		k := content{x.ID, x.Hash}
		if want[k] == nil {
			want[k] = &times{key: x.Key, at: map[At]bool{}}
		}
		want[k].n++
		want[k].at[at] = true
	}
	for _, h := range have {
		k := content{h.ID, h.Hash}
		w := want[k]
		switch {
		case w == nil:
			c.report("", h.First, "event_conflicts has the event %s with a payload that did not lose, or twice", h.ID)
		case w.n != h.Times:
			c.report(w.key, h.First, "event_conflicts: seen %d times, should be %d", h.Times, w.n)
		case !w.at[h.First] || !w.at[h.Last]:
			c.report(w.key, h.First, "event_conflicts: its first or last origin is none of the payload's")
		}
		delete(want, k)
	}
	for _, w := range want {
		for at := range w.at {
			c.report(w.key, at, "not in event_conflicts")
			break
		}
	}
}

func (c *comparison) balance(have []Sheet) {
	want := map[int32]*Sheet{}
	for at, x := range c.o.expected {
		s := want[at.Partition]
		if s == nil {
			s = &Sheet{Partition: at.Partition}
			want[at.Partition] = s
		}
		s.Records++
		switch x.Fate {
		case Row:
			s.Rows++
		case Duplicate:
			s.Duplicates++
		case Conflict:
			s.Conflicts++
		case DeadLetter:
			s.DeadLettered++
		case Forwarded:
			s.Forwarded++
		}
	}
	for _, h := range have {
		w := want[h.Partition]
		switch {
		case w == nil:
			c.report("", At{Partition: h.Partition}, "the balance has a partition without records: %+v", h)
		case *w != h:
			c.report("", At{Partition: h.Partition}, "the balance is %+v, should be %+v", h, *w)
		}
		delete(want, h.Partition)
	}
	for p := range want {
		c.report("", At{Partition: p}, "the balance has no row of the partition")
	}
}

// ranges checks that the journal covers each partition without a gap, from its
// start past its last record.
func (c *comparison) ranges(have []Range) {
	last := map[int32]int64{}
	for at := range c.o.expected {
		if l, ok := last[at.Partition]; !ok || at.Offset > l {
			last[at.Partition] = at.Offset
		}
	}
	seen := map[int32]bool{}
	for _, r := range have {
		l, ok := last[r.Partition]
		switch {
		case seen[r.Partition]:
			c.report("", At{r.Partition, r.First}, "the journal has a gap before offset %d", r.First)
		case r.First != 0:
			c.report("", At{r.Partition, 0}, "the journal begins at offset %d", r.First)
		case ok && r.End <= l:
			c.report("", At{r.Partition, r.End}, "the journal ends at offset %d, the log's last record is %d", r.End, l)
		}
		seen[r.Partition] = true
	}
	for p := range last {
		if !seen[p] {
			c.report("", At{Partition: p}, "the journal has nothing of the partition")
		}
	}
}

// Promised reports what was acknowledged and is not in the log.
func (o *Oracle) Promised(id uuid.UUID, hash event.Hash, key string) (Difference, bool) {
	if o.Has(id, hash) {
		return Difference{}, true
	}
	return Difference{Key: key, What: "acknowledged by the edge, and not in the log"}, false
}
