package main

import (
	"fmt"
	"strings"
	"time"
)

// question is one thing that an analyst asks.
type question struct {
	Name string
	// SQL is as deploy/docs/bench-questions.md has it; Raw asks the same of the
	// rows themselves.
	SQL, Raw string
	// How says what answers it.
	How string
}

// plain takes away everything but the table: its rows, and the months that it is
// partitioned by.
const plain = "optimize_use_projections = 0, optimize_use_projection_filtering = 0, use_skip_indexes = 0"

// What the questions name. The ranks are of the generator's distributions.
const (
	oneSource = "source-07"
	oneType   = "type-05"
	late      = "24 HOUR"
)

var funnel = [...]string{"type-02", "type-06", "type-09"}

// questions are asked of events until now; oneActor is who has a history.
func questions(now time.Time, oneActor string) []question {
	at := func(t time.Time) string { return "toDateTime('" + t.UTC().Format(time.DateTime) + "', 'UTC')" }
	day := func(t time.Time) string { return "toDate32('" + t.UTC().Format(time.DateOnly) + "')" }
	hour := at(now.Add(-time.Hour))
	week, twoWeeks, quarter := now.AddDate(0, 0, -7), now.AddDate(0, 0, -14), now.AddDate(0, 0, -days)
	steps := fmt.Sprintf("event_type = '%s', event_type = '%s', event_type = '%s'", funnel[0], funnel[1], funnel[2])
	stepTypes := "'" + strings.Join(funnel[:], "', '") + "'"

	return []question{
		{
			"last hour by type", fmt.Sprintf(`SELECT event_type, sum(events) AS n FROM events_per_minute WHERE minute >= %s GROUP BY event_type ORDER BY n DESC, event_type`, hour),
			fmt.Sprintf(`SELECT event_type, count() AS n FROM event_log WHERE occurred_at >= %s GROUP BY event_type ORDER BY n DESC, event_type`, hour),
			"rollup by minute",
		},
		{
			"uniques by day, 90 days", fmt.Sprintf(`SELECT day, actors FROM events_daily_actives WHERE day >= %s ORDER BY day`, day(quarter)),
			fmt.Sprintf(`SELECT toDate32(occurred_at) AS day, uniqCombined64(actor_id) AS actors FROM event_log WHERE day >= %s GROUP BY day ORDER BY day`, day(quarter)),
			"a sketch a day",
		},
		{
			"one actor's history", fmt.Sprintf(`SELECT occurred_at, source, event_type, payload_text FROM events_physical WHERE actor_id = '%s' ORDER BY occurred_at DESC, source, event_type LIMIT 100`, oneActor),
			fmt.Sprintf(`SELECT occurred_at, source, event_type, payload_text FROM event_log WHERE actor_id = '%s' ORDER BY occurred_at DESC, source, event_type LIMIT 100`, oneActor),
			"index by actor",
		},
		{
			"top sources, 90 days", fmt.Sprintf(`SELECT source, sum(events) AS n FROM events_per_day WHERE day >= %s GROUP BY source ORDER BY n DESC, source LIMIT 10`, day(quarter)),
			fmt.Sprintf(`SELECT source, count() AS n FROM event_log WHERE toDate32(occurred_at) >= %s GROUP BY source ORDER BY n DESC, source LIMIT 10`, day(quarter)),
			"rollup by day",
		},
		{
			"a payload path's histogram, 7 days", fmt.Sprintf(`SELECT intDiv(payload.duration_ms.:Int64, 250) * 250 AS duration_ms, count() AS n FROM events_physical WHERE source = '%s' AND event_type = '%s' AND occurred_at >= %s GROUP BY duration_ms ORDER BY duration_ms`, oneSource, oneType, at(week)),
			fmt.Sprintf(`SELECT intDiv(JSONExtractInt(payload_text, 'duration_ms'), 250) * 250 AS duration_ms, count() AS n FROM event_log WHERE source = '%s' AND event_type = '%s' AND occurred_at >= %s GROUP BY duration_ms ORDER BY duration_ms SETTINGS use_primary_key = 0`, oneSource, oneType, at(week)),
			"primary key, JSON path",
		},
		{
			"late events by source, 7 days", fmt.Sprintf(`SELECT source, sum(events) AS n FROM late_events_per_day WHERE day >= %s AND late_from >= %d GROUP BY source ORDER BY n DESC, source`, day(week), 24*3600),
			fmt.Sprintf(`SELECT source, count() AS n FROM event_log WHERE toDate32(received_at) >= %s AND received_at >= occurred_at + INTERVAL %s GROUP BY source ORDER BY n DESC, source`, day(week), late),
			"rollup by lateness",
		},
		{
			"conflicts by source", `SELECT source, count() AS keys, sum(times_seen) AS records FROM event_conflicts GROUP BY source ORDER BY records DESC, source LIMIT 10`,
			`SELECT source, uniqExact(event_type, actor_id, occurred_at, payload_hash) AS keys, count() AS records FROM (SELECT source, event_type, actor_id, occurred_at, payload_hash, fate FROM journal FINAL WHERE entry = 'fate') WHERE fate = 'conflict' GROUP BY source ORDER BY records DESC, source LIMIT 10`,
			"journal",
		},
		{
			"funnel of three, 7 days", fmt.Sprintf(`SELECT level, count() AS actors FROM (SELECT actor_id, windowFunnel(86400)(toDateTime(occurred_at), %s) AS level FROM events_physical WHERE source = '%s' AND event_type IN (%s) AND occurred_at >= %s GROUP BY actor_id) GROUP BY level ORDER BY level`, steps, oneSource, stepTypes, at(week)),
			fmt.Sprintf(`SELECT level, count() AS actors FROM (SELECT actor_id, windowFunnel(86400)(toDateTime(occurred_at), %s) AS level FROM event_log WHERE source = '%s' AND event_type IN (%s) AND occurred_at >= %s GROUP BY actor_id) GROUP BY level ORDER BY level SETTINGS use_primary_key = 0`, steps, oneSource, stepTypes, at(week)),
			"primary key",
		},
		{
			"week over week", fmt.Sprintf(`SELECT source, sumIf(events, day > %[1]s) AS this_week, sumIf(events, day <= %[1]s) AS last_week FROM events_per_day WHERE day > %[2]s AND day <= %[3]s GROUP BY source ORDER BY this_week DESC, source`, day(week), day(twoWeeks), day(now)),
			fmt.Sprintf(`SELECT source, countIf(toDate32(occurred_at) > %[1]s) AS this_week, countIf(toDate32(occurred_at) <= %[1]s) AS last_week FROM event_log WHERE toDate32(occurred_at) > %[2]s AND toDate32(occurred_at) <= %[3]s GROUP BY source ORDER BY this_week DESC, source`, day(week), day(twoWeeks), day(now)),
			"rollup by day",
		},
		{
			"completeness, last day by the hour", fmt.Sprintf(`SELECT hour, n, hour + INTERVAL 1 HOUR <= (SELECT min(complete_through) FROM complete_through) AS final FROM (SELECT hour, sum(events) AS n FROM events_per_hour WHERE hour >= %s GROUP BY hour) ORDER BY hour`, at(now.AddDate(0, 0, -1))),
			fmt.Sprintf(`SELECT toDateTime64(toStartOfHour(occurred_at), 0, 'UTC') AS hour, count() AS n, hour + INTERVAL 1 HOUR <= (SELECT min(complete_through) FROM complete_through) AS final FROM event_log WHERE toStartOfHour(occurred_at) >= %s GROUP BY hour ORDER BY hour`, at(now.AddDate(0, 0, -1))),
			"rollup by hour, complete_through",
		},
	}
}
