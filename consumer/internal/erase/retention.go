package erase

import (
	"context"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/uuid"

	"sluice/consumer/internal/tombstone"
)

// Month is the beginning of the month that t lies in: retention takes whole
// months, since those are the table's partitions.
func Month(t time.Time) time.Time {
	t = t.UTC()
	return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
}

// Taken is a month's rows.
type Taken struct {
	// Month is the table's partition, as in 202601.
	Month uint32 `json:"month"`
	Rows  uint64 `json:"rows"`
}

// Before lists the months that end before, or at, a month's beginning.
func Before(ctx context.Context, conn driver.Conn, month time.Time) ([]Taken, error) {
	rows, err := conn.Query(ctx, `
		SELECT toUInt32(partition) AS month, sum(rows) FROM system.parts
		WHERE database = currentDatabase() AND table = 'event_log' AND active AND toUInt32(partition) < ?
		GROUP BY month ORDER BY month`, uint32(month.Year()*100+int(month.Month())))
	if err != nil {
		return nil, fmt.Errorf("the months of event_log: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err below tells
	var out []Taken
	for rows.Next() {
		var t Taken
		if err := rows.Scan(&t.Month, &t.Rows); err != nil {
			return nil, fmt.Errorf("the months of event_log: %w", err)
		}
		out = append(out, t)
	}
	return out, rows.Err()
}

// Watermark writes down that nothing from before month returns. It never falls.
func Watermark(ctx context.Context, conn driver.Conn, month time.Time, operation uuid.UUID) error {
	err := conn.Exec(ctx, "INSERT INTO tombstones (kind, source, actor, upto, operation) SELECT 'before', '', toFixedString('', 32), fromUnixTimestamp64Nano(?, 'UTC'), ?",
		month.UnixNano(), operation)
	if err != nil {
		return fmt.Errorf("writing the watermark: %w", err)
	}
	return nil
}

// Drop counts a month's rows by partition of the log, writes the counts to the
// journal, and drops the month. The counts stand at the month's first offset of
// each partition, where no fate stands since a row does: so they are the same
// however often this is begun, until the month is gone. Rows that have a fate of their
// own all the same are those of an erasure that was cut short, or came late.
func (t Taken) Drop(ctx context.Context, conn driver.Conn, topic string) error {
	err := conn.Exec(ctx, taken+`
		SELECT topic_id, ?, partition, 'fate', min(offset) AS first, first, 'expired', uniqExact(offset), -1, toDateTime64(0, 9, 'UTC'), min(record_timestamp)
		FROM event_log WHERE _partition_id = ? AND (topic_id, partition, offset) NOT IN
			(SELECT topic_id, partition, offset FROM journal WHERE entry = 'fate' AND (fate = 'erased' OR fate = 'expired' AND records = 1))
		GROUP BY topic_id, partition`, topic, fmt.Sprint(t.Month))
	if err != nil {
		return fmt.Errorf("counting the rows of %d: %w", t.Month, err)
	}
	if err := conn.Exec(ctx, fmt.Sprintf("ALTER TABLE event_log DROP PARTITION %d", t.Month)); err != nil {
		return fmt.Errorf("dropping the month %d: %w", t.Month, err)
	}
	return nil
}

// Late deletes rows from before month that came after it was dropped, each of which
// has a fate of its own; unlike a drop it leaves their tokens behind.
func Late(ctx context.Context, conn driver.Conn, month time.Time) error {
	if err := mutate(ctx, conn, "ALTER TABLE event_log DELETE WHERE occurred_at < fromUnixTimestamp64Nano(?, 'UTC')", month.UnixNano()); err != nil {
		return fmt.Errorf("deleting rows that came late: %w", err)
	}
	return nil
}

// Unexpired tells by an error that a retention was cut short. What it had counted may
// still be there, and must get no other fate.
func Unexpired(ctx context.Context, conn driver.Conn) error {
	set, err := tombstone.Read(ctx, conn)
	if err != nil || set.Before.IsZero() {
		return err
	}
	var rows uint64
	if err := conn.QueryRow(ctx, "SELECT count() FROM event_log WHERE occurred_at < fromUnixTimestamp64Nano(?, 'UTC')", set.Before.UnixNano()).Scan(&rows); err != nil {
		return fmt.Errorf("whether a retention was cut short: %w", err)
	}
	if rows > 0 {
		return fmt.Errorf("a retention was cut short: %d rows from before %s are still there; finish it first (consumer retention --before %s --yes)",
			rows, set.Before.Format(time.DateOnly), set.Before.UTC().Format(time.RFC3339))
	}
	return nil
}

// Scrub empties the journal's lines of what has expired: the payloads of conflicts are
// kept no longer than rows, nor is anything else of an event. What was forwarded stays
// that; a duplicate or a conflict is one of nothing now.
func Scrub(ctx context.Context, conn driver.Conn, month time.Time) error {
	err := mutate(ctx, conn, "ALTER TABLE journal UPDATE fate = if(fate = 'forwarded', fate, 'expired'), "+scrub+`
		WHERE entry = 'fate' AND fate IN ('duplicate', 'conflict', 'forwarded') AND event_id != toUUID('00000000-0000-0000-0000-000000000000') AND occurred_at < fromUnixTimestamp64Nano(?, 'UTC')`, month.UnixNano())
	if err != nil {
		return fmt.Errorf("emptying the journal's lines of what has expired: %w", err)
	}
	return nil
}
