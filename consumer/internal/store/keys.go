package store

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/uuid"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
)

// keyOf is the idempotency key of a row, in SQL.
const keyOf = `concat(
	replaceAll(replaceAll(source, '%', '%25'), ':', '%3A'), ':',
	replaceAll(replaceAll(event_type, '%', '%25'), ':', '%3A'), ':',
	replaceAll(replaceAll(actor_id, '%', '%25'), ':', '%3A'), ':',
	replaceOne(toString(occurred_at), ' ', 'T'), 'Z')`

// ofPartition holds for rows whose key belongs to a partition among so many of
// them: its arguments are the count and the partition.
const ofPartition = `bitAnd(kafkaMurmurHash(` + keyOf + `), 2147483647) % ? = ?`

// minuteOf is the whole minutes from 1970 to occurred_at, rounded down, before
// 1970 too.
const minuteOf = `toInt32(intDiv(toUnixTimestamp64Nano(occurred_at) - positiveModulo(toUnixTimestamp64Nano(occurred_at), toInt64(60000000000)), 60000000000))`

// Keys calls add for every row whose occurred_at is from or later and before
// to, and whose key belongs to a partition among count of them today, whichever
// it was written from: in no order, a key with several rows several times.
// minute is the whole minutes from 1970 to occurred_at, rounded down. When it
// returns an error, add has been called for some of them only.
//
// It reads occurred_at of the table partitions that the range touches, and the
// rest of the key and event_id of the rows in it: some 10 million rows a second.
func (s *Store) Keys(ctx context.Context, from, to time.Time, partition, count int32, add func(minute int32, id uuid.UUID)) error {
	failed := func(err error) error {
		return fmt.Errorf("reading the keys of partition %d from %s to %s: %w", partition, from.Format(time.RFC3339), to.Format(time.RFC3339), err)
	}
	rows, err := s.conn.Query(ctx, `
		SELECT event_id, `+minuteOf+` FROM event_log
		WHERE occurred_at >= fromUnixTimestamp64Nano(?, 'UTC') AND occurred_at < fromUnixTimestamp64Nano(?, 'UTC') AND `+ofPartition,
		nanos(from), nanos(to), count, partition)
	if err != nil {
		return failed(err)
	}
	defer rows.Close() //nolint:errcheck // Err below tells
	var (
		id     uuid.UUID
		minute int32
	)
	for rows.Next() {
		if err := rows.Scan(&id, &minute); err != nil {
			return failed(err)
		}
		add(minute, id)
	}
	if err := rows.Err(); err != nil {
		return failed(err)
	}
	return nil
}

// nanos is t in nanoseconds since 1970, or the nearest that 64 bits hold, which
// lies beyond all that can be stored.
func nanos(t time.Time) int64 {
	switch {
	case t.Before(time.Unix(0, math.MinInt64)):
		return math.MinInt64
	case t.After(time.Unix(0, math.MaxInt64)):
		return math.MaxInt64
	}
	return t.UnixNano()
}

// found is a row that has a key.
type found struct {
	id          uuid.UUID
	at, stamped time.Time
	dedup.First
}

func scanFound(rows driver.Rows) (found, error) {
	var (
		f    found
		hash string
	)
	if err := rows.Scan(&f.id, &f.at, &hash, &f.Origin.TopicID, &f.Origin.Partition, &f.Origin.Offset, &f.stamped); err != nil {
		return found{}, err
	}
	copy(f.Hash[:], hash)
	return f, nil
}

// before tells whether a merge would keep f rather than other: the earlier
// record stays, as event_log's column version says.
func (f found) before(other found) bool {
	return cmp.Or(f.stamped.Compare(other.stamped), cmp.Compare(f.Origin.Offset, other.Origin.Offset)) < 0
}

// FirstOf asks ClickHouse which of the records' keys have rows, whatever their
// age, in one query. Of several rows of a key the one that the table's merges
// would keep is returned.
//
// Rows are found by event_id, which one comparison of 16 bytes decides: to
// compare the tuples takes four times as long as all the rest. Which parts and
// granules to read the index tells from the tuples all the same: indexHint is
// used for that and never evaluated. A key's id follows from its tuple, so the
// hint excludes nothing. The parts' ranges of occurred_at are tested against
// each key's, hence keys in two months far apart read these two.
//
// Of keys that lie all over the table most granules are read: the columns of
// the rows found cost the most then, and 16 bytes for each row of the months
// that are touched if none is.
func (s *Store) FirstOf(ctx context.Context, records []*batch.Record) (map[uuid.UUID]dedup.First, error) {
	if len(records) == 0 {
		return map[uuid.UUID]dedup.First{}, nil
	}
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"max_query_size": 1 << 30, "max_ast_elements": 100_000_000}))
	ids, tuples := literals(records)
	rows, err := s.conn.Query(ctx, `
		SELECT event_id, occurred_at, payload_hash, topic_id, partition, offset, record_timestamp FROM event_log
		WHERE event_id IN (SELECT id FROM format(TSV, 'id UUID', `+ids+`))
			AND indexHint((source, event_type, actor_id, occurred_at) IN (
				SELECT source, event_type, actor_id, fromUnixTimestamp64Nano(nanos, 'UTC')
				FROM format(TSV, 'source String, event_type String, actor_id String, nanos Int64', `+tuples+`)))
		SETTINGS use_index_for_in_with_subqueries = 1`)
	if err != nil {
		return nil, fmt.Errorf("asking for %d keys: %w", len(records), err)
	}
	defer rows.Close() //nolint:errcheck // Err below tells
	best := map[uuid.UUID]found{}
	for rows.Next() {
		f, err := scanFound(rows)
		if err != nil {
			return nil, fmt.Errorf("asking for %d keys: %w", len(records), err)
		}
		if other, ok := best[f.id]; !ok || f.before(other) {
			best[f.id] = f
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("asking for %d keys: %w", len(records), err)
	}
	out := make(map[uuid.UUID]dedup.First, len(best))
	for id, f := range best {
		out[id] = f.First
	}
	return out, nil
}

var (
	tsv     = strings.NewReplacer(`\`, `\\`, "\t", `\t`, "\n", `\n`, "\r", `\r`)
	literal = strings.NewReplacer(`\`, `\\`, `'`, `\'`)
)

// literals are string literals of the records' ids and tuples as TSV: one
// literal is parsed at once, where a list of ten thousand tuples would be ten
// thousand expressions.
func literals(records []*batch.Record) (ids, tuples string) {
	var i, t strings.Builder
	var nanos [20]byte
	i.Grow(2 + 37*len(records))
	t.Grow(96 * len(records))
	i.WriteByte('\'')
	for _, r := range records {
		i.WriteString(r.ID.String())
		i.WriteByte('\n')
		for _, s := range []string{r.Event.Source, r.Event.EventType, r.Event.ActorID} {
			tsv.WriteString(&t, s) //nolint:errcheck // a Builder never fails
			t.WriteByte('\t')
		}
		t.Write(strconv.AppendInt(nanos[:0], r.Event.OccurredAt.UnixNano(), 10))
		t.WriteByte('\n')
	}
	i.WriteByte('\'')
	return i.String(), "'" + literal.Replace(t.String()) + "'"
}
