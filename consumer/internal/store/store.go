// Package store reads and writes ClickHouse for the consumer: rows, the
// journal, and what is known of both.
package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/uuid"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	schema "sluice/schemas/clickhouse"
	"sluice/schemas/event"
	"sluice/schemas/topic"
)

// Store is ClickHouse. It is for concurrent use.
type Store struct {
	conn driver.Conn
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
	conn, err := clickhouse.Open(opts)
	if err != nil {
		return nil, fmt.Errorf("clickhouse.dsn: %w", err)
	}
	return &Store{conn: conn}, nil
}

// Conn is the connection pool itself.
func (s *Store) Conn() driver.Conn { return s.conn }

// Close closes the pool.
func (s *Store) Close() error { return s.conn.Close() }

// Ping asks the server for a sign of life.
func (s *Store) Ping(ctx context.Context) error { return s.conn.Ping(ctx) }

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
	})
	return settings
}

// Rows writes rows as one INSERT of one block under token. When it returns an
// error, nothing, all, or (over several table partitions) some of them may be
// stored: ask [Store.RowsIn].
func (s *Store) Rows(ctx context.Context, token string, self topic.Origin, rows []*batch.Record) error {
	ctx = clickhouse.Context(ctx, clickhouse.WithQueryID(token), clickhouse.WithSettings(insertSettings(token)))
	b, err := s.conn.PrepareBatch(ctx, "INSERT INTO event_log (event_id, client_event_id, source, event_type, actor_id, occurred_at, payload_text, payload_hash, received_at, topic_id, partition, offset, record_timestamp)")
	if err != nil {
		return fmt.Errorf("preparing %d rows for event_log: %w", len(rows), err)
	}
	defer b.Close() //nolint:errcheck // after Send it has nothing left to say
	if err := appendRows(b, self, rows); err != nil {
		return fmt.Errorf("rows for event_log: %w", errors.Join(err, b.Abort()))
	}
	if err := b.Send(); err != nil {
		return fmt.Errorf("writing %d rows to event_log: %w", len(rows), err)
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
		partitions, offsets      = make([]int32, n), make([]int64, n)
	)
	for i, r := range rows {
		ids[i], topics[i] = r.ID, self.TopicID
		clients[i], sources[i], types[i] = r.Event.ClientEventID, r.Event.Source, r.Event.EventType
		actors[i], payloads[i], hashes[i] = r.Event.ActorID, string(r.Event.Payload), string(r.Hash[:])
		occurred[i], stamped[i] = r.Event.OccurredAt, timestamp(r.Timestamp)
		partitions[i], offsets[i] = self.Partition, r.Offset
	}
	var err error
	for i, column := range []any{ids, clients, sources, types, actors, occurred, payloads, hashes, stamped, topics, partitions, offsets, stamped} {
		err = errors.Join(err, b.Column(i).Append(column))
	}
	return err
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
	rows, err := s.conn.Query(ctx,
		"SELECT offset, event_id FROM event_log WHERE topic_id = ? AND partition = ? AND offset BETWEEN ? AND ?",
		self.TopicID, self.Partition, first, last)
	if err != nil {
		return nil, fmt.Errorf("comparing offsets %d to %d with event_log: %w", first, last, err)
	}
	defer rows.Close() //nolint:errcheck // Err below tells
	out := map[int64]uuid.UUID{}
	for rows.Next() {
		var offset int64
		var id uuid.UUID
		if err := rows.Scan(&offset, &id); err != nil {
			return nil, fmt.Errorf("comparing offsets %d to %d with event_log: %w", first, last, err)
		}
		out[offset] = id
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("comparing offsets %d to %d with event_log: %w", first, last, err)
	}
	return out, nil
}

// Seen is where ClickHouse says a partition stands.
type Seen struct {
	// End is the journal's contiguous end: the first offset not journaled; -1
	// when the journal has nothing of this topic id and partition.
	End int64
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
		seen.End, seen.Islands = ranges[0].End, ranges[1:]
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

// keyOf is the idempotency key of a row, in SQL.
const keyOf = `concat(
	replaceAll(replaceAll(source, '%', '%25'), ':', '%3A'), ':',
	replaceAll(replaceAll(event_type, '%', '%25'), ':', '%3A'), ':',
	replaceAll(replaceAll(actor_id, '%', '%25'), ':', '%3A'), ':',
	replaceOne(toString(occurred_at), ' ', 'T'), 'Z')`

// Since calls add for every row whose occurred_at is from or later and whose
// key belongs to a partition among count of them today, whichever it was
// written from.
func (s *Store) Since(ctx context.Context, from time.Time, partition, count int32, add func(occurredAt time.Time, id uuid.UUID, first dedup.First)) error {
	rows, err := s.conn.Query(ctx, `
		SELECT event_id, occurred_at, payload_hash, topic_id, partition, offset FROM event_log
		WHERE occurred_at >= fromUnixTimestamp64Milli(?, 'UTC') AND bitAnd(kafkaMurmurHash(`+keyOf+`), 2147483647) % ? = ?`,
		from.UnixMilli(), count, partition)
	if err != nil {
		return fmt.Errorf("loading recent keys of partition %d: %w", partition, err)
	}
	defer rows.Close() //nolint:errcheck // Err below tells
	for rows.Next() {
		var (
			id uuid.UUID
			at time.Time
			f  dedup.First
		)
		if err := scanFirst(rows, &id, &at, &f); err != nil {
			return fmt.Errorf("loading recent keys of partition %d: %w", partition, err)
		}
		add(at, id, f)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("loading recent keys of partition %d: %w", partition, err)
	}
	return nil
}

func scanFirst(rows driver.Rows, id *uuid.UUID, at *time.Time, f *dedup.First) error {
	var hash string
	if err := rows.Scan(id, at, &hash, &f.Origin.TopicID, &f.Origin.Partition, &f.Origin.Offset); err != nil {
		return err
	}
	copy(f.Hash[:], hash)
	return nil
}

// FirstOf asks ClickHouse which of the records' keys have rows, whatever their
// age: one query, found by the sorting key. Of several rows of a key the one
// that the table's merges would keep is returned.
func (s *Store) FirstOf(ctx context.Context, records []*batch.Record) (map[uuid.UUID]dedup.First, error) {
	if len(records) == 0 {
		return map[uuid.UUID]dedup.First{}, nil
	}
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"max_query_size": 1 << 30, "max_ast_elements": 100_000_000}))
	rows, err := s.conn.Query(ctx, `
		SELECT event_id, occurred_at, payload_hash, topic_id, partition, offset FROM event_log
		WHERE (source, event_type, actor_id, occurred_at) IN (
			SELECT source, event_type, actor_id, fromUnixTimestamp64Nano(nanos, 'UTC')
			FROM format(TSV, 'source String, event_type String, actor_id String, nanos Int64', `+tuples(records)+`))
		ORDER BY event_id, version
		SETTINGS use_index_for_in_with_subqueries = 1`)
	if err != nil {
		return nil, fmt.Errorf("asking for %d keys: %w", len(records), err)
	}
	defer rows.Close() //nolint:errcheck // Err below tells
	out := map[uuid.UUID]dedup.First{}
	for rows.Next() {
		var (
			id uuid.UUID
			at time.Time
			f  dedup.First
		)
		if err := scanFirst(rows, &id, &at, &f); err != nil {
			return nil, fmt.Errorf("asking for %d keys: %w", len(records), err)
		}
		out[id] = f // in ascending version, so the last one stands
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("asking for %d keys: %w", len(records), err)
	}
	return out, nil
}

var (
	tsv     = strings.NewReplacer(`\`, `\\`, "\t", `\t`, "\n", `\n`, "\r", `\r`)
	literal = strings.NewReplacer(`\`, `\\`, `'`, `\'`)
)

// tuples is a string literal of the records' tuples as TSV: one literal is
// parsed at once, where a list of ten thousand tuples would be ten thousand
// expressions.
func tuples(records []*batch.Record) string {
	var b strings.Builder
	for _, r := range records {
		for _, s := range []string{r.Event.Source, r.Event.EventType, r.Event.ActorID} {
			tsv.WriteString(&b, s) //nolint:errcheck // a Builder never fails
			b.WriteByte('\t')
		}
		fmt.Fprintf(&b, "%d\n", r.Event.OccurredAt.UnixNano())
	}
	return "'" + literal.Replace(b.String()) + "'"
}

// Stop kills the statement that carries token and waits until it is gone, so
// that it can't write after the comparison that follows. (The embedded engine
// knows no query ids but shows log_comment; a server has both.)
func (s *Store) Stop(ctx context.Context, token string) error {
	const where = "WHERE query_id = ? OR Settings['log_comment'] = ?"
	for {
		var n uint64
		if err := s.conn.QueryRow(ctx, "SELECT count() FROM system.processes "+where, token, token).Scan(&n); err != nil {
			return fmt.Errorf("looking for the statement %s: %w", token, err)
		}
		if n == 0 {
			return nil
		}
		if err := s.conn.Exec(ctx, "KILL QUERY "+where+" ASYNC", token, token); err != nil {
			return fmt.Errorf("stopping the statement %s: %w", token, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}
