package watermark

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"sluice/schemas/topic"
)

// Now implements [Store].
func (t Tables) Now(ctx context.Context) (time.Time, error) {
	var now time.Time
	if err := t.Store.Conn().QueryRow(ctx, "SELECT now64(3, 'UTC')").Scan(&now); err != nil {
		return now, fmt.Errorf("ClickHouse's clock: %w", err)
	}
	return now, nil
}

// Begin implements [Store].
func (t Tables) Begin(ctx context.Context, self topic.Origin) (uuid.UUID, int64, error) {
	cuts, err := t.Store.Cuts(ctx, self)
	if err != nil {
		return uuid.Nil, 0, err
	}
	end := int64(0)
	if n := len(cuts); n > 0 {
		self.TopicID, end = cuts[n-1].Next, cuts[n-1].At
	}
	seen, err := t.Store.Seen(ctx, self)
	if err != nil {
		return uuid.Nil, 0, err
	}
	return self.TopicID, max(seen.End, end), nil
}

// Progress implements [Store]. A partition's finished ranges join end to end, so
// what begins before the known end is known.
func (t Tables) Progress(ctx context.Context, at map[int32]Place) (time.Time, error) {
	var forwarded time.Time
	if len(at) == 0 {
		return forwarded, nil
	}
	var where strings.Builder
	var args []any
	before := map[int32]int64{}
	for p, place := range at {
		if where.Len() > 0 {
			where.WriteString(" OR ")
		}
		where.WriteString("topic_id = ? AND partition = ? AND offset >= ?")
		args = append(args, place.LogID, p, max(place.End, 0))
		before[p] = place.End
	}
	rows, err := t.Store.Conn().Query(ctx, "SELECT partition, offset, last_offset FROM journal WHERE entry = 'batch' AND ("+where.String()+") ORDER BY partition, offset", args...)
	if err != nil {
		return forwarded, fmt.Errorf("how far the journal has got: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err below tells
	for rows.Next() {
		var p int32
		var first, last int64
		if err := rows.Scan(&p, &first, &last); err != nil {
			return forwarded, fmt.Errorf("how far the journal has got: %w", err)
		}
		place := at[p]
		if first <= max(place.End, 0) && last+1 > place.End {
			place.End = last + 1
			at[p] = place
		}
	}
	if err := rows.Err(); err != nil {
		return forwarded, fmt.Errorf("how far the journal has got: %w", err)
	}
	moved := false
	for p := range at {
		moved = moved || at[p].End != before[p]
	}
	if !moved {
		return forwarded, nil
	}
	return t.forwarded(ctx, where.String(), args)
}

// Forwarded implements [Store].
func (t Tables) Forwarded(ctx context.Context, at map[int32]Place) (time.Time, error) {
	var where []string
	var args []any
	for p, place := range at {
		where = append(where, "topic_id = ? AND partition = ?")
		args = append(args, place.LogID, p)
	}
	if len(where) == 0 {
		return time.Time{}, nil
	}
	return t.forwarded(ctx, strings.Join(where, " OR "), args)
}

func (t Tables) forwarded(ctx context.Context, where string, args []any) (last time.Time, err error) {
	var n uint64
	err = t.Store.Conn().QueryRow(ctx, "SELECT count(), max(journaled_at) FROM journal WHERE entry = 'fate' AND fate = 'forwarded' AND ("+where+")", args...).Scan(&n, &last)
	if err != nil {
		return time.Time{}, fmt.Errorf("what was forwarded last: %w", err)
	}
	if n == 0 {
		return time.Time{}, nil
	}
	return last, nil
}

// Complete implements [Store].
func (t Tables) Complete(ctx context.Context, topicID uuid.UUID, b topic.Watermark, edges int) error {
	err := t.Store.Conn().Exec(ctx, "INSERT INTO completeness (topic_id, complete_through, held_by, edges) SELECT ?, fromUnixTimestamp64Milli(?, 'UTC'), ?, ?",
		topicID, b.LowWater.UnixMilli(), b.Edge, uint32(edges))
	if err != nil {
		return fmt.Errorf("writing down up to when the data is whole: %w", err)
	}
	return nil
}
