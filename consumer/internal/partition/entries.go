package partition

import (
	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/store"
)

// entries are the journal's lines for what is newly decided not to be a row.
func (o *Owner) entries(w *writing, decisions []dedup.Decision) []store.Entry {
	var out []store.Entry
	for i := range w.b.Records {
		r, d := w.b.Records[i], &decisions[i]
		if d.Stands || d.Fate == dedup.Row {
			continue
		}
		e := entry(r, *d)
		if w.took(r) {
			e = bare(r, *d)
		}
		if d.Fate == dedup.Skipped {
			_, e.Detail = o.cfg.SkippedTo(o.self.TopicID, r.Offset)
		}
		out = append(out, e)
	}
	return out
}

// took tells whether an event was taken on purpose, whatever its record's fate is: one
// that is forwarded, or skipped, is decided before that is asked.
func (w *writing) took(r *batch.Record) bool {
	if w.gone == nil || r.Reason != "" {
		return false
	}
	_, taken := w.gone.Fate(&r.Event)
	return taken
}

// bare is an entry in which nothing of the event stays.
func bare(r *batch.Record, d dedup.Decision) store.Entry {
	e := store.Entry{Offset: r.Offset, Last: r.Offset, Fate: d.Fate, Records: 1, Epoch: r.Epoch, Timestamp: r.Timestamp}
	if d.Fate == dedup.Forwarded {
		e.ForwardedTo = r.Home
	}
	return e
}

func entry(r *batch.Record, d dedup.Decision) store.Entry {
	e := bare(r, d)
	e.Hash, e.ID, e.Event = r.Hash, r.ID, r.Event
	e.Reason, e.Detail = r.Reason, r.Detail
	if d.First != nil {
		e.First = d.First.Origin
	}
	return e
}
