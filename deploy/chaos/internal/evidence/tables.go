package evidence

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/uuid"

	"sluice/deploy/chaos/internal/oracle"
	schema "sluice/schemas/clickhouse"
	"sluice/schemas/event"
)

// Tables reads ClickHouse.
type Tables struct{ conn driver.Conn }

// OpenTables returns Tables at a DSN. It does not wait for the server. Close it.
func OpenTables(dsn string) (*Tables, error) {
	opts, err := clickhouse.ParseDSN(dsn)
	if err != nil {
		return nil, fmt.Errorf("clickhouse: %w", err)
	}
	opts.ReadTimeout = 30 * time.Second
	conn, err := clickhouse.Open(opts)
	if err != nil {
		return nil, fmt.Errorf("clickhouse: %w", err)
	}
	return &Tables{conn}, nil
}

// Close closes the connections.
func (t *Tables) Close() { _ = t.conn.Close() } // nothing was left to be written

// Exec runs a statement.
func (t *Tables) Exec(ctx context.Context, sql string) error { return t.conn.Exec(ctx, sql) }

// Row asks a question whose answer is one row.
func (t *Tables) Row(ctx context.Context, sql string, into ...any) error {
	return t.conn.QueryRow(ctx, sql).Scan(into...)
}

// KeepParts lets no part of event_log be merged any more, so that a row stored
// twice stays to be seen. It is a setting of the table: it outlives the engine,
// as SYSTEM STOP MERGES does not.
func (t *Tables) KeepParts(ctx context.Context) error {
	err := t.conn.Exec(ctx, `ALTER TABLE event_log MODIFY SETTING
		max_bytes_to_merge_at_max_space_in_pool = 1, max_bytes_to_merge_at_min_space_in_pool = 1,
		parts_to_delay_insert = 100000, parts_to_throw_insert = 100000`)
	if err != nil {
		return fmt.Errorf("keeping event_log from merging: %w", err)
	}
	return nil
}

// Parts is how many active parts event_log has.
func (t *Tables) Parts(ctx context.Context) (n uint64, err error) {
	err = t.conn.QueryRow(ctx, "SELECT count() FROM system.parts WHERE database = currentDatabase() AND table = 'event_log' AND active").Scan(&n)
	return n, err
}

// Merge merges event_log into one part a table partition.
func (t *Tables) Merge(ctx context.Context) error {
	return t.conn.Exec(ctx, "OPTIMIZE TABLE event_log FINAL")
}

// Reach is how far the journal's batches reach by partition, gaps or not: a
// cheap question, to be asked often.
func (t *Tables) Reach(ctx context.Context, topicID uuid.UUID) (map[int32]int64, error) {
	out := map[int32]int64{}
	err := t.each(ctx, func(scan func(...any) error) error {
		var p int32
		var end int64
		err := scan(&p, &end)
		out[p] = end
		return err
	}, "SELECT partition, max(last_offset) + 1 FROM journal WHERE topic_id = ? AND entry = 'batch' GROUP BY partition", topicID)
	if err != nil {
		return nil, fmt.Errorf("the journal's reach: %w", err)
	}
	return out, nil
}

// JournalEnds are the journal's contiguous ends by partition.
func (t *Tables) JournalEnds(ctx context.Context, topicID uuid.UUID, partitions int32) (map[int32]int64, error) {
	ranges, err := t.ranges(ctx, topicID, partitions)
	if err != nil {
		return nil, err
	}
	out := map[int32]int64{}
	for _, r := range ranges {
		if _, ok := out[r.Partition]; !ok {
			out[r.Partition] = r.End
		}
	}
	return out, nil
}

func (t *Tables) ranges(ctx context.Context, topicID uuid.UUID, partitions int32) ([]oracle.Range, error) {
	var out []oracle.Range
	for p := range partitions {
		err := t.each(ctx, func(scan func(...any) error) error {
			r := oracle.Range{Partition: p}
			var batches uint64
			err := scan(&r.First, &r.End, &batches)
			out = append(out, r)
			return err
		}, schema.ContiguousRanges, topicID, p)
		if err != nil {
			return nil, fmt.Errorf("the journal's ranges: %w", err)
		}
	}
	return out, nil
}

// each calls row for every row of an answer.
func (t *Tables) each(ctx context.Context, row func(scan func(...any) error) error, query string, args ...any) error {
	rows, err := t.conn.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return errors.Join(err, rows.Close())
		}
	}
	return errors.Join(rows.Err(), rows.Close())
}

// Stored reads everything that an oracle compares, but for the dead letters.
func (t *Tables) Stored(ctx context.Context, topicID uuid.UUID, partitions int32) (s oracle.Stored, err error) {
	for _, part := range []struct {
		what string
		read func() error
	}{
		{"event_log", func() error { s.Rows, err = t.rows(ctx, topicID, "event_log", "payload_hash"); return err }},
		{"events", func() error { s.View, err = t.rows(ctx, topicID, "events", "''"); return err }},
		{"journal", func() error { s.Fates, err = t.fates(ctx, topicID); return err }},
		{"events_per_minute", func() error { s.PerMinute, err = t.rollup(ctx, "events_per_minute", "minute"); return err }},
		{"events_per_hour", func() error { s.PerHour, err = t.rollup(ctx, "events_per_hour", "hour"); return err }},
		{"event_conflicts", func() error { s.Conflicts, err = t.conflicts(ctx, topicID); return err }},
		{"balance", func() error { s.Balance, err = t.balance(ctx, topicID); return err }},
		{"journal", func() error { s.Ranges, err = t.ranges(ctx, topicID, partitions); return err }},
	} {
		if err := part.read(); err != nil {
			return s, fmt.Errorf("reading %s: %w", part.what, err)
		}
	}
	return s, nil
}

func (t *Tables) rows(ctx context.Context, topicID uuid.UUID, table, hash string) ([]oracle.StoredRow, error) {
	var out []oracle.StoredRow
	err := t.each(ctx, func(scan func(...any) error) error {
		var r oracle.StoredRow
		var e event.Event
		var column, text string
		if err := scan(&r.ID, &e.Source, &e.EventType, &e.ActorID, &e.OccurredAt, &column, &text, &r.At.Partition, &r.At.Offset); err != nil {
			return err
		}
		copy(r.Hash[:], column)
		r.Key, r.Text = e.Key(), event.PayloadHash([]byte(text))
		out = append(out, r)
		return nil
	}, "SELECT event_id, source, event_type, actor_id, occurred_at, "+hash+", payload_text, partition, offset FROM "+table+
		" WHERE topic_id = ? ORDER BY partition, offset", topicID)
	return out, err
}

func (t *Tables) fates(ctx context.Context, topicID uuid.UUID) ([]oracle.StoredFate, error) {
	var out []oracle.StoredFate
	err := t.each(ctx, func(scan func(...any) error) error {
		var f oracle.StoredFate
		var fate, hash string
		var last int64
		if err := scan(&f.At.Partition, &f.At.Offset, &last, &fate, &f.ID, &hash, &f.First.Partition, &f.First.Offset); err != nil {
			return err
		}
		copy(f.Hash[:], hash)
		for f.Fate = oracle.Fate(fate); f.At.Offset <= last; f.At.Offset++ {
			out = append(out, f)
		}
		return nil
	}, `SELECT partition, offset, last_offset, toString(fate), event_id, payload_hash, first_partition, first_offset
		FROM journal FINAL WHERE topic_id = ? AND entry = 'fate'`, topicID)
	return out, err
}

func (t *Tables) rollup(ctx context.Context, view, column string) (map[oracle.Bucket]oracle.Figures, error) {
	out := map[oracle.Bucket]oracle.Figures{}
	err := t.each(ctx, func(scan func(...any) error) error {
		var b oracle.Bucket
		var f oracle.Figures
		if err := scan(&b.Time, &b.Source, &b.EventType, &f.Events, &f.Actors); err != nil {
			return err
		}
		b.Time = b.Time.UTC()
		out[b] = f
		return nil
	}, "SELECT "+column+", source, event_type, events, actors FROM "+view)
	return out, err
}

func (t *Tables) conflicts(ctx context.Context, topicID uuid.UUID) ([]oracle.StoredConflict, error) {
	var out []oracle.StoredConflict
	err := t.each(ctx, func(scan func(...any) error) error {
		var c oracle.StoredConflict
		var text string
		if err := scan(&c.ID, &text, &c.Times, &c.First.Partition, &c.First.Offset, &c.Last.Partition, &c.Last.Offset); err != nil {
			return err
		}
		c.Hash = event.PayloadHash([]byte(text))
		out = append(out, c)
		return nil
	}, `SELECT event_id, payload_text, times_seen, first_partition, first_offset, last_partition, last_offset
		FROM event_conflicts WHERE first_topic_id = ?`, topicID)
	return out, err
}

func (t *Tables) balance(ctx context.Context, topicID uuid.UUID) ([]oracle.Sheet, error) {
	var out []oracle.Sheet
	err := t.each(ctx, func(scan func(...any) error) error {
		var s oracle.Sheet
		err := scan(&s.Partition, &s.Records, &s.Rows, &s.Duplicates, &s.Conflicts, &s.DeadLettered, &s.Forwarded, &s.Others, &s.Difference)
		out = append(out, s)
		return err
	}, `SELECT partition, toUInt64(records), toUInt64(rows), toUInt64(duplicates), toUInt64(conflicts), toUInt64(dead_lettered), toUInt64(forwarded),
		toUInt64(expired + erased + skipped + lost + cut), difference FROM balance WHERE topic_id = ?`, topicID)
	return out, err
}
