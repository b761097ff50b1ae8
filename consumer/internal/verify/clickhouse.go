package verify

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/uuid"

	"sluice/consumer/internal/dedup"
	"sluice/schemas/topic"
)

// ClickHouse implements [Store], and compares what is not of one partition.
type ClickHouse struct{ Conn driver.Conn }

// content is contentOf, of a row.
const content = `xxHash64(concat(payload_text, '\0', source, '\0', event_type, '\0', actor_id, '\0', client_event_id, '\0', toString(toUnixTimestamp64Nano(occurred_at))))`

// Rows implements [Store].
func (s ClickHouse) Rows(ctx context.Context, self topic.Origin, first, last int64, each func(Row)) error {
	rows, err := s.Conn.Query(ctx, `
		SELECT offset, event_id, payload_hash, `+content+` FROM event_log
		WHERE topic_id = ? AND partition = ? AND offset BETWEEN ? AND ? ORDER BY offset`,
		self.TopicID, self.Partition, first, last)
	return scanned(rows, err, func() error {
		var r Row
		var hash string
		if err := rows.Scan(&r.Offset, &r.ID, &hash, &r.Content); err != nil {
			return err
		}
		copy(r.Hash[:], hash)
		each(r)
		return nil
	}, "rows of offsets %d to %d", first, last)
}

// fates are the columns of a [Fate]. FINAL: of several the first written stands.
const fates = `SELECT offset, last_offset, toString(fate), event_id, payload_hash, if(fate = 'conflict', xxHash64(payload_text), 0),
		first_topic_id, first_partition, first_offset, toString(reason)
	FROM journal FINAL WHERE topic_id = ? AND partition = ? AND entry = 'fate' AND fate != 'cut'`

// Fates implements [Store].
func (s ClickHouse) Fates(ctx context.Context, self topic.Origin, first, last int64, each func(Fate)) error {
	rows, err := s.Conn.Query(ctx, fates+" AND offset BETWEEN ? AND ? ORDER BY offset", self.TopicID, self.Partition, first, last)
	return s.fates(rows, err, each, first, last)
}

// Reaching implements [Store].
func (s ClickHouse) Reaching(ctx context.Context, self topic.Origin, offset int64, each func(Fate)) error {
	rows, err := s.Conn.Query(ctx, fates+" AND offset < ? AND last_offset >= ? ORDER BY offset", self.TopicID, self.Partition, offset, offset)
	return s.fates(rows, err, each, offset, offset)
}

func (s ClickHouse) fates(rows driver.Rows, err error, each func(Fate), first, last int64) error {
	return scanned(rows, err, func() error {
		var f Fate
		var fate, hash string
		if err := rows.Scan(&f.Offset, &f.Last, &fate, &f.ID, &hash, &f.Text, &f.First.TopicID, &f.First.Partition, &f.First.Offset, &f.Reason); err != nil {
			return err
		}
		f.Fate = dedup.Fate(fate)
		copy(f.Hash[:], hash)
		each(f)
		return nil
	}, "fates of offsets %d to %d", first, last)
}

// scanned reads an answer to its end, calling scan for each line.
func scanned(rows driver.Rows, err error, scan func() error, what string, args ...any) error {
	what = fmt.Sprintf(what, args...)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer rows.Close() //nolint:errcheck // Err below tells
	for rows.Next() {
		if err := scan(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// Named implements [Store].
func (s ClickHouse) Named(ctx context.Context, origins []topic.Origin) (map[topic.Origin]Row, error) {
	var list strings.Builder
	for _, o := range origins {
		fmt.Fprintf(&list, "%s\t%d\t%d\\n", o.TopicID, o.Partition, o.Offset)
	}
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"max_query_size": 1 << 26}))
	// One literal is parsed at once, where a list of tuples would be as many
	// expressions.
	rows, err := s.Conn.Query(ctx, `
		SELECT topic_id, partition, offset, event_id, payload_hash FROM event_log
		WHERE (topic_id, partition, offset) IN (
			SELECT t, p, o FROM format(TSV, 't UUID, p Int32, o Int64', '`+list.String()+`'))`)
	out := make(map[topic.Origin]Row, len(origins))
	err = scanned(rows, err, func() error {
		var o topic.Origin
		var r Row
		var hash string
		if err := rows.Scan(&o.TopicID, &o.Partition, &o.Offset, &r.ID, &hash); err != nil {
			return err
		}
		copy(r.Hash[:], hash)
		out[o] = r
		return nil
	}, "%d rows by their origins", len(origins))
	return out, err
}

// Counts of partitions that the topic has had, as the journal's barriers tell.
func (s ClickHouse) Counts(ctx context.Context, topicID uuid.UUID) ([]int32, error) {
	var out []int32
	rows, err := s.Conn.Query(ctx, "SELECT DISTINCT toInt32(offset) AS n FROM journal WHERE entry = 'barrier' AND topic_id = ? ORDER BY n", topicID)
	err = scanned(rows, err, func() error {
		var n int32
		if err := rows.Scan(&n); err != nil {
			return err
		}
		out = append(out, n)
		return nil
	}, "the partition counts of before")
	return out, err
}

// Repeated calls found for every row stored beyond one for its key, whatever
// topic it comes from, and returns how many there are. It is one reading of
// the table in the order it lies in.
func (s ClickHouse) Repeated(ctx context.Context, found func(Finding)) (int, error) {
	n := 0
	rows, err := s.Conn.Query(ctx, `
		SELECT source, event_type, actor_id, toUnixTimestamp64Nano(occurred_at), count(),
			arrayElement(arraySort(groupArray(2)((topic_id, partition, offset))), -1) AS origin,
			uniqExact(topic_id, partition, offset) AS origins
		FROM event_log GROUP BY source, event_type, actor_id, occurred_at HAVING count() > 1
		SETTINGS optimize_aggregation_in_order = 1`)
	err = scanned(rows, err, func() error {
		var source, eventType, actor string
		var nanos int64
		var stored, origins uint64
		var origin []any
		if err := rows.Scan(&source, &eventType, &actor, &nanos, &stored, &origin, &origins); err != nil {
			return err
		}
		n += int(stored - 1)
		f := Finding{Kind: Extra, Key: keyOf(source, eventType, actor, nanos), What: fmt.Sprintf("%d rows of this event are stored, of %d records", stored, origins)}
		f.Origin.TopicID, _ = origin[0].(uuid.UUID)
		f.Origin.Partition, _ = origin[1].(int32)
		f.Origin.Offset, _ = origin[2].(int64)
		found(f)
		return nil
	}, "rows stored twice")
	return n, err
}

// Unspoken is how many rows the log can't speak for: those of other topics and
// log ids, those from before the log's start, and those that the log took back.
func (s ClickHouse) Unspoken(ctx context.Context, ranges []Range) (int, error) {
	condition := "false"
	for _, r := range ranges {
		for _, x := range r.Stretches(r.From, 1<<62) {
			condition += fmt.Sprintf(" OR topic_id = '%s' AND partition = %d AND offset BETWEEN %d AND %d", x.Self.TopicID, x.Self.Partition, x.First, x.Last)
		}
	}
	var n uint64
	if err := s.Conn.QueryRow(ctx, "SELECT count() FROM event_log WHERE NOT ("+condition+")").Scan(&n); err != nil {
		return 0, fmt.Errorf("rows the log can't speak for: %w", err)
	}
	return int(n), nil
}

// Past is the highest offset of which a row is stored under a partition's log id
// of now, and how many of those rows come at or after from. It is -1 and 0 if
// there are none.
func (s ClickHouse) Past(ctx context.Context, r Range, from int64) (highest int64, rows int, err error) {
	self := r.At(max(from, r.To))
	var n uint64
	err = s.Conn.QueryRow(ctx, "SELECT if(count() = 0, toInt64(-1), max(offset)), count() FROM event_log WHERE topic_id = ? AND partition = ? AND offset >= ?",
		self.TopicID, self.Partition, from).Scan(&highest, &n)
	if err != nil {
		return 0, 0, fmt.Errorf("rows past the end of partition %d: %w", r.Self.Partition, err)
	}
	return highest, int(n), nil
}

// Astray calls found for every record of the ranges that was forwarded and
// whose key has neither a row nor a fate that says why not, and returns how
// many there are. The fate of what was taken on purpose names no key: tombstones tell. What
// was taken already when it was forwarded is named nowhere.
func (s ClickHouse) Astray(ctx context.Context, ranges []Range, found func(Finding)) (int, error) {
	condition := "false"
	for _, r := range ranges {
		if r.From < r.To {
			for _, x := range r.Stretches(r.From, r.To-1) {
				condition += fmt.Sprintf(" OR topic_id = '%s' AND partition = %d AND offset BETWEEN %d AND %d", x.Self.TopicID, x.Self.Partition, x.First, x.Last)
			}
		}
	}
	const moved = "SELECT event_id FROM journal WHERE entry = 'fate' AND fate = 'forwarded'"
	n := 0
	rows, err := s.Conn.Query(ctx, `
		SELECT topic_id, partition, offset, source, event_type, actor_id, toUnixTimestamp64Nano(occurred_at), forwarded_to
		FROM journal FINAL
		WHERE entry = 'fate' AND fate = 'forwarded' AND (`+condition+`)
			AND event_id != toUUID('00000000-0000-0000-0000-000000000000')
			AND occurred_at >= (SELECT if(count() = 0, toDateTime64('1900-01-01 00:00:00', 9, 'UTC'), max(upto)) FROM tombstones WHERE kind = 'before')
			AND event_id NOT IN (SELECT event_id FROM event_log WHERE event_id IN (`+moved+`))
			AND event_id NOT IN (SELECT event_id FROM journal WHERE entry = 'fate' AND fate IN ('dead_letter', 'skipped', 'expired', 'erased') AND event_id IN (`+moved+`))
			AND (topic_id, partition, offset) NOT IN (
				SELECT j.topic_id, j.partition, j.offset FROM journal AS j
				INNER JOIN (SELECT * FROM tombstones FINAL WHERE kind = 'actor') AS t ON t.actor = SHA256(j.actor_id)
				WHERE j.entry = 'fate' AND j.fate = 'forwarded' AND t.source IN ('', j.source) AND j.occurred_at <= t.upto)`)
	err = scanned(rows, err, func() error {
		var f Finding
		var source, eventType, actor string
		var nanos int64
		var to int32
		if err := rows.Scan(&f.Origin.TopicID, &f.Origin.Partition, &f.Origin.Offset, &source, &eventType, &actor, &nanos, &to); err != nil {
			return err
		}
		n++
		f.Kind, f.Key, f.What = Missing, keyOf(source, eventType, actor, nanos), fmt.Sprintf("was forwarded to partition %d, and its event has no row", to)
		found(f)
		return nil
	}, "records that were forwarded")
	return n, err
}

// again is how often figures that differ are asked for once more: with writes
// going on, two readings may be of two instants.
const (
	again      = 5
	againAfter = 200 * time.Millisecond
)

// Conflicts compares the view event_conflicts with the journal: one line for
// each key and payload, of as many records as there are. It returns how many
// lines it has too many or too few.
func (s ClickHouse) Conflicts(ctx context.Context, found func(Finding)) (int, error) {
	for i := 0; ; i++ {
		var lines, seen, want, records uint64
		err := s.Conn.QueryRow(ctx, `
			SELECT v.lines, v.seen, j.lines, j.records
			FROM (SELECT count() AS lines, sum(times_seen) AS seen FROM event_conflicts) AS v,
				(SELECT uniqExact(event_id, payload_hash) AS lines, count() AS records FROM journal FINAL WHERE entry = 'fate' AND fate = 'conflict') AS j`).
			Scan(&lines, &seen, &want, &records)
		if err != nil {
			return 0, fmt.Errorf("event_conflicts: %w", err)
		}
		if lines == want && seen == records {
			return 0, nil
		}
		if i < again {
			if err := pause(ctx, againAfter); err != nil {
				return 0, err
			}
			continue
		}
		found(Finding{Kind: Different, Key: "event_conflicts", What: fmt.Sprintf("has %d lines of %d records; the journal's conflicts are %d keys and payloads of %d records", lines, seen, want, records)})
		return max(int(max(lines, want)-min(lines, want)), 1), nil
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
