// Package erase takes events out of ClickHouse on purpose: an actor's, or all
// that occurred before a time. What is taken is written down first (a tombstone,
// then the fates), so that balance and verify stay right and nothing returns; each
// step can be made again, so a run that was cut short is finished by the next.
package erase

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/uuid"

	"sluice/consumer/internal/tombstone"
	"sluice/schemas/commit"
)

// Actor is whose events are erased: those that occurred up to Upto, of one Source
// or, with Source empty, of all.
type Actor struct {
	ID, Source string
	Upto       time.Time
}

// Found is what there is of an actor, or was.
type Found struct {
	// Rows of event_log; Fates of the journal that name the actor (duplicates,
	// forwarded and refused records); Conflicts, whose payloads it holds.
	Rows      uint64 `json:"rows"`
	Fates     uint64 `json:"fates"`
	Conflicts uint64 `json:"conflicts"`
}

// where is the condition that an actor's lines of event_log and journal meet.
func (a Actor) where() (condition string, args []any) {
	condition, args = "actor_id = ? AND occurred_at <= fromUnixTimestamp64Nano(?, 'UTC')", []any{a.ID, a.Upto.UnixNano()}
	if a.Source != "" {
		condition, args = "source = ? AND "+condition, append([]any{a.Source}, args...)
	}
	return condition, args
}

// Count counts what there is.
func (a Actor) Count(ctx context.Context, conn driver.Conn) (Found, error) {
	where, args := a.where()
	var f Found
	if err := conn.QueryRow(ctx, "SELECT count() FROM event_log FINAL WHERE "+where, args...).Scan(&f.Rows); err != nil {
		return f, fmt.Errorf("the actor's rows: %w", err)
	}
	err := conn.QueryRow(ctx, "SELECT countIf(fate != 'conflict'), countIf(fate = 'conflict') FROM journal FINAL WHERE entry = 'fate' AND "+where, args...).Scan(&f.Fates, &f.Conflicts)
	if err != nil {
		return f, fmt.Errorf("the actor's fates: %w", err)
	}
	return f, nil
}

// Bury writes the tombstone. Whatever of the actor is decided from
// [tombstone.MaxAge] later on is erased.
func (a Actor) Bury(ctx context.Context, conn driver.Conn, operation uuid.UUID) error {
	hash := tombstone.HashOf(a.ID)
	err := conn.Exec(ctx, "INSERT INTO tombstones (kind, source, actor, upto, operation) SELECT 'actor', ?, unhex(?), fromUnixTimestamp64Nano(?, 'UTC'), ?",
		a.Source, fmt.Sprintf("%x", hash), a.Upto.UnixNano(), operation)
	if err != nil {
		return fmt.Errorf("writing the tombstone: %w", err)
	}
	return nil
}

// columns of a fate that says nothing of its event.
const taken = "INSERT INTO journal (topic_id, topic, partition, entry, offset, last_offset, fate, records, leader_epoch, occurred_at, record_timestamp) "

// scrub is what an UPDATE of the journal sets, so that nothing of the event stays.
const scrub = `payload_text = '', payload_hash = toFixedString('', 16), event_id = toUUID('00000000-0000-0000-0000-000000000000'),
	source = '', event_type = '', actor_id = '', occurred_at = toDateTime64(0, 9, 'UTC'), detail = '',
	first_topic_id = toUUID('00000000-0000-0000-0000-000000000000'), first_partition = 0, first_offset = 0`

// Take writes the fate of every row, empties the journal's lines and deletes the
// rows, in this order. The tombstone must be known to all owners, and what they
// had decided before must be journaled.
func (a Actor) Take(ctx context.Context, conn driver.Conn, topic string) error {
	where, args := a.where()
	err := conn.Exec(ctx, taken+`
		SELECT topic_id, ?, partition, 'fate', offset, offset, 'erased', 1, -1, toDateTime64(0, 9, 'UTC'), record_timestamp
		FROM event_log WHERE `+where, append([]any{topic}, args...)...)
	if err != nil {
		return fmt.Errorf("writing the fates of the actor's rows: %w", err)
	}
	if err := mutate(ctx, conn, "ALTER TABLE journal UPDATE fate = 'erased', "+scrub+" WHERE entry = 'fate' AND "+where, args...); err != nil {
		return fmt.Errorf("emptying the journal's lines: %w", err)
	}
	if err := mutate(ctx, conn, "ALTER TABLE event_log DELETE WHERE "+where, args...); err != nil {
		return fmt.Errorf("deleting the actor's rows: %w", err)
	}
	return nil
}

// Landed returns when no INSERT of the consumer runs that began before the call: it
// may have been decided by older tombstones. The journal's end tells that of live
// batches, but not of ranges that are read again.
func Landed(ctx context.Context, conn driver.Conn) error {
	for called := time.Now(); ; {
		var n uint64
		err := conn.QueryRow(ctx, "SELECT count() FROM system.processes WHERE startsWith(Settings['log_comment'], ?) AND elapsed >= ?",
			commit.Name, time.Since(called).Seconds()).Scan(&n)
		if err != nil {
			return fmt.Errorf("looking for INSERTs that were decided before: %w", err)
		}
		if n == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// mutate waits until every part has been rewritten: what is erased is gone from
// the disk then, not merely hidden.
func mutate(ctx context.Context, conn driver.Conn, statement string, args ...any) error {
	return conn.Exec(clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"mutations_sync": 2})), statement, args...)
}

// Note writes an operation down, for [operations]; written again with another
// state it replaces what stood.
func Note(ctx context.Context, conn driver.Conn, id uuid.UUID, kind, state, who, detail string, began time.Time) error {
	err := conn.Exec(ctx, "INSERT INTO operations (id, kind, state, who, detail, started_at) SELECT ?, ?, ?, ?, ?, fromUnixTimestamp64Milli(?, 'UTC')",
		id, kind, state, strings.ToValidUTF8(who, "?"), detail, began.UnixMilli())
	if err != nil {
		return fmt.Errorf("noting the %s: %w", kind, err)
	}
	return nil
}
