package replay

import (
	"context"
	"fmt"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/uuid"

	"sluice/consumer/internal/dedup"
	"sluice/schemas/event"
	"sluice/schemas/topic"
)

// stored is what ClickHouse has of one offset.
type stored struct {
	row    bool
	id     uuid.UUID
	hash   event.Hash
	fate   dedup.Fate
	reason string
}

func (c Comparison) judge(f *fact, s stored, origin topic.Origin, self int32, d *Diff, missing *Spans) {
	tell := func(kind, what string) {
		c.Found(Found{Kind: kind, Origin: origin, Key: string(f.key), What: what})
	}
	d.Records++
	switch {
	case s.row && s.fate != "":
		d.Different++
		tell(Different, fmt.Sprintf("is a row and in the journal a %s too", s.fate))
	case s.row && (!f.good || s.id != f.id):
		d.Different++
		tell(Different, "the row is of another event than the record")
	case s.row && s.hash != f.hash:
		d.Different++
		tell(Different, "the row has another payload than the record")
	case s.row:
		d.Present++
		return
	case s.fate == dedup.Expired, s.fate == "" && f.taken == dedup.Expired:
		d.Expired++
		return
	case s.fate == dedup.Erased, s.fate == "" && f.taken == dedup.Erased:
		d.Erased++
		return
	case s.fate != "":
		d.Present++
		if s.fate != dedup.DeadLetter || !f.good || c.Settled != nil && c.Settled(origin) {
			return
		}
		d.GoodNow++
		what := "a dead letter that today's rules take; \"consumer dlq redrive\" puts it through"
		if s.reason == topic.ReasonRefused {
			what = "a dead letter since ClickHouse refused its row then; \"consumer dlq redrive\" tries again"
		}
		tell(GoodNow, what)
		return
	default:
		d.Missing++
		missing.Add(f.offset)
		switch {
		case !f.good:
			tell(Missing, "has no fate; it is no event: "+f.detail)
		case f.home != self:
			tell(Missing, fmt.Sprintf("has no fate; it belongs to partition %d", f.home))
		default:
			tell(Missing, "has neither row nor fate")
		}
		return
	}
	d.Present++
}

func (c Comparison) stored(ctx context.Context, self topic.Origin, first, last int64) (map[int64]stored, error) {
	out := make(map[int64]stored, min(last-first+1, int64(c.Records)))
	rows, err := c.Conn.Query(ctx, "SELECT offset, event_id, payload_hash FROM event_log WHERE topic_id = ? AND partition = ? AND offset BETWEEN ? AND ?",
		self.TopicID, self.Partition, first, last)
	err = each(rows, err, func() error {
		var offset int64
		var s stored
		var hash string
		if err := rows.Scan(&offset, &s.id, &hash); err != nil {
			return err
		}
		s.row = true
		copy(s.hash[:], hash)
		out[offset] = s
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("comparing offsets %d to %d with event_log: %w", first, last, err)
	}
	rows, err = c.Conn.Query(ctx, `SELECT offset, last_offset, toString(fate), toString(reason) FROM journal FINAL
		WHERE topic_id = ? AND partition = ? AND entry = 'fate' AND last_offset >= ? AND offset <= ?`, self.TopicID, self.Partition, first, last)
	err = each(rows, err, func() error {
		var from, to int64
		var fate, reason string
		if err := rows.Scan(&from, &to, &fate, &reason); err != nil {
			return err
		}
		for o := max(from, first); o <= min(to, last); o++ {
			s := out[o]
			if from != to && (s.row || s.fate != "") {
				continue // a range's fate is of what has none of its own
			}
			s.fate, s.reason = dedup.Fate(fate), reason
			out[o] = s
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("fates of offsets %d to %d: %w", first, last, err)
	}
	return out, nil
}

// each reads an answer to its end.
func each(rows driver.Rows, err error, scan func() error) error {
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // Err below tells
	for rows.Next() {
		if err := scan(); err != nil {
			return err
		}
	}
	return rows.Err()
}
