package migrate

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"sluice/schemas/event"
)

func at(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		panic(err)
	}
	return t
}

// forced makes ClickHouse refuse a query that no projection answers.
var forced = with{"force_optimize_projection": "1", "optimize_use_projections": "1"}

// times are the ends of what can be stored and of what 32-bit seconds and
// ClickHouse's DateTime can hold, with the minute and hour they lie in.
var times = []struct{ at, minute, hour string }{
	{"1900-01-01T00:00:00Z", "1900-01-01 00:00:00", "1900-01-01 00:00:00"},
	{"1900-01-01T00:00:59.999999999Z", "1900-01-01 00:00:00", "1900-01-01 00:00:00"},
	{"1900-12-31T23:59:59.999999999Z", "1900-12-31 23:59:00", "1900-12-31 23:00:00"},
	{"1901-12-13T20:45:51Z", "1901-12-13 20:45:00", "1901-12-13 20:00:00"},
	{"1969-12-31T23:59:59.999999999Z", "1969-12-31 23:59:00", "1969-12-31 23:00:00"},
	{"1970-01-01T00:00:00Z", "1970-01-01 00:00:00", "1970-01-01 00:00:00"},
	{"2026-01-02T03:04:05.123456789Z", "2026-01-02 03:04:00", "2026-01-02 03:00:00"},
	{"2038-01-19T03:14:08Z", "2038-01-19 03:14:00", "2038-01-19 03:00:00"},
	{"2106-02-07T06:28:16.000000001Z", "2106-02-07 06:28:00", "2106-02-07 06:00:00"},
	{"2149-06-07T00:00:00Z", "2149-06-07 00:00:00", "2149-06-07 00:00:00"},
	{"2262-04-11T23:47:16Z", "2262-04-11 23:47:00", "2262-04-11 23:00:00"},
}

// toStartOfMinute returns a DateTime, which knows 1970 to 2106 only: for 1900
// it says 2036.
func TestEveryTimeThatCanBeStored(t *testing.T) {
	require.Equal(t, at(times[0].at), event.Earliest)
	require.Equal(t, at(times[len(times)-1].at), event.Latest)
	d := migrated(t)
	var rows []row
	var minutes, hours, stored []string
	for i, tt := range times {
		rows = append(rows, row{source: fmt.Sprintf("%02d", i), eventType: "t", actor: "a", at: at(tt.at), offset: int64(i)})
		minutes = append(minutes, tt.minute+"\t1\t1")
		hours = append(hours, tt.hour+"\t1\t1")
		stored = append(stored, at(tt.at).Format("2006-01-02 15:04:05.000000000\t200601"))
	}
	d.insert("one", rows...)
	require.Equal(t, minutes, d.lines("SELECT minute, events, actors FROM events_per_minute ORDER BY source", forced))
	require.Equal(t, hours, d.lines("SELECT hour, events, actors FROM events_per_hour ORDER BY source", forced))
	require.Equal(t, stored, d.lines("SELECT occurred_at, _partition_id FROM event_log ORDER BY source"), "one table partition a month")
	for i, tt := range times {
		where := fmt.Sprintf("source = '%02d' AND ", i)
		require.Equal(t, []string{"1"}, d.lines("SELECT sum(events) FROM events_per_minute WHERE "+where+"minute = '"+tt.minute+"'", forced))
		require.Equal(t, []string{"1"}, d.lines("SELECT sum(events) FROM events_per_hour WHERE "+where+"hour = '"+tt.hour+"'", forced))
	}
}

// The rollups are projections, so that nothing can make them differ from the
// table: no repeated INSERT once it is merged away, no DELETE, no dropped
// partition.
func TestRollupsAreTheTables(t *testing.T) {
	d := migrated(t)
	var rows []row
	for i := range 5000 {
		rows = append(rows, row{
			source: fmt.Sprint("s", i%3), eventType: fmt.Sprint("t", i%5), actor: fmt.Sprint(i % 97),
			at: at("2026-01-31T22:00:00Z").Add(time.Duration(i) * 2 * time.Second), offset: int64(i), stamp: time.UnixMilli(int64(i)),
		})
	}
	equal := func(want int, because string) {
		t.Helper()
		w := []string{fmt.Sprint(want)}
		require.Equal(t, w, d.lines("SELECT count() FROM events"), because)
		require.Equal(t, w, d.lines("SELECT sum(events) FROM events_per_minute", forced), because)
		require.Equal(t, w, d.lines("SELECT sum(events) FROM events_per_hour", forced), because)
		for _, unit := range []string{"minute", "hour"} {
			exact := d.lines("SELECT dateTrunc('" + unit + "', occurred_at) AS m, source, event_type, count(), uniqExact(actor_id) FROM events GROUP BY ALL ORDER BY ALL")
			require.Equal(t, exact, d.lines("SELECT "+unit+", source, event_type, events, actors FROM events_per_"+unit+" ORDER BY ALL", forced), because)
		}
	}
	d.exec("SYSTEM STOP MERGES event_log")
	d.insert("one", rows...)
	equal(5000, "inserted")
	d.insert("one", rows...)
	equal(5000, "the same token again")

	d.insert("another", rows[:1000]...)
	require.Equal(t, []string{"5000"}, d.lines("SELECT count() FROM events"), "the view of events is right at once")
	require.Equal(t, []string{"6000"}, d.lines("SELECT sum(events) FROM events_per_minute", forced),
		"rollups count physical rows: it is the consumer's protocol that keeps repeats out")
	d.exec("SYSTEM START MERGES event_log")
	d.exec("OPTIMIZE TABLE event_log FINAL")
	equal(5000, "merged")

	left := func(kept func(r row) bool) int {
		t.Helper()
		rows = slices.DeleteFunc(rows, func(r row) bool { return !kept(r) })
		return len(rows)
	}
	d.exec("DELETE FROM event_log WHERE actor_id = '7'")
	equal(left(func(r row) bool { return r.actor != "7" }), "a lightweight DELETE")
	d.exec("ALTER TABLE event_log DELETE WHERE source = 's0' SETTINGS mutations_sync = 2")
	equal(left(func(r row) bool { return r.source != "s0" }), "a mutation")
	d.exec("ALTER TABLE event_log DROP PARTITION 202602")
	equal(left(func(r row) bool { return r.at.Month() == time.January }), "a dropped partition")
	require.NotEmpty(t, rows)
}

// force_optimize_projection is worth nothing where it isn't enforced.
func TestForcedIsEnforced(t *testing.T) {
	d := migrated(t)
	d.insert("one", row{source: "s", eventType: "t", actor: "a", at: at("2026-01-01T00:00:00Z")})
	_, err := d.ask("SELECT toStartOfMinute(occurred_at) AS m, count() FROM event_log GROUP BY m", forced)
	require.ErrorContains(t, err, "PROJECTION_NOT_USED")
	for view, projection := range map[string]string{"events_per_minute": "by_minute", "events_per_hour": "by_hour"} {
		plan := strings.Join(d.lines("EXPLAIN projections = 1 SELECT source, sum(events) FROM "+view+" WHERE source = 's' GROUP BY source", forced), "\n")
		require.Contains(t, plan, "ReadFromMergeTree ("+projection+")")
	}
}

// A batch's rows are found by their offsets, whatever the size of the table.
func TestOriginsAreFoundByProjection(t *testing.T) {
	d := migrated(t)
	topic := uuid.MustParse("11111111-1111-1111-1111-111111111111")
	d.exec(`INSERT INTO event_log (event_id, source, event_type, actor_id, occurred_at, topic_id, partition, offset)
		SELECT generateUUIDv4(), 's', 't', toString(cityHash64(number)), fromUnixTimestamp64Milli(1767225600000 + number, 'UTC'), ?, number % 4, intDiv(number, 4) FROM numbers(400000)`, topic)
	d.exec("OPTIMIZE TABLE event_log FINAL")
	where := " FROM event_log WHERE topic_id = '" + topic.String() + "' AND partition = 2 AND offset BETWEEN 5000 AND 5099"
	require.Equal(t, []string{"100\t100"}, d.lines("SELECT count(), uniqExact(event_id)"+where))
	// Below a million rows ClickHouse does not bother.
	plan := strings.Join(d.lines("EXPLAIN projections = 1, indexes = 1 SELECT offset, event_id"+where, with{"min_table_rows_to_use_projection_index": "0"}), "\n")
	require.Contains(t, plan, "Name: by_origin")
	require.Regexp(t, `Projections:(?s:.*)Marks: 1\n`, plan)
	plan = strings.Join(d.lines("EXPLAIN projections = 1 SELECT count(), max(offset)"+where), "\n")
	require.Contains(t, plan, "ReadFromMergeTree (by_origin)", "what the index itself holds needs no setting")
}

// Of several rows of one key the earliest record stands, in whatever order they
// were written: by timestamp, then by offset.
func TestTheEarliestRecordStands(t *testing.T) {
	d := migrated(t)
	key := row{source: "s", eventType: "t", actor: "a", at: at("2026-01-01T00:00:00Z")}
	with := func(stamp, offset int64, payload string) row {
		r := key
		r.stamp, r.offset, r.payload = time.UnixMilli(stamp), offset, payload
		return r
	}
	d.exec("SYSTEM STOP MERGES event_log")
	d.insert("1", with(1000, 50, `{"n":2}`))
	d.insert("2", with(999, 1<<40, `{"n":1}`))
	d.insert("3", with(1000, 7, `{"n":3}`))
	d.insert("4", with(event.Latest.UnixMilli(), 0, `{"n":4}`))
	first := []string{`{"n":1}`}
	require.Equal(t, first, d.lines("SELECT payload_text FROM events"))
	d.insert("5", with(-5, 9, `{"n":0}`)) // a timestamp of -1 means none
	first = []string{`{"n":0}`}
	require.Equal(t, first, d.lines("SELECT payload_text FROM events"))
	d.exec("SYSTEM START MERGES event_log")
	d.exec("OPTIMIZE TABLE event_log FINAL")
	require.Equal(t, first, d.lines("SELECT payload_text FROM event_log"))
	require.Equal(t, first, d.lines("SELECT payload FROM events"))
}

// The view's columns are the outside's: people's queries name them.
// A token is remembered with each part, not for the INSERT: where an INSERT left
// one month of two, repeating it whole writes the other and nothing twice. The
// protocol rests on it where an INSERT arrives late (the run delayed-whole-partial
// of deploy/docs/model says what would happen otherwise).
func TestATokenIsRememberedWithEachPart(t *testing.T) {
	d := migrated(t)
	march := row{source: "s", eventType: "t", actor: "a", at: at("2026-03-01T00:00:00Z"), offset: 0}
	april := row{source: "s", eventType: "t", actor: "a", at: at("2026-04-01T00:00:00Z"), offset: 1}
	count := func() []string {
		return d.lines("SELECT _partition_id, count() FROM event_log GROUP BY 1 ORDER BY 1")
	}
	d.insert("one", march)
	d.insert("one", march, april)
	require.Equal(t, []string{"202603\t1", "202604\t1"}, count())
	d.insert("one", march, april)
	d.insert("one", april)
	require.Equal(t, []string{"202603\t1", "202604\t1"}, count())
}

func TestColumnsOfTheViews(t *testing.T) {
	d := migrated(t)
	for view, want := range map[string]string{
		"events":            "event_id,client_event_id,source,event_type,actor_id,occurred_at,payload,payload_text,received_at,inserted_at,topic_id,partition,offset",
		"events_per_minute": "minute,source,event_type,events,actors",
		"events_per_hour":   "hour,source,event_type,events,actors",
		"events_per_day":    "day,source,event_type,events,actors",
		"complete_through":  "source,complete_through",
		"event_conflicts":   "source,event_type,actor_id,occurred_at,event_id,payload_text,times_seen,first_topic_id,first_partition,first_offset,last_topic_id,last_partition,last_offset",
		"balance":           "topic_id,partition,records,rows,duplicates,conflicts,dead_lettered,forwarded,expired,erased,skipped,lost,cut,difference,gaps,overlaps,repeats,twice",
	} {
		got := d.lines("SELECT arrayStringConcat(groupArray(name), ',') FROM (SELECT name FROM system.columns WHERE database = currentDatabase() AND table = '" + view + "' ORDER BY position)")
		require.Equal(t, []string{want}, got, view)
	}
}
