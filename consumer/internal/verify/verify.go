// Package verify re-reads the log and compares it with ClickHouse, record by
// record. It decides by the same rule as the owners but from the log alone, and
// takes nothing from what they say of themselves.
package verify

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/partition"
	"sluice/consumer/internal/store"
	"sluice/schemas/topic"
)

// Log opens a partition for reading.
type Log interface {
	Open(p int32, from int64) (partition.Reader, error)
}

// Store is what is asked of ClickHouse.
type Store interface {
	RowsWithHash(ctx context.Context, self topic.Origin, first, last int64) ([]store.Stored, error)
	FatesIn(ctx context.Context, self topic.Origin, first, last int64) (map[int64]dedup.Fate, error)
	Elsewhere(ctx context.Context, self topic.Origin, first, last int64) (map[int64]bool, error)
}

// Counts are counts of records, but for Rows and Extra, which are rows.
type Counts struct {
	Records, Rows, Duplicates, Conflicts, DeadLettered, Forwarded int
	// Missing records have neither row nor fate; Different ones have another
	// than the log says, or a row with another payload; Extra rows have no
	// such record, or are there twice.
	Missing, Different, Extra int
}

// Add adds other's counts.
func (c *Counts) Add(other Counts) {
	c.Records += other.Records
	c.Rows += other.Rows
	c.Duplicates += other.Duplicates
	c.Conflicts += other.Conflicts
	c.DeadLettered += other.DeadLettered
	c.Forwarded += other.Forwarded
	c.Missing += other.Missing
	c.Different += other.Different
	c.Extra += other.Extra
}

// Finding is one record that is not as it should be.
type Finding struct {
	Origin topic.Origin
	Key    string // "" when the record has none
	What   string
}

// Range is what is compared: From inclusive, To exclusive.
type Range struct {
	Self       topic.Origin // topic id and partition
	Partitions int32
	From, To   int64
}

// chunk is how many records are held and compared at once.
const chunk = 50_000

// Partition compares one partition's range. When From is the log's start, each
// record's fate is checked against the rule; keys first seen before From are
// unknown, so with whole false only presence and payload are. found is called
// for each finding, progress after each chunk with the next offset.
func Partition(ctx context.Context, log Log, st Store, r Range, whole bool, found func(Finding), progress func(next int64)) (Counts, error) {
	c := comparison{r: r, st: st, whole: whole, found: found, first: map[uuid.UUID]dedup.First{}}
	if r.From >= r.To {
		return c.counts, nil
	}
	reader, err := log.Open(r.Self.Partition, r.From)
	if err != nil {
		return c.counts, err
	}
	defer reader.Close()
	decoder := batch.NewDecoder(r.Partitions)
	next := r.From
	var records []batch.Record
	for reader.Position() < r.To {
		raws, err := reader.Next(ctx)
		if err != nil {
			return c.counts, fmt.Errorf("reading the log: %w", err)
		}
		for _, raw := range raws {
			if raw.Offset < r.To {
				records = append(records, decoder.Decode(raw))
			}
		}
		if len(records) < chunk && reader.Position() < r.To {
			continue
		}
		end := min(reader.Position(), r.To)
		if err := c.compare(ctx, records, next, end-1); err != nil {
			return c.counts, err
		}
		next, records = end, records[:0]
		progress(next)
	}
	return c.counts, nil
}

type comparison struct {
	r      Range
	st     Store
	whole  bool
	found  func(Finding)
	first  map[uuid.UUID]dedup.First
	counts Counts
}

func (c *comparison) compare(ctx context.Context, records []batch.Record, first, last int64) error {
	stored, err := c.st.RowsWithHash(ctx, c.r.Self, first, last)
	if err != nil {
		return err
	}
	fates, err := c.st.FatesIn(ctx, c.r.Self, first, last)
	if err != nil {
		return err
	}
	elsewhere, err := c.st.Elsewhere(ctx, c.r.Self, first, last)
	if err != nil {
		return err
	}
	rows := make(map[int64]store.Stored, len(stored))
	for _, s := range stored {
		if _, twice := rows[s.Offset]; twice {
			c.extra(s.Offset, "the row is stored twice")
			continue
		}
		rows[s.Offset] = s
	}
	c.counts.Rows += len(rows)
	decisions := dedup.Decide(records, c.r.Self, dedup.Known{First: func(r *batch.Record) (dedup.First, bool) {
		f, ok := c.first[r.ID]
		return f, ok
	}})
	for i := range records {
		r := &records[i]
		row, isRow := rows[r.Offset]
		delete(rows, r.Offset)
		actual := fates[r.Offset]
		if isRow {
			actual = dedup.Row
		}
		c.record(r, decisions[i].Fate, actual, row, elsewhere[r.Offset])
		if decisions[i].Fate == dedup.Row {
			c.first[r.ID] = dedup.First{Origin: c.at(r.Offset), Hash: r.Hash}
		}
	}
	for offset := range rows {
		c.extra(offset, "the log has no such record")
	}
	return nil
}

// record compares what should have become of r with what did.
func (c *comparison) record(r *batch.Record, expected, actual dedup.Fate, row store.Stored, elsewhere bool) {
	c.counts.Records++
	if elsewhere && expected == dedup.Row || !c.whole && actual != "" {
		expected = actual // decided against a row that this reading can't see
	}
	switch expected {
	case dedup.Duplicate:
		c.counts.Duplicates++
	case dedup.Conflict:
		c.counts.Conflicts++
	case dedup.DeadLetter:
		c.counts.DeadLettered++
	case dedup.Forwarded:
		c.counts.Forwarded++
	}
	switch {
	case actual == "":
		c.counts.Missing++
		c.report(r, fmt.Sprintf("should be a %s; ClickHouse has neither row nor fate", expected))
	case actual != expected:
		c.counts.Different++
		c.report(r, fmt.Sprintf("should be a %s and is a %s", expected, actual))
	case actual == dedup.Row && row.ID != r.ID:
		c.counts.Different++
		c.report(r, "the row has another key")
	case actual == dedup.Row && row.Hash != r.Hash:
		c.counts.Different++
		c.report(r, "the row has another payload")
	}
}

func (c *comparison) at(offset int64) topic.Origin {
	return topic.Origin{TopicID: c.r.Self.TopicID, Partition: c.r.Self.Partition, Offset: offset}
}

func (c *comparison) report(r *batch.Record, what string) {
	f := Finding{Origin: c.at(r.Offset), What: what}
	if r.Reason == "" {
		f.Key = r.Event.Key()
	}
	c.found(f)
}

func (c *comparison) extra(offset int64, what string) {
	c.counts.Extra++
	c.found(Finding{Origin: c.at(offset), What: what})
}
