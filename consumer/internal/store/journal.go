package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/uuid"

	"sluice/consumer/internal/dedup"
	"sluice/schemas/event"
	"sluice/schemas/topic"
)

// Kind is what an entry of the journal says.
type Kind string

// The kinds; the zero value is a fate.
const (
	// Fated: what became of records that are not rows.
	Fated Kind = ""
	// Batch: a range is done.
	Batch Kind = "batch"
	// Barrier: from now on the partition decides by a topic of Offset
	// partitions.
	Barrier Kind = "barrier"
	// CutAt: what the log had from Offset to Last is gone from it; it goes on
	// under the id First.TopicID.
	CutAt Kind = "cut"
)

// Entry is one line of the journal.
type Entry struct {
	Kind Kind
	// Offset..Last is the range; of a single record both are its offset.
	Offset, Last int64
	// Fate is "" for a batch. Records is how many records the entry speaks
	// of: those the batch saw, or 1, or the range's count.
	Fate    dedup.Fate
	Records uint64
	// Rows is, for a batch, how many became rows by what the batch decided.
	Rows uint64

	Hash  event.Hash // a batch's, or a payload's
	Epoch int32

	ID          uuid.UUID
	Event       event.Event // Payload is kept for conflicts only
	First       topic.Origin
	Reason      string
	Detail      string
	ForwardedTo int32
	Timestamp   time.Time
}

// Journal writes entries in one INSERT of one block into one table partition,
// hence all or none; entries of several partitions may share it. Entries are
// keyed by origin: writing one again changes nothing.
func (s *Store) Journal(ctx context.Context, token, topicName string, self topic.Origin, entries []Entry) error {
	return s.together.do(&journaling{ctx: ctx, token: token, topic: topicName, self: self, entries: entries}, s.journal)
}

func (s *Store) journal(ctx context.Context, all []*journaling) error {
	// Writing an entry again changes nothing, but a block under a token that was
	// used for entries since deleted would be dropped: each attempt has its own.
	settings := insertSettings("sluice/journal/" + uuid.NewString())
	settings["log_comment"] = tokens(all)
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(settings))
	b, err := s.conn.PrepareBatch(ctx, "INSERT INTO journal (topic_id, topic, partition, entry, offset, last_offset, fate, records, rows, rule_version, batch_hash, leader_epoch, event_id, source, event_type, actor_id, occurred_at, payload_text, payload_hash, first_topic_id, first_partition, first_offset, reason, detail, forwarded_to, record_timestamp)")
	if err != nil {
		return fmt.Errorf("preparing entries for the journal: %w", err)
	}
	defer b.Close() //nolint:errcheck // after Send it has nothing left to say
	if err := appendEntries(b, linesOf(all)); err != nil {
		return fmt.Errorf("entries for the journal: %w", errors.Join(err, b.Abort()))
	}
	if err := b.Send(); err != nil {
		return fmt.Errorf("writing to the journal: %w", err)
	}
	return nil
}

// line is an entry with whose it is.
type line struct {
	*Entry
	of *journaling
}

func linesOf(all []*journaling) []line {
	var lines []line
	for _, j := range all {
		for i := range j.entries {
			lines = append(lines, line{&j.entries[i], j})
		}
	}
	return lines
}

// appendEntries appends lines by the column: a value at a time would cost several
// times as much.
func appendEntries(b driver.Batch, lines []line) error {
	batches := func(l line) bool { return l.Kind == Batch }
	return errors.Join(
		column(b, 0, lines, func(l line) uuid.UUID { return l.of.self.TopicID }),
		column(b, 1, lines, func(l line) string { return l.of.topic }),
		column(b, 2, lines, func(l line) int32 { return l.of.self.Partition }),
		column(b, 3, lines, func(l line) string { return cmp.Or(string(l.Kind), "fate") }),
		column(b, 4, lines, func(l line) int64 { return l.Offset }),
		column(b, 5, lines, func(l line) int64 { return l.Last }),
		column(b, 6, lines, func(l line) string { return string(l.Fate) }),
		column(b, 7, lines, func(l line) uint64 { return l.Records }),
		column(b, 8, lines, func(l line) uint64 { return l.Rows }),
		column(b, 9, lines, func(line) uint16 { return event.RuleVersion }),
		column(b, 10, lines, func(l line) string { return hashIf(batches(l), &l.Hash) }),
		column(b, 11, lines, func(l line) int32 { return l.Epoch }),
		column(b, 12, lines, func(l line) uuid.UUID { return l.ID }),
		column(b, 13, lines, func(l line) string { return l.Event.Source }),
		column(b, 14, lines, func(l line) string { return l.Event.EventType }),
		column(b, 15, lines, func(l line) string { return l.Event.ActorID }),
		column(b, 16, lines, func(l line) time.Time {
			if l.Event.OccurredAt.IsZero() {
				return time.Unix(0, 0).UTC()
			}
			return l.Event.OccurredAt
		}),
		column(b, 17, lines, func(l line) string {
			if l.Fate == dedup.Conflict {
				return string(l.Event.Payload)
			}
			return ""
		}),
		column(b, 18, lines, func(l line) string { return hashIf(!batches(l), &l.Hash) }),
		column(b, 19, lines, func(l line) uuid.UUID { return l.First.TopicID }),
		column(b, 20, lines, func(l line) int32 { return l.First.Partition }),
		column(b, 21, lines, func(l line) int64 { return l.First.Offset }),
		column(b, 22, lines, func(l line) string { return l.Reason }),
		column(b, 23, lines, func(l line) string { return l.Detail }),
		column(b, 24, lines, func(l line) int32 { return l.ForwardedTo }),
		column(b, 25, lines, func(l line) time.Time { return timestamp(l.Timestamp) }),
	)
}

// column appends what value makes of each line to the nth column.
func column[T any](b driver.Batch, nth int, lines []line, value func(line) T) error {
	values := make([]T, len(lines))
	for i, l := range lines {
		values[i] = value(l)
	}
	return b.Column(nth).Append(values)
}

// hashIf is h as the driver wants it, or of nothing.
func hashIf(wanted bool, h *event.Hash) string {
	if !wanted {
		h = new(event.Hash)
	}
	return string(h[:])
}

// FatesWithin holds for the journal's fates that reach into a range of offsets; its
// arguments are those of [Within]. The entry of a whole range may begin before: what is
// read begins with the first entry that reaches so far, not with the journal.
const FatesWithin = `topic_id = ? AND partition = ? AND entry = 'fate' AND last_offset >= ? AND offset <= ? AND offset >= (
	SELECT ifNull(minOrNull(offset), 9223372036854775807) FROM journal
	WHERE topic_id = ? AND partition = ? AND entry = 'fate' AND last_offset >= ? AND offset <= ?)`

// Within are the arguments of [FatesWithin] for offsets first..last of a partition.
func Within(self topic.Origin, first, last int64) []any {
	return []any{self.TopicID, self.Partition, first, last, self.TopicID, self.Partition, first, last}
}

// FatesIn returns the fates journaled for offsets first..last of a partition.
// A fate that covers a range is given for each offset of it within first..last.
func (s *Store) FatesIn(ctx context.Context, self topic.Origin, first, last int64) (map[int64]dedup.Fate, error) {
	rows, err := s.conn.Query(ctx, `
		SELECT offset, last_offset, toString(fate) FROM journal FINAL
		WHERE `+FatesWithin, Within(self, first, last)...)
	if err != nil {
		return nil, fmt.Errorf("fates of offsets %d to %d: %w", first, last, err)
	}
	defer rows.Close() //nolint:errcheck // Err below tells
	out := map[int64]dedup.Fate{}
	for rows.Next() {
		var from, to int64
		var fate string
		if err := rows.Scan(&from, &to, &fate); err != nil {
			return nil, fmt.Errorf("fates of offsets %d to %d: %w", first, last, err)
		}
		for o := max(from, first); o <= min(to, last); o++ {
			out[o] = dedup.Fate(fate)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("fates of offsets %d to %d: %w", first, last, err)
	}
	return out, nil
}

// Totals are figures over the whole of event_log.
type Totals struct {
	Rows, Keys, PerMinute, PerHour uint64
	// Unverifiable is how many rows come from elsewhere than the topic, or
	// from before its log begins.
	Unverifiable uint64
}

// Totals counts rows, keys and what the rollups say, and the rows that the
// topic's log can't speak for: starts are the log's first offsets.
func (s *Store) Totals(ctx context.Context, topicID uuid.UUID, starts map[int32]int64) (Totals, error) {
	var t Totals
	err := s.conn.QueryRow(ctx, `SELECT count(), uniqExact(event_id),
		(SELECT sum(events) FROM events_per_minute), (SELECT sum(events) FROM events_per_hour) FROM event_log`).
		Scan(&t.Rows, &t.Keys, &t.PerMinute, &t.PerHour)
	if err != nil {
		return t, fmt.Errorf("totals of event_log: %w", err)
	}
	condition := "topic_id != ?"
	for p, start := range starts {
		condition += fmt.Sprintf(" OR partition = %d AND offset < %d", p, start)
	}
	if err := s.conn.QueryRow(ctx, "SELECT count() FROM event_log WHERE "+condition, topicID).Scan(&t.Unverifiable); err != nil {
		return t, fmt.Errorf("rows the log can't speak for: %w", err)
	}
	return t, nil
}

// Elsewhere returns, of offsets first..last, those whose journaled duplicate or
// conflict stands against a row of another topic id.
func (s *Store) Elsewhere(ctx context.Context, self topic.Origin, first, last int64) (map[int64]bool, error) {
	rows, err := s.conn.Query(ctx, `
		SELECT offset FROM journal WHERE topic_id = ? AND partition = ? AND entry = 'fate'
		AND fate IN ('duplicate', 'conflict') AND offset BETWEEN ? AND ? AND first_topic_id != topic_id`,
		self.TopicID, self.Partition, first, last)
	if err != nil {
		return nil, fmt.Errorf("duplicates of older topics: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err below tells
	out := map[int64]bool{}
	for rows.Next() {
		var o int64
		if err := rows.Scan(&o); err != nil {
			return nil, fmt.Errorf("duplicates of older topics: %w", err)
		}
		out[o] = true
	}
	return out, rows.Err()
}
