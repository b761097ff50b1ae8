package migrate

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"sluice/deploy/local/enginetest"
)

// rollups are the views that projections are to answer, with the projection
// and what an analyst asks of them.
var rollups = []struct{ query, projection string }{
	{"SELECT event_type, sum(events) FROM events_per_minute WHERE minute >= '2026-01-01 00:10:00' GROUP BY event_type", "by_minute"},
	{"SELECT source, max(actors) FROM events_per_hour GROUP BY source", "by_hour"},
	{"SELECT day, sum(events) FROM events_per_day WHERE source = 's1' AND day >= '2026-01-01' GROUP BY day", "by_day"},
	{"SELECT day, actors FROM events_daily_actives WHERE day >= '2026-01-01'", "actives"},
	{"SELECT day, actors FROM source_daily_actives WHERE source = 's1'", "by_day"},
	{"SELECT sum(repeats) FROM events_guard", "origin_blocks"},
	{"SELECT source, sum(events) FROM late_events_per_day WHERE late_from >= 0 GROUP BY source", "late"},
	{"SELECT toDate32(occurred_at) AS day, source, count() FROM events_physical GROUP BY day, source", "by_day"},
}

// several is n events over a few sources, types and actors, a minute apart.
func several(n int) []row {
	rows := make([]row, n)
	for i := range rows {
		rows[i] = row{
			source: fmt.Sprint("s", i%3), eventType: fmt.Sprint("t", i%5), actor: fmt.Sprint(i % 97),
			at: at("2026-01-01T00:00:00Z").Add(time.Duration(i) * time.Minute), offset: int64(i), stamp: time.UnixMilli(int64(i)),
		}
	}
	return rows
}

// A view whose text strays from its projection's by a cast is still right, and
// reads the whole table for it: nothing else would notice.
func TestEachRollupIsAnsweredByItsProjection(t *testing.T) {
	d := migrated(t)
	d.insert("one", several(3000)...)
	for _, r := range rollups {
		plan := strings.Join(d.lines("EXPLAIN projections = 1 "+r.query, forced), "\n")
		require.Contains(t, plan, "ReadFromMergeTree ("+r.projection+")", r.query)
		require.NotEmpty(t, d.lines(r.query, forced), r.query)
	}
	for query, want := range map[string]string{
		"SELECT day, source, event_type, events, actors FROM events_per_day ORDER BY ALL": "SELECT toDate(occurred_at) AS day, source, event_type, count(), uniqExact(actor_id) FROM events GROUP BY ALL ORDER BY ALL",
		"SELECT day, actors, events FROM events_daily_actives ORDER BY ALL":               "SELECT toDate(occurred_at) AS day, uniqExact(actor_id), count() FROM events GROUP BY ALL ORDER BY ALL",
		"SELECT day, source, actors, events FROM source_daily_actives ORDER BY ALL":       "SELECT toDate(occurred_at) AS day, source, uniqExact(actor_id), count() FROM events GROUP BY ALL ORDER BY ALL",
	} {
		require.Equal(t, d.lines(want), d.lines(query, forced), query)
	}
	for _, end := range []string{times[0].at, times[len(times)-1].at} {
		d.insert(end, row{source: "end", eventType: "t", actor: "a", at: at(end), offset: 1 << 20})
		day := at(end).Format(time.DateOnly)
		require.Equal(t, []string{"1\t1"}, d.lines("SELECT events, actors FROM events_daily_actives WHERE day = '"+day+"'", forced))
		require.Equal(t, []string{"1\t1"}, d.lines("SELECT events, actors FROM events_per_day WHERE day = '"+day+"'", forced))
	}
}

// What a materialized view would have counted where the rollups are right: it
// adds up what was inserted, and learns of nothing that happens afterwards.
func TestAMaterializedViewWouldDiffer(t *testing.T) {
	d := migrated(t)
	d.exec("CREATE TABLE summed (day Date32, source String, event_type String, events UInt64) ENGINE = SummingMergeTree ORDER BY (day, source, event_type)")
	d.exec("CREATE MATERIALIZED VIEW sums TO summed AS SELECT toDate32(occurred_at) AS day, source, event_type, count() AS events FROM event_log GROUP BY day, source, event_type")
	rows := several(5000)
	d.insert("one", rows...)
	d.insert("two", rows[:1000]...) // a repeat, under a token of its own
	d.exec("OPTIMIZE TABLE event_log FINAL")
	d.exec("DELETE FROM event_log WHERE actor_id = '7'")
	d.exec("ALTER TABLE event_log DELETE WHERE source = 's0' SETTINGS mutations_sync = 2")

	truth := d.lines("SELECT count() FROM events")
	require.NotEqual(t, []string{"5000"}, truth)
	require.Equal(t, truth, d.lines("SELECT sum(events) FROM events_per_day", forced))
	require.Equal(t, []string{"6000"}, d.lines("SELECT sum(events) FROM summed"), "every row ever inserted, twice where it was inserted twice")
}

// A repeat outside the protocol's reach shows in events_physical and the
// rollups, is no part of events, and events_guard tells of it.
func TestTheGuardSeesARepeat(t *testing.T) {
	d := migrated(t)
	d.exec("SYSTEM STOP MERGES event_log")
	topic := uuid.MustParse("11111111-1111-1111-1111-111111111111")
	rows := several(300)
	for i := range rows {
		rows[i].topic, rows[i].partition, rows[i].offset = topic, int32(i%2), int64(i)*1000
	}
	d.insert("one", rows...)
	guard := func() []string {
		return d.lines("SELECT partition, rows, records, repeats FROM events_guard ORDER BY partition", forced)
	}
	require.Equal(t, []string{"0\t150\t150\t0", "1\t150\t150\t0"}, guard())
	d.insert("two", rows[:11]...)
	require.Equal(t, []string{"0\t156\t150\t6", "1\t155\t150\t5"}, guard())
	require.Equal(t, []string{"300"}, d.lines("SELECT count() FROM events"))
	require.Equal(t, []string{"311"}, d.lines("SELECT count() FROM events_physical"))
	d.exec("SYSTEM START MERGES event_log")
	d.exec("OPTIMIZE TABLE event_log FINAL")
	require.Equal(t, []string{"0\t150\t150\t0", "1\t150\t150\t0"}, guard())
	require.Equal(t, []string{"300"}, d.lines("SELECT count() FROM events_physical"))
}

// A rollup is added while rows come in: a part without the projection is read
// as it is, so the figures are right before, while and after it is made.
func TestARollupIsAddedWithoutAStop(t *testing.T) {
	d := in(t, enginetest.Start(t), "sluice")
	d.up()
	const week = "SELECT toMonday(occurred_at) AS week, count() FROM event_log GROUP BY week ORDER BY week"
	rows := several(4000)
	d.insert("one", rows[:2000]...)
	before := d.lines(week)
	d.exec("ALTER TABLE event_log ADD PROJECTION by_week (SELECT toMonday(occurred_at) AS week, count() GROUP BY week)")
	require.Equal(t, before, d.lines(week))
	d.insert("two", rows[2000:]...)
	want := d.lines("SELECT toMonday(occurred_at) AS week, countIf(offset >= 0) FROM event_log GROUP BY week ORDER BY week")
	require.Equal(t, want, d.lines(week), "one part has the projection, the other has not")
	_, err := d.ask(week, forced)
	require.NoError(t, err, "a part without it is computed from its rows")
	d.exec("ALTER TABLE event_log MATERIALIZE PROJECTION by_week SETTINGS mutations_sync = 2")
	require.Equal(t, want, d.lines(week, forced))
	require.Equal(t, []string{"2"}, d.lines("SELECT count() FROM system.projection_parts WHERE database = currentDatabase() AND name = 'by_week' AND active"))
}

// Whose history is asked for is found by an index of its own, in every part.
func TestAnActorIsFoundWithoutReadingEveryone(t *testing.T) {
	d := migrated(t)
	d.insert("one", several(30_000)...)
	const query = "SELECT occurred_at, payload_text FROM events_physical WHERE actor_id = '13' ORDER BY occurred_at"
	require.Len(t, d.lines(query), len(several(30_000))/97+1)
	// Below a million rows ClickHouse does not bother.
	plan := strings.Join(d.lines("EXPLAIN projections = 1, indexes = 1 "+query, with{"min_table_rows_to_use_projection_index": "0"}), "\n")
	require.Contains(t, plan, "Name: by_actor")
}

// Lateness is in whole numbers: no time can make it throw, which would fail the
// INSERT.
func TestLateEvents(t *testing.T) {
	d := migrated(t)
	for i, late := range []string{"-INTERVAL 1 DAY", "INTERVAL 59999 MILLISECOND", "INTERVAL 1 MINUTE", "INTERVAL 1 HOUR", "INTERVAL 1 DAY", "INTERVAL 8 DAY"} {
		d.exec(fmt.Sprintf("INSERT INTO event_log (source, event_type, actor_id, occurred_at, received_at, offset) SELECT 's', 't', 'a', toDateTime64('2026-01-01 00:00:00', 9, 'UTC') AS o, o + %s, %d", late, i))
	}
	require.Equal(t, []string{"0\t2", "60\t1", "3600\t1", "86400\t1", "604800\t1"}, d.lines("SELECT late_from, sum(events) FROM late_events_per_day GROUP BY late_from ORDER BY late_from", forced))
	for i, end := range []time.Time{at(times[0].at), at(times[len(times)-1].at)} {
		for _, received := range []int64{-62135596800000, 0, 253402300799999} {
			d.exec(fmt.Sprintf("INSERT INTO event_log (source, event_type, actor_id, occurred_at, received_at, offset) SELECT 'end', 't', 'a', fromUnixTimestamp64Nano(toInt64(%d), 'UTC'), fromUnixTimestamp64Milli(toInt64(%d), 'UTC'), %d", end.UnixNano(), received, 100+i))
		}
	}
	require.Equal(t, []string{"6"}, d.lines("SELECT sum(events) FROM late_events_per_day WHERE source = 'end'", forced))
}
