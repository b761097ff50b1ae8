package verify

import (
	"context"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"sluice/schemas/event"
)

// RollupQuery compares a rollup, events_per_minute or events_per_hour, with the
// table, bucket by bucket, in one query: the view is answered from its projection,
// the other side from the table's own columns, since no projection has offset
// (a setting of a part of a query is not heeded). Each bucket has two figures, the
// events and a checksum, the estimate of its actors, which is a function of the
// set of actors. What it returns differs.
func RollupQuery(view string) string {
	column, width := "minute", time.Minute
	if view == "events_per_hour" {
		column, width = "hour", time.Hour
	}
	bucket := fmt.Sprintf("fromUnixTimestamp64Second(intDiv(toUnixTimestamp64Nano(occurred_at) - positiveModulo(toUnixTimestamp64Nano(occurred_at), toInt64(%d)), 1000000000), 'UTC')", width)
	return `
		SELECT toString(bucket), source, event_type, toInt64(sum(ve)), toInt64(sum(va)), toInt64(sum(te)), toInt64(sum(ta))
		FROM (
			SELECT ` + column + ` AS bucket, source, event_type, events AS ve, actors AS va, toUInt64(0) AS te, toUInt64(0) AS ta FROM ` + view + `
			UNION ALL
			SELECT ` + bucket + ` AS bucket, source, event_type, 0, 0, countIf(offset >= 0), uniqCombined64(actor_id) FROM event_log
			GROUP BY bucket, source, event_type
		)
		GROUP BY bucket, source, event_type
		HAVING sum(ve) != sum(te) OR sum(va) != sum(ta)
		ORDER BY bucket, source, event_type`
}

// Rollups compares both rollups with the table and returns how many buckets
// differ.
func (s ClickHouse) Rollups(ctx context.Context, found func(Finding)) (int, error) {
	minutes, err := s.rollup(ctx, RollupQuery("events_per_minute"), "minute", found)
	if err != nil {
		return 0, err
	}
	hours, err := s.rollup(ctx, RollupQuery("events_per_hour"), "hour", found)
	return minutes + hours, err
}

// rollup asks until nothing differs, or what differs has done so by as many
// events as the time before: with writes going on a server that gives a query no
// single snapshot may count one side before a batch and the other after it.
func (s ClickHouse) rollup(ctx context.Context, query, unit string, found func(Finding)) (int, error) {
	ctx, err := s.oneSnapshot(ctx)
	if err != nil {
		return 0, err
	}
	type off struct {
		bucket string
		events int64
	}
	var before map[off]bool
	for i := 0; ; i++ {
		n := 0
		now := map[off]bool{}
		rows, err := s.Conn.Query(ctx, query)
		err = scanned(rows, err, func() error {
			var at, source, eventType string
			var ve, va, te, ta int64
			if err := rows.Scan(&at, &source, &eventType, &ve, &va, &te, &ta); err != nil {
				return err
			}
			key := fmt.Sprintf("%s %s %s %s", unit, at, source, eventType)
			now[off{key, ve - te}] = true
			if i < again || before[off{key, ve - te}] {
				n++
			}
			if i == again && before[off{key, ve - te}] {
				found(Finding{Kind: Rollup, Key: key, What: fmt.Sprintf("the rollup has %d events of %d actors, the table %d of %d", ve, va, te, ta)})
			}
			return nil
		}, "the events per %s", unit)
		if err != nil || n == 0 || i == again {
			return n, err
		}
		before = now
		if err := pause(ctx, againAfter); err != nil {
			return 0, err
		}
	}
}

// oneSnapshot has all of a query read the table as it was at one instant, where
// the server can.
func (s ClickHouse) oneSnapshot(ctx context.Context) (context.Context, error) {
	const setting = "enable_shared_storage_snapshot_in_query"
	var there uint64
	if err := s.Conn.QueryRow(ctx, "SELECT count() FROM system.settings WHERE name = ?", setting).Scan(&there); err != nil {
		return ctx, fmt.Errorf("looking for the setting %s: %w", setting, err)
	}
	if there > 0 {
		ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{setting: 1}))
	}
	return ctx, nil
}

// keyOf is the key of a tuple as ClickHouse has it.
func keyOf(source, eventType, actor string, nanos int64) string {
	e := event.Event{Source: source, EventType: eventType, ActorID: actor, OccurredAt: time.Unix(0, nanos).UTC()}
	return e.Key()
}
