// Package store reads and writes ClickHouse for the consumer: rows, the
// journal, and what is known of both.
package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/uuid"

	"sluice/consumer/internal/batch"
	schema "sluice/schemas/clickhouse"
	"sluice/schemas/event"
	"sluice/schemas/topic"
)

// Store is ClickHouse. It is for concurrent use.
type Store struct {
	conn     driver.Conn
	together *together
}

// Open connects to the database that dsn names, as in
// http://127.0.0.1:8123/sluice or clickhouse://host:9000/sluice. It does not
// wait for the server: the first query does.
func Open(dsn string) (*Store, error) {
	opts, err := clickhouse.ParseDSN(dsn)
	if err != nil {
		return nil, fmt.Errorf("clickhouse.dsn: %w", err)
	}
	if opts.Compression == nil {
		opts.Compression = &clickhouse.Compression{Method: clickhouse.CompressionLZ4}
	}
	// A connection waited for is time between an intent and its INSERT: there is
	// one for each partition of a process with many.
	opts.MaxOpenConns = max(opts.MaxOpenConns, 64)
	opts.MaxIdleConns = max(opts.MaxIdleConns, 16)
	conn, err := clickhouse.Open(opts)
	if err != nil {
		return nil, fmt.Errorf("clickhouse.dsn: %w", err)
	}
	return &Store{conn: conn, together: newTogether()}, nil
}

// Conn is the connection pool itself.
func (s *Store) Conn() driver.Conn { return s.conn }

// Close closes the pool.
func (s *Store) Close() error { return s.conn.Close() }

// insertSettings go with every INSERT: those without which a payload could fail
// it (the schema's), and what makes it synchronous, one block, and deduplicated
// by its token.
func insertSettings(token string) clickhouse.Settings {
	settings := clickhouse.Settings(schema.InsertSettings())
	maps.Copy(settings, clickhouse.Settings{
		"async_insert":                0,
		"insert_deduplicate":          1,
		"insert_deduplication_token":  token,
		"max_insert_block_size":       1 << 24,
		"min_insert_block_size_rows":  0,
		"min_insert_block_size_bytes": 0,
		"log_comment":                 token,
		// A batch's own bound is batch.table_partitions.
		"max_partitions_per_insert_block": batch.MostTablePartitions,
	})
	return settings
}

// Rows writes rows as one INSERT of one block under token. When it returns an
// error, nothing, all, or (over several table partitions) some of them may be
// stored: ask [Store.RowsIn].
func (s *Store) Rows(ctx context.Context, token string, self topic.Origin, rows []*batch.Record) error {
	return s.RowsInto(ctx, schema.EventLog, token, self, rows)
}

// RowsInto is [Store.Rows] for another table of the shape of event_log. Its name is
// part of the statement: it must be checked before.
func (s *Store) RowsInto(ctx context.Context, table, token string, self topic.Origin, rows []*batch.Record) error {
	ctx = clickhouse.Context(ctx, clickhouse.WithQueryID(token), clickhouse.WithSettings(insertSettings(token)))
	b, err := s.conn.PrepareBatch(ctx, "INSERT INTO "+table+" (event_id, client_event_id, source, event_type, actor_id, occurred_at, payload_text, payload_hash, received_at, topic_id, partition, offset, record_timestamp)")
	if err != nil {
		return fmt.Errorf("preparing %d rows for %s: %w", len(rows), table, err)
	}
	defer b.Close() //nolint:errcheck // after Send it has nothing left to say
	if err := appendRows(b, self, rows); err != nil {
		return fmt.Errorf("rows for event_log: %w", errors.Join(err, b.Abort()))
	}
	if err := b.Send(); err != nil {
		return fmt.Errorf("writing %d rows to %s: %w", len(rows), table, err)
	}
	return nil
}

func appendRows(b driver.Batch, self topic.Origin, rows []*batch.Record) error {
	n := len(rows)
	var (
		ids, topics              = make([]uuid.UUID, n), make([]uuid.UUID, n)
		clients, sources, types  = make([]string, n), make([]string, n), make([]string, n)
		actors, payloads, hashes = make([]string, n), make([]string, n), make([]string, n)
		occurred, stamped        = make([]time.Time, n), make([]time.Time, n)
		received                 = make([]time.Time, n)
		partitions, offsets      = make([]int32, n), make([]int64, n)
	)
	texts := joined(rows)
	for i, r := range rows {
		ids[i], topics[i] = r.ID, self.TopicID
		clients[i], sources[i], types[i] = r.Event.ClientEventID, r.Event.Source, r.Event.EventType
		size := len(r.Event.Payload)
		actors[i], payloads[i], hashes[i] = r.Event.ActorID, texts[:size], texts[size:size+len(r.Hash)]
		texts = texts[size+len(r.Hash):]
		occurred[i], stamped[i], received[i] = r.Event.OccurredAt, timestamp(r.Timestamp), timestamp(r.Received())
		partitions[i], offsets[i] = self.Partition, r.Offset
	}
	var err error
	for i, column := range []any{ids, clients, sources, types, actors, occurred, payloads, hashes, received, topics, partitions, offsets, stamped} {
		err = errors.Join(err, b.Column(i).Append(column))
	}
	return err
}

// joined is each row's payload and its hash, one after the other: the driver wants
// strings, and one for all of them is one allocation instead of two a row.
func joined(rows []*batch.Record) string {
	size := 0
	for _, r := range rows {
		size += len(r.Event.Payload) + len(r.Hash)
	}
	var all strings.Builder
	all.Grow(size)
	for _, r := range rows {
		all.Write(r.Event.Payload)
		all.Write(r.Hash[:])
	}
	return all.String()
}

// timestamp keeps a record's time within what a DateTime64(3) holds; a producer
// may write anything, and -1 means none.
func timestamp(t time.Time) time.Time {
	if t.Before(time.UnixMilli(0)) {
		return time.UnixMilli(0).UTC()
	}
	if t.After(event.Latest) {
		return event.Latest
	}
	return t.UTC()
}

// RowsIn returns the event ids of the rows whose origin lies in first..last of
// a partition, by offset. Two rows of one origin are an error.
func (s *Store) RowsIn(ctx context.Context, self topic.Origin, first, last int64) (map[int64]uuid.UUID, error) {
	return s.RowsOf(ctx, schema.EventLog, self, first, last)
}

// RowsOf is [Store.RowsIn] for another table of the shape of event_log.
func (s *Store) RowsOf(ctx context.Context, table string, self topic.Origin, first, last int64) (map[int64]uuid.UUID, error) {
	var packed string
	err := s.conn.QueryRow(ctx, "SELECT arrayStringConcat(groupArray(concat(reinterpretAsFixedString(offset), reinterpretAsFixedString(event_id)))) FROM "+table+
		" WHERE topic_id = ? AND partition = ? AND offset BETWEEN ? AND ?",
		self.TopicID, self.Partition, first, last).Scan(&packed)
	if err != nil {
		return nil, fmt.Errorf("comparing offsets %d to %d with %s: %w", first, last, table, err)
	}
	// Row by row a driver needs ten times as long as for all of them in one piece.
	const each = 8 + 16
	out := make(map[int64]uuid.UUID, len(packed)/each)
	for ; len(packed) >= each; packed = packed[each:] {
		b := []byte(packed[:each])
		var id uuid.UUID // two numbers of eight bytes
		binary.BigEndian.PutUint64(id[:8], binary.LittleEndian.Uint64(b[8:]))
		binary.BigEndian.PutUint64(id[8:], binary.LittleEndian.Uint64(b[16:]))
		out[int64(binary.LittleEndian.Uint64(b))] = id
	}
	return out, nil
}

// Seen is where ClickHouse says a partition stands.
type Seen struct {
	// End is the journal's contiguous end: the first offset not journaled; -1
	// when the journal has nothing of this topic id and partition.
	End int64
	// First is where the journal begins, if it has anything.
	First int64
	// Islands are the journaled ranges beyond End, in ascending order: what is
	// between has been lost from the journal.
	Islands []Range
	// Beyond is the highest offset at or past End of which anything is stored
	// (a row or a fate), -1 if there is none: up to it records must be
	// compared before they are decided.
	Beyond int64
}

// Range is a range of offsets: First inclusive, End exclusive.
type Range struct{ First, End int64 }

// Seen asks for a partition's contiguous end and what lies beyond it.
func (s *Store) Seen(ctx context.Context, self topic.Origin) (Seen, error) {
	ranges, err := s.ranges(ctx, self)
	if err != nil {
		return Seen{}, fmt.Errorf("the journal's ranges of partition %d: %w", self.Partition, err)
	}
	seen := Seen{End: -1}
	if len(ranges) > 0 {
		seen.First, seen.End, seen.Islands = ranges[0].First, ranges[0].End, ranges[1:]
	}
	from := max(seen.End, 0)
	err = s.conn.QueryRow(ctx, `
		SELECT max(o) FROM (
			SELECT if(count() = 0, toInt64(-1), max(offset)) AS o FROM event_log WHERE topic_id = ? AND partition = ? AND offset >= ?
			UNION ALL
			SELECT if(count() = 0, toInt64(-1), max(last_offset)) FROM journal WHERE topic_id = ? AND partition = ? AND entry = 'fate' AND last_offset >= ?)`,
		self.TopicID, self.Partition, from, self.TopicID, self.Partition, from).Scan(&seen.Beyond)
	if err != nil {
		return Seen{}, fmt.Errorf("what lies beyond the journal's end of partition %d: %w", self.Partition, err)
	}
	return seen, nil
}

func (s *Store) ranges(ctx context.Context, self topic.Origin) ([]Range, error) {
	rows, err := s.conn.Query(ctx, schema.ContiguousRanges, self.TopicID, self.Partition)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // Err below tells
	var out []Range
	for rows.Next() {
		var r Range
		var batches uint64
		if err := rows.Scan(&r.First, &r.End, &batches); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, rows.Err()
}
