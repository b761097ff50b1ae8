package main

import (
	"context"
	"fmt"
	"time"

	"sluice/deploy/bench/scratch"
)

// The generator's distributions.
const (
	days    = 90
	sources = 40
	types   = 60
	actors  = 2_000_000
	// One record in repeatEvery is a duplicate, one in conflictEvery a conflict.
	repeatEvery, conflictEvery = 50, 1000
)

// chunk is how many rows one INSERT makes: they arrive in time's order, so a
// part holds a stretch of it, as parts of live traffic do.
const chunk = 2_500_000

// fill makes rows events that ended at now, and the journal of what was repeated.
// Every figure is a hash of the row's number: two runs make the same events but
// for their times.
//
// Sources, types and actors are skewed (the first source has some 12 % of all);
// traffic rises and falls with the hour; 3 % of the events are received late, by
// minutes to three weeks.
func fill(ctx context.Context, c scratch.Client, rows int, now time.Time, tell func(done int)) error {
	done, err := resume(ctx, c, rows)
	if err != nil {
		return err
	}
	// Merges would build every projection again and again.
	if err := c.Exec(ctx, "SYSTEM STOP MERGES event_log"); err != nil {
		return err
	}
	start := now.AddDate(0, 0, -days)
	if done > 0 { // it may have been cut short between its rows and its journal
		if err := journal(ctx, c, done-chunk, chunk); err != nil {
			return err
		}
		tell(done)
	}
	for from := done; from < rows; from += chunk {
		n := min(chunk, rows-from)
		if err := c.Exec(ctx, fmt.Sprintf(`
INSERT INTO event_log (event_id, client_event_id, source, event_type, actor_id, occurred_at, payload_text, payload_hash, received_at, inserted_at, topic_id, partition, offset, record_timestamp)
WITH
    (salt -> (cityHash64(number, salt) %% 1000003) / 1000003.) AS u,
    86400000. AS day_ms,
    toFloat64(number) / %[3]d * %[4]d * day_ms AS even,
    toInt64(%[5]d + even - 0.1 * day_ms * (1 - cos(2 * pi() * even / day_ms))) AS arrived,
    if(u(7) < 0.03, toInt64(60000 * exp(10.3 * u(8))), toInt64(20 + 2000 * pow(u(8), 4))) AS lateness,
    1 + toInt32(floor(%[6]d * pow(u(1), 2))) AS s,
    1 + toInt32(floor(%[7]d * pow(u(2), 2))) AS t
SELECT
    reinterpretAsUUID(concat(reinterpretAsString(cityHash64(number, 21)), reinterpretAsString(cityHash64(number, 22)))),
    '', concat('source-', leftPad(toString(s), 2, '0')), concat('type-', leftPad(toString(t), 2, '0')),
    concat('actor-', toString(toInt64(floor(%[8]d * pow(u(3), 1.4))))),
    fromUnixTimestamp64Milli(arrived - lateness, 'UTC'),
    concat('{"path":"/p/', toString(cityHash64(number, 4) %% 5000), '","duration_ms":', toString(toInt64(20 * exp(6 * u(5)))), ',"referrer":"', ['direct','search','mail','social'][1 + cityHash64(number, 6) %% 4], '","ok":true}'),
    reinterpretAsFixedString(toUInt128(cityHash64(number, 23))),
    fromUnixTimestamp64Milli(arrived, 'UTC'), fromUnixTimestamp64Milli(arrived + 60 + toInt64(400 * pow(u(9), 3)), 'UTC'),
    toUUID('00000000-0000-0000-0000-000000000001'), toInt32(number %% 12), toInt64(intDiv(number, 12)), fromUnixTimestamp64Milli(arrived, 'UTC')
FROM numbers(%[1]d, %[2]d)
SETTINGS max_insert_threads = 1, max_threads = 2, min_insert_block_size_rows = %[9]d, min_insert_block_size_bytes = 0, max_block_size = 65536, max_partitions_per_insert_block = 100`,
			from, n, rows, days, start.UnixMilli(), sources, types, actors, chunk)); err != nil {
			return fmt.Errorf("rows %d to %d: %w", from, from+n-1, err)
		}
		if err := journal(ctx, c, from, n); err != nil {
			return err
		}
		tell(from + n)
	}
	through := now.Add(-40 * time.Minute)
	return c.Exec(ctx, fmt.Sprintf(`INSERT INTO completeness (topic_id, complete_through, held_by, edges) SELECT toUUID('00000000-0000-0000-0000-000000000001'), fromUnixTimestamp64Milli(%d, 'UTC'), 'edge-1', 3`, through.UnixMilli()))
}

// resume tells how many rows of whole chunks an earlier run left, and takes away what
// it left of a chunk beyond them.
func resume(ctx context.Context, c scratch.Client, rows int) (done int, err error) {
	var have struct {
		Rows int `json:",string"`
	}
	if err := c.One(ctx, "SELECT count() AS Rows FROM event_log", &have); err != nil || have.Rows == 0 {
		return 0, err
	}
	done = min(have.Rows, rows) / chunk * chunk
	if err := c.Exec(ctx, fmt.Sprintf("ALTER TABLE event_log DELETE WHERE offset * 12 + partition >= %d SETTINGS mutations_sync = 2", done)); err != nil {
		return 0, fmt.Errorf("taking away the last, unfinished chunk: %w", err)
	}
	return done, nil
}

// journal writes what was repeated of n rows; again, it changes nothing.
func journal(ctx context.Context, c scratch.Client, from, n int) error {
	if err := c.Exec(ctx, fmt.Sprintf(`
INSERT INTO journal (topic_id, topic, partition, entry, offset, last_offset, fate, records, event_id, source, event_type, actor_id, occurred_at, payload_text, payload_hash, record_timestamp)
SELECT topic_id, 'events', partition, 'fate', 1000000000 + offset, 1000000000 + offset, if(intHash64(offset) %% %[4]d < %[3]d, 'conflict', 'duplicate'), 1,
    event_id, source, event_type, actor_id, occurred_at, if(intHash64(offset) %% %[4]d < %[3]d, '{"other":true}', ''), reinterpretAsFixedString(toUInt128(offset)), record_timestamp
FROM event_log WHERE offset >= %[1]d AND offset < %[2]d AND intHash64(offset) %% %[4]d < %[5]d`,
		from/12, (from+n+11)/12, 1, conflictEvery, conflictEvery/repeatEvery)); err != nil {
		return fmt.Errorf("the journal of rows %d to %d: %w", from, from+n-1, err)
	}
	return nil
}

// settle lets the engine merge for at most wait, and tells how many parts there
// are then. With 0 they stay as they were written.
func settle(ctx context.Context, c scratch.Client, wait time.Duration) (parts int, merging bool, err error) {
	if wait > 0 {
		if err := c.Exec(ctx, "SYSTEM START MERGES event_log"); err != nil {
			return 0, false, err
		}
	}
	for deadline := time.Now().Add(wait); ; {
		var state struct {
			Parts  int `json:",string"`
			Merges int `json:",string"`
		}
		if err := c.One(ctx, `SELECT (SELECT count() FROM system.parts WHERE database = currentDatabase() AND table = 'event_log' AND active) AS Parts,
			(SELECT count() FROM system.merges WHERE database = currentDatabase()) + (SELECT count() FROM system.mutations WHERE database = currentDatabase() AND NOT is_done) AS Merges`, &state); err != nil {
			return 0, false, err
		}
		if state.Merges == 0 || time.Now().After(deadline) {
			return state.Parts, state.Merges > 0, nil
		}
		select {
		case <-ctx.Done():
			return 0, false, ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}
