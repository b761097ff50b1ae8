package replay

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/uuid"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/failure"
	"sluice/consumer/internal/store"
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

// judge counts a record of a partition whose origin is given, and tells of it.
func (c Comparison) judge(r *batch.Record, s stored, origin topic.Origin, partition int32, d *Diff, missing *Spans) {
	good := r.Reason == ""
	tell := func(kind, what string) {
		key := ""
		if good {
			key = r.Event.Key()
		}
		c.Found(Found{Kind: kind, Origin: origin, Key: key, What: what})
	}
	d.Records++
	fate := s.fate
	if !s.row && fate == "" && good && r.Home == partition && c.Taken != nil {
		fate, _ = c.Taken(&r.Event)
	}
	switch {
	case s.row && s.fate != "":
		d.Different++
		tell(Different, fmt.Sprintf("is a row and in the journal a %s too", s.fate))
	case s.row && (!good || s.id != r.ID):
		d.Different++
		tell(Different, "the row is of another event than the record")
	case s.row && s.hash != event.PayloadHash(r.Event.Payload):
		d.Different++
		tell(Different, "the row has another payload than the record")
	case s.row:
		d.Present++
		return
	case fate == dedup.Expired:
		d.Expired++
		return
	case fate == dedup.Erased:
		d.Erased++
		if s.fate == "" { // its row was lost before, or its fate since: it gets one
			missing.Add(r.Offset)
		}
		return
	case s.fate != "":
		d.Present++
		if s.fate != dedup.DeadLetter || !good || c.Settled != nil && c.Settled(origin) {
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
		missing.Add(r.Offset)
		switch {
		case !good:
			tell(Missing, "has no fate; it is no event: "+r.Detail)
		case r.Home != partition:
			tell(Missing, fmt.Sprintf("has no fate; it belongs to partition %d", r.Home))
		default:
			tell(Missing, "has neither row nor fate")
		}
		return
	}
	d.Present++
}

// piece is what ClickHouse has of one part.
type piece struct {
	Part
	rows  []rowOf // by offset, from Part's first on
	fates map[int64]fateOf
}

type rowOf struct {
	row  bool
	id   uuid.UUID
	hash event.Hash
}

type fateOf struct {
	fate   dedup.Fate
	reason string
}

func (p *piece) of(offset int64) stored {
	r, f := p.rows[offset-p.First], p.fates[offset]
	return stored{row: r.row, id: r.id, hash: r.hash, fate: f.fate, reason: f.reason}
}

// packedRows are the offsets, ids and hashes of a range's rows in one piece, 40 bytes
// each: a driver that takes them apart row by row needs ten times as long.
const packedRows = `SELECT arrayStringConcat(groupArray(concat(reinterpretAsFixedString(offset), reinterpretAsFixedString(event_id), payload_hash)))
	FROM event_log WHERE topic_id = ? AND partition = ? AND offset BETWEEN ? AND ?`

const packedBytes = 8 + 16 + 16

// unpack takes in what [packedRows] gave.
func (p *piece) unpack(packed string) error {
	if len(packed)%packedBytes != 0 {
		return fmt.Errorf("%w: rows of %d bytes each came as %d bytes", failure.ErrMend, packedBytes, len(packed))
	}
	for ; packed != ""; packed = packed[packedBytes:] {
		b := []byte(packed[:packedBytes])
		offset := int64(binary.LittleEndian.Uint64(b))
		if offset < p.First || offset > p.Last {
			return fmt.Errorf("%w: offset %d came with those from %d to %d", failure.ErrMend, offset, p.First, p.Last)
		}
		r := &p.rows[offset-p.First]
		r.row = true
		// An id is two numbers of eight bytes.
		binary.BigEndian.PutUint64(r.id[:8], binary.LittleEndian.Uint64(b[8:]))
		binary.BigEndian.PutUint64(r.id[8:], binary.LittleEndian.Uint64(b[16:]))
		copy(r.hash[:], b[24:])
	}
	return nil
}

func (c Comparison) stored(ctx context.Context, part Part) (piece, error) {
	p := piece{Part: part, rows: make([]rowOf, part.Last-part.First+1), fates: map[int64]fateOf{}}
	self, first, last := part.Self, part.First, part.Last
	var packed string
	err := c.Conn.QueryRow(ctx, packedRows, self.TopicID, self.Partition, first, last).Scan(&packed)
	if err == nil {
		err = p.unpack(packed)
	}
	if err != nil {
		return p, fmt.Errorf("comparing offsets %d to %d with event_log: %w", first, last, err)
	}
	rows, err := c.Conn.Query(ctx, "SELECT offset, last_offset, toString(fate), toString(reason) FROM journal FINAL WHERE "+store.FatesWithin, store.Within(self, first, last)...)
	err = each(rows, err, func() error {
		var from, to int64
		var fate, reason string
		if err := rows.Scan(&from, &to, &fate, &reason); err != nil {
			return err
		}
		for o := max(from, first); o <= min(to, last); o++ {
			if from != to && (p.rows[o-first].row || p.fates[o].fate != "") {
				continue // a range's fate is of what has none of its own
			}
			p.fates[o] = fateOf{dedup.Fate(fate), reason}
		}
		return nil
	})
	if err != nil {
		return p, fmt.Errorf("fates of offsets %d to %d: %w", first, last, err)
	}
	return p, nil
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
