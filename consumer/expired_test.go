package main

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/consumer/internal/erase"
	"sluice/consumer/internal/intent"
	schema "sluice/schemas/clickhouse"
	"sluice/schemas/event"
)

// Times beyond what nanoseconds since 1970 can tell wrapped around: "--before
// 1026-01-01", a slip of the finger, was a watermark of the year 2195, by which all
// that ever came afterwards had expired; and "--upto 9999-12-31" erased nothing, and
// said that it had.
func TestTimesOutOfRangeTakeNothingElse(t *testing.T) {
	now := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	for _, before := range []string{"1026-01-01T00:00:00Z", "1500-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "1899-12-31T23:59:59Z"} {
		_, err := retentionTime(before, 0, 0, now)
		require.ErrorContains(t, err, "nothing occurred before 1900-01-01", before)
		_, err = eraseTime(before, now)
		require.ErrorContains(t, err, "nothing occurred before 1900-01-01", before)
	}
	at, err := retentionTime("", time.Duration(math.MaxInt64), 0, now)
	require.NoError(t, err)
	require.Equal(t, event.Earliest, at)
	for text, want := range map[string]time.Time{
		"":                          now.Add(5 * time.Minute),
		"1900-01-01T00:00:00Z":      event.Earliest,
		"2026-01-02T04:04:05+01:00": time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		"2262-04-12T00:00:00Z":      event.Latest,
		"9999-12-31T23:59:59Z":      event.Latest,
	} {
		at, err := eraseTime(text, now)
		require.NoError(t, err, text)
		require.Equal(t, want, at, text)
	}
}

// Months that retention has dropped do not return, and the sheet adds up over
// them; a run that was cut short is finished by the next.
func TestRetention(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	stop := s.consuming()
	defer func() { stop() }()
	old, kept := time.Date(2025, 3, 5, 0, 0, 0, 0, time.UTC), time.Date(2025, 6, 5, 0, 0, 0, 0, time.UTC)
	var sent []*kgo.Record
	for i := range 300 {
		at := old.AddDate(0, i%2, 0)
		if i%3 == 0 {
			at = kept
		}
		sent = append(sent, recordOf("s", fmt.Sprint(i%7), at.Add(time.Duration(i)*time.Second), `{}`))
	}
	again := func(records []*kgo.Record) (out []*kgo.Record) {
		for _, r := range records {
			out = append(out, &kgo.Record{Key: r.Key, Value: r.Value})
		}
		return out
	}
	s.produce(sent...)
	s.produce(again(sent[:30])...)
	s.produce(recordOf("s", "2", old.Add(2*time.Second), `{"differs":1}`))
	require.Equal(t, 300, s.caughtUp().Rows)
	run := func(args ...string) expired {
		t.Helper()
		var out strings.Builder
		require.NoError(t, s.command(&out, append([]string{"retention", "--json"}, args...)...))
		var r expired
		require.NoError(t, json.Unmarshal([]byte(out.String()), &r))
		return r
	}
	dry := run("--before", "2025-05-20T00:00:00Z", "--dry-run")
	require.EqualValues(t, 200, dry.Rows)
	require.Len(t, dry.Months, 2, "whole months")
	require.EqualValues(t, 300, s.scalar("SELECT count() FROM event_log"))
	require.Error(t, s.command(&strings.Builder{}, "retention", "--before", "2025-05-20T00:00:00Z"), "--yes is missing")
	require.Error(t, s.command(&strings.Builder{}, "retention", "--before", "2999-01-01T00:00:00Z", "--yes"), "the future")

	// The counts are written, and then the run dies: begun again it writes the same.
	months, err := erase.Before(t.Context(), s.store.Conn(), dry.Before)
	require.NoError(t, err)
	require.NoError(t, s.store.Conn().Exec(t.Context(), `INSERT INTO journal (topic_id, topic, partition, entry, offset, last_offset, fate, records)
		SELECT topic_id, 'events', partition, 'fate', min(offset) AS first, first, 'expired', count() FROM event_log WHERE _partition_id = ? GROUP BY topic_id, partition`, fmt.Sprint(months[0].Month)))
	s.begin()
	require.EqualValues(t, 200, run("--before", "2025-05-20T00:00:00Z", "--yes").Rows)

	stays := func(expired int) {
		t.Helper()
		r := s.caughtUp()
		require.True(t, r.OK, "%+v", r)
		require.Equal(t, 100, r.Rows)
		require.EqualValues(t, 100, s.scalar("SELECT count() FROM event_log"))
		require.Zero(t, s.wrong())
		require.Equal(t, expired, s.total("expired"))
		require.Zero(t, s.scalar("SELECT count() FROM event_conflicts"), "conflicts' payloads are kept no longer")
	}
	expired := 200 + 20 + 1 // rows, the duplicates of them, the conflict
	stays(expired)
	require.NotZero(t, s.verified().Unverifiable)
	s.produce(again(sent)...)
	stays(expired + 200)
	stop()
	stop = s.readAgain()
	stays(expired + 200)
	s.takenOnPurpose(replayed{Records: 631, Present: 210, Expired: 421})
	require.EqualValues(t, 0, run("--before", "2025-05-20T00:00:00Z", "--yes").Rows)
}

// Rows were lost, and then retention took the month of some: no replay brought those back
// any more, and the sheet lacked them for good. Nobody had been told.
func TestRetentionWaitsForWhatAReplayWouldBringBack(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	defer s.consuming()()
	for i := range 20 {
		s.produce(recordOf("s", fmt.Sprint(i), time.Date(2025, time.Month(3+i%3), 5, 0, 0, 0, 0, time.UTC), `{}`))
	}
	require.Equal(t, 20, s.caughtUp().Rows)
	s.exec("ALTER TABLE event_log DELETE WHERE toMonth(occurred_at) = 3 SETTINGS mutations_sync = 2")
	march := []string{"retention", "--before", "2025-04-01T00:00:00Z"}
	dry, said, status := s.says(append(march, "--dry-run")...)
	require.Zero(t, status, said)
	require.Contains(t, dry, "7 records have neither row nor fate")
	_, said, status = s.says(append(march, "--yes")...)
	require.Equal(t, 1, status)
	require.Contains(t, said, "7 records have neither row nor fate")
	require.Contains(t, said, "consumer replay --from earliest --yes")
	require.Zero(t, s.scalar("SELECT count() FROM tombstones"), "nothing is done")
	require.Zero(t, s.scalar("SELECT count() FROM operations WHERE kind = 'retention'"))

	_, said, status = s.says("replay", "--from", "earliest", "--yes")
	require.Zero(t, status, said)
	s.exec("CREATE TABLE march ENGINE = Memory AS SELECT " + rowColumns + " FROM event_log WHERE toMonth(occurred_at) = 3")
	_, said, status = s.says(append(march, "--yes")...)
	require.Zero(t, status, said)
	require.Equal(t, 7, s.total("expired"))
	require.Zero(t, s.wrong(), s.sheet())

	s.exec("ALTER TABLE event_log DELETE WHERE toMonth(occurred_at) = 4 SETTINGS mutations_sync = 2")
	_, said, status = s.says(append(march, "--yes")...)
	require.Zero(t, status, "no more expires than had: %s", said)
	april := []string{"retention", "--before", "2025-05-01T00:00:00Z", "--yes"}
	// Had the one of March died before its drop, what it counted would make up for that.
	s.exec("INSERT INTO event_log (" + rowColumns + ") SELECT " + rowColumns + " FROM march")
	_, said, status = s.says(april...)
	require.Equal(t, 2, status, said)
	require.Contains(t, said, "finish it first (consumer retention --before 2025-04-01T00:00:00Z --yes)")
	_, said, status = s.says(append(march, "--yes")...)
	require.Zero(t, status, said)
	_, said, status = s.says(april...)
	require.Equal(t, 1, status, said)
	_, said, status = s.says(append(april, "--despite-missing")...)
	require.Zero(t, status, said)
	require.EqualValues(t, 1, s.scalar(`SELECT count() FROM operations FINAL WHERE kind = 'retention' AND JSONExtractUInt(detail, 'missing') = 7`))
	require.Equal(t, 7, s.wrong(), "what the command says: %s", s.sheet())
	_, said, status = s.says(april...)
	require.Zero(t, status, "it is done: %s", said)
}

// What retention drops is counted by the month, at one offset. Where a part of the
// journal was lost, the records of it were given fates of their own once more, or were
// taken for lost, and the sheet counted them twice.
func TestWhatHasExpiredIsCountedOnceThoughTheJournalIsLost(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	defer cluster.Close()
	s := newStackOn(t, cluster.ListenAddrs(), func(c *config) { c.Topics.Partitions, c.Batch.Rows = 1, 10 })
	stop := s.consuming()
	defer func() { stop() }()
	old := s.expiredAndKept()
	end := uint64(60)
	journaled := s.journaled

	// A retention that has counted and not dropped yet: what comes meanwhile is new.
	s.exec("INSERT INTO event_log (" + rowColumns + `) SELECT generateUUIDv4(), '', 's', 't', 'between', toDateTime64('2025-03-06 00:00:00', 9, 'UTC') + number, '{}', toFixedString('', 16), now64(3),
		topic_id, 0, offset + number, now64(3) FROM (SELECT topic_id, min(offset) AS offset FROM journal WHERE fate = 'expired' GROUP BY topic_id) AS j, numbers(3) AS n`)
	s.produce(recordOf("s", "between", old, `{}`))
	end++
	journaled(end)
	require.Equal(t, 37, s.total("expired"), s.sheet())
	s.exec("ALTER TABLE event_log DELETE WHERE actor_id = 'between' SETTINGS mutations_sync = 2")
	require.Zero(t, s.wrong(), s.sheet())

	for _, c := range []struct {
		gone  string // of the journal
		start int64  // of the log, from then on
		lost  int
	}{
		{gone: "entry = 'batch' AND offset BETWEEN 20 AND 39"},
		{gone: "offset BETWEEN 20 AND 39"},
		{gone: "offset >= 20"}, // to the end
		{gone: "entry = 'batch' AND offset < 20"},
		{gone: "NOT (entry = 'fate' AND records > 1)"},
		{gone: "entry = 'batch' AND offset BETWEEN 20 AND 29", start: 30},
		{gone: "offset BETWEEN 10 AND 29", start: 30, lost: 2}, // the repeats of what is kept
	} {
		stop()
		s.exec("ALTER TABLE journal DELETE WHERE " + c.gone + " SETTINGS mutations_sync = 2")
		if c.start > 0 {
			var upto kadm.Offsets
			upto.Add(kadm.Offset{Topic: s.cfg.Kafka.Topic, At: c.start})
			_, err := kadm.NewClient(s.producer).DeleteRecords(t.Context(), upto)
			require.NoError(t, err)
		}
		stop = s.consuming()
		journaled(end)
		require.Zero(t, s.wrong(), "%s: %s", c.gone, s.sheet())
		require.Equal(t, c.lost, s.total("lost"), c.gone)
		require.Equal(t, 18, s.total("rows"), c.gone)
		// What comes late has a fate of its own, as ever.
		expired := s.total("expired")
		s.produce(recordOf("s", "late", old, `{}`))
		end++
		journaled(end)
		require.Equal(t, expired+1, s.total("expired"), c.gone)
		require.Zero(t, s.wrong(), "%s: %s", c.gone, s.sheet())
	}
}

// sheet is the balance, for a message.
func (s *stack) sheet() (text string) {
	s.t.Helper()
	require.NoError(s.t, s.store.Conn().QueryRow(s.t.Context(), `SELECT arrayStringConcat(groupArray(toString((partition, records, rows, duplicates, expired, lost, difference, gaps, twice))), ' ') FROM balance`).Scan(&text))
	return text
}

// expiredAndKept makes six batches, each of five rows that expire, three that don't, and
// a repeat of each, and has retention take what is old.
func (s *stack) expiredAndKept() (old time.Time) {
	s.t.Helper()
	old = time.Date(2025, 3, 5, 0, 0, 0, 0, time.UTC)
	kept := time.Now().Add(-time.Hour)
	for round := range 6 {
		var records []*kgo.Record
		for i := range 10 {
			at, n := old, i%8
			if n > 4 || i == 9 {
				at, n = kept, max(n, 5)
			}
			records = append(records, recordOf("s", fmt.Sprint(round, "-", n), at, `{}`))
		}
		s.produce(records...)
		s.journaled(uint64(10 * (round + 1)))
	}
	require.NoError(s.t, s.command(&strings.Builder{}, "retention", "--before", "2025-05-01T00:00:00Z", "--yes"))
	require.Equal(s.t, 36, s.total("expired"))
	require.Equal(s.t, 18, s.total("rows"))
	require.Zero(s.t, s.wrong(), s.sheet())
	return old
}

// journaled waits until the journal of the only partition has no gap before its end.
func (s *stack) journaled(end uint64) {
	s.t.Helper()
	ranges := strings.NewReplacer("topic_id = ? AND partition = ? AND ", "").Replace(schema.ContiguousRanges)
	require.Eventually(s.t, func() bool {
		return s.scalar("SELECT toUInt64(if(count() = 1 AND max(first) = 0, max(end), 0)) FROM ("+ranges+")") == end
	}, time.Minute, 20*time.Millisecond, "offset %d", end)
}

// How many records of a gap in the journal had expired was told from what the sheet lacks.
// Where rows had been lost beside the gap it lacks those too: as many of the expired got
// fates of their own once more, and when the rows were back the sheet was wrong for good.
func TestWhatHasExpiredIsCountedOnceThoughRowsAreLostToo(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	defer cluster.Close()
	s := newStackOn(t, cluster.ListenAddrs(), func(c *config) { c.Topics.Partitions, c.Batch.Rows = 1, 10 })
	stop := s.consuming()
	defer func() { stop() }()
	s.expiredAndKept()
	var log uuid.UUID
	require.NoError(t, s.store.Conn().QueryRow(t.Context(), "SELECT any(topic_id) FROM journal").Scan(&log))
	again := intent.ClosedAt(40, log, 1)
	again.CompareTo = 59
	for _, c := range []struct {
		journal, rows string
		commit        string // at 40
	}{
		{journal: "entry = 'batch' AND offset BETWEEN 20 AND 39", rows: "offset BETWEEN 40 AND 59"}, // of an island
		{journal: "entry = 'batch' AND offset BETWEEN 20 AND 39", rows: "offset BETWEEN 0 AND 9"},   // before the gap
		{journal: "entry = 'batch' AND offset BETWEEN 20 AND 39", rows: "1"},
		{journal: "offset BETWEEN 10 AND 19 OR entry = 'batch' AND offset BETWEEN 30 AND 49", rows: "1"},
		{journal: "offset >= 30", rows: "offset < 30"}, // to the end
		{journal: "entry = 'batch' AND offset < 20", rows: "offset >= 30"},
		// To the end, and the first owner that decided it again came up to 40 only.
		{journal: "offset >= 40", rows: "1", commit: again.Metadata()},
		// To the end, and the group's offset was set by hand.
		{journal: "offset >= 40", rows: "offset < 40", commit: "by hand"},
	} {
		stop()
		s.exec("ALTER TABLE journal DELETE WHERE " + c.journal + " SETTINGS mutations_sync = 2")
		s.exec("ALTER TABLE event_log DELETE WHERE " + c.rows + " SETTINGS mutations_sync = 2")
		if c.commit != "" {
			var at kadm.Offsets
			at.Add(kadm.Offset{Topic: s.cfg.Kafka.Topic, At: 40, LeaderEpoch: -1, Metadata: c.commit})
			_, err := kadm.NewClient(s.producer).CommitOffsets(t.Context(), s.cfg.Group.ID, at)
			require.NoError(t, err)
		}
		stop = s.consuming()
		s.journaled(60)
		require.NoError(t, s.command(&strings.Builder{}, "replay", "--from", "earliest", "--yes"))
		require.Zero(t, s.wrong(), "%+v: %s", c, s.sheet())
		require.Equal(t, 18, s.total("rows"), c)
		require.Equal(t, 36, s.total("expired"), c)
	}
}
