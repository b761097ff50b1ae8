package store

import (
	"context"
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
	for _, j := range all {
		for i := range j.entries {
			if err := appendEntry(b, j, &j.entries[i]); err != nil {
				return fmt.Errorf("entry of offset %d for the journal: %w", j.entries[i].Offset, err)
			}
		}
	}
	if err := b.Send(); err != nil {
		return fmt.Errorf("writing to the journal: %w", err)
	}
	return nil
}

func appendEntry(b driver.Batch, j *journaling, e *Entry) error {
	var none event.Hash
	kind, batchHash, payloadHash := e.Kind, none, e.Hash
	switch e.Kind {
	case Fated:
		kind = "fate"
	case Batch:
		batchHash, payloadHash = e.Hash, none
	}
	var text string
	if e.Fate == dedup.Conflict {
		text = string(e.Event.Payload)
	}
	at := e.Event.OccurredAt
	if at.IsZero() {
		at = time.Unix(0, 0).UTC()
	}
	return b.Append(j.self.TopicID, j.topic, j.self.Partition, string(kind), e.Offset, e.Last, string(e.Fate), e.Records, e.Rows,
		uint16(event.RuleVersion), string(batchHash[:]), e.Epoch, e.ID, e.Event.Source, e.Event.EventType, e.Event.ActorID, at,
		text, string(payloadHash[:]), e.First.TopicID, e.First.Partition, e.First.Offset, e.Reason, e.Detail, e.ForwardedTo, timestamp(e.Timestamp))
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
