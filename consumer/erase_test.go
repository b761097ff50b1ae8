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
	"sluice/consumer/internal/replay"
	"sluice/consumer/internal/tombstone"
	schema "sluice/schemas/clickhouse"
	"sluice/schemas/event"
)

func recordOf(source, actor string, at time.Time, payload string) *kgo.Record {
	e := event.Event{Source: source, EventType: "t", ActorID: actor, OccurredAt: at.UTC(), Payload: []byte(payload)}
	return &kgo.Record{Key: e.AppendKey(nil), Value: e.AppendJSON(nil)}
}

// total is a column of the balance over all partitions.
func (s *stack) total(column string) int {
	s.t.Helper()
	return int(s.scalar("SELECT toUInt64(sum(toUInt64(" + column + "))) FROM balance"))
}

func (s *stack) wrong() int {
	s.t.Helper()
	return int(s.scalar("SELECT toUInt64(sum(abs(difference)) + sum(gaps + overlaps + repeats + twice)) FROM balance"))
}

// caughtUp waits until the journal has all of the log.
func (s *stack) caughtUp() report { return s.verified() }

// readAgain consumes from offset 0 on, as after an operator's reset.
func (s *stack) readAgain() (stop func()) {
	s.t.Helper()
	var zero kadm.Offsets
	for p := range s.cfg.Topics.Partitions {
		zero.Add(kadm.Offset{Topic: s.cfg.Kafka.Topic, Partition: p, At: 0, LeaderEpoch: -1})
	}
	require.NoError(s.t, kadm.NewClient(s.producer).CommitAllOffsets(s.t.Context(), s.cfg.Group.ID, zero))
	return s.consuming()
}

// What is erased is gone from every table, and neither a late duplicate nor a
// replay brings it back, while the balance and verify stay right. The actor may
// go on, and names are data.
func TestWhatIsErasedStaysGone(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	stop := s.consuming()
	defer func() { stop() }()
	const actor = `o'Brien"; DROP TABLE event_log; -- é😀\`
	at := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	var sent []*kgo.Record
	for i := range 200 {
		name := actor
		if i%4 != 0 {
			name = fmt.Sprint("other-", i%5)
		}
		sent = append(sent, recordOf(fmt.Sprint("s", i%2), name, at.Add(time.Duration(i)*time.Second), fmt.Sprintf(`{"n":%d}`, i)))
	}
	again := func(records []*kgo.Record) []*kgo.Record {
		var out []*kgo.Record
		for _, r := range records {
			out = append(out, &kgo.Record{Key: r.Key, Value: r.Value})
		}
		return out
	}
	s.produce(sent...)
	s.produce(again(sent[:20])...)
	s.produce(recordOf("s0", actor, at, `{"n":"differs"}`), recordOf("s1", "other-1", at.Add(time.Second), `{"n":"differs"}`))
	before := s.caughtUp()
	require.True(t, before.OK)
	require.Equal(t, 200, before.Rows)

	run := func(args ...string) (erased, error) {
		t.Helper()
		var out strings.Builder
		err := s.command(&out, append([]string{"erase", "--actor", actor, "--json"}, args...)...)
		var r erased
		if err == nil {
			require.NoError(t, json.Unmarshal([]byte(out.String()), &r))
		}
		return r, err
	}
	_, err := run()
	require.ErrorContains(t, err, "--yes")
	dry, err := run("--dry-run")
	require.NoError(t, err)
	require.Equal(t, erase.Found{Rows: 50, Fates: 5, Conflicts: 1}, dry.Found)
	require.EqualValues(t, 200, s.scalar("SELECT count() FROM event_log"), "a dry run changes nothing")
	require.Zero(t, s.scalar("SELECT count() FROM tombstones"))
	s.begin()
	done, err := run("--yes")
	require.NoError(t, err)
	require.Equal(t, dry.Found, done.Found)

	gone := func(times int) {
		t.Helper()
		r := s.caughtUp()
		require.True(t, r.OK, "%+v", r)
		require.Equal(t, 150, r.Rows)
		require.Zero(t, s.wrong())
		require.Equal(t, times, s.total("erased"))
		for _, table := range []string{"event_log", "journal"} {
			require.Zero(t, s.scalar("SELECT count() FROM "+table+" WHERE actor_id LIKE 'o%Brien%'"), table)
		}
		require.EqualValues(t, 1, s.scalar("SELECT count() FROM event_conflicts"))
		require.Zero(t, s.scalar(`SELECT count() FROM operations WHERE detail LIKE '%Brien%'`), "the audit does not name whom it is about")
	}
	gone(56)
	s.produce(again(sent)...)
	gone(106)
	stop()
	stop = s.readAgain()
	gone(106)
	_, err = run("--yes")
	require.NoError(t, err, "again: there is nothing left to do")
	gone(106)
	s.takenOnPurpose(replayed{Records: 422, Present: 316, Erased: 106})
	// The fates are gone, the tombstone is not: a replay brings nothing back but them.
	s.exec("ALTER TABLE journal DELETE WHERE entry = 'fate' AND fate = 'erased' SETTINGS mutations_sync = 2")
	s.takenOnPurpose(replayed{Records: 422, Present: 316, Erased: 106, Written: 106})
	gone(106)
	stop()
	stop = s.readAgain()
	gone(106)

	// A dead letter of the actor would become none either, and show says so.
	letter := &kgo.Record{Topic: s.cfg.Kafka.DeadLetters, Key: sent[0].Key, Value: sent[0].Value}
	require.NoError(t, s.producer.ProduceSync(t.Context(), letter).FirstErr())
	out, said, status := s.says("dlq", "list", "--json")
	require.Zero(t, status, said)
	out, said, status = s.says("dlq", "show", lines[struct{ Origin string }](t, out)[0].Origin)
	require.Zero(t, status, said)
	require.Contains(t, out, "now      no row: erased")

	s.produce(recordOf("s0", actor, time.Now().Add(time.Hour), `{"n":"new"}`))
	require.Equal(t, 151, s.caughtUp().Rows, "what the actor does later is new")
	require.EqualValues(t, 1, s.scalar("SELECT count() FROM operations FINAL WHERE kind = 'erase' AND state = 'done' AND id = '"+done.Operation.String()+"'"))
}

// begin is a rebuilding that goes on later.
func (s *stack) begin() {
	s.t.Helper()
	s.exec("CREATE TABLE begun AS event_log")
	s.exec("INSERT INTO begun (" + rowColumns + ") SELECT " + rowColumns + " FROM event_log")
}

// takenOnPurpose checks that replays, dry or not, say of what was taken that it
// was, and bring nothing back, into a new table neither. They once said that it
// was missing, and rebuilt the rows of it.
func (s *stack) takenOnPurpose(want replayed) {
	s.t.Helper()
	rows := s.scalar("SELECT count() FROM event_log")
	for _, args := range [][]string{{"--dry-run"}, {"--yes"}} {
		got, said := s.replayed(0, append(args, "--from", "earliest")...)
		expected := want
		if args[0] == "--dry-run" {
			expected.Written = 0
		}
		require.Equal(s.t, expected, got, said)
	}
	// The table was begun before: it has rows that were taken since.
	s.exec("CREATE TABLE rebuilt AS event_log")
	s.exec("INSERT INTO rebuilt (" + rowColumns + ") SELECT " + rowColumns + " FROM begun")
	_, said, status := s.says("replay", "--from", "earliest", "--into", "rebuilt")
	require.Zero(s.t, status, said)
	require.EqualValues(s.t, rows, s.scalar("SELECT count() FROM rebuilt"))
	require.Zero(s.t, s.scalar("SELECT count() FROM rebuilt WHERE event_id NOT IN (SELECT event_id FROM event_log)"))
	s.exec("DROP TABLE rebuilt")
	require.EqualValues(s.t, rows, s.scalar("SELECT count() FROM event_log"))
}

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

// What is under way when an erasure begins, and what is cut short. An INSERT of a
// replay, decided before the tombstone, once came after the DELETE: the row was back,
// and beside it stood the fate "erased". An erasure that was cut short between its
// fates and its DELETE, and a retention between its counts and the drop of the month,
// gave the same rows two fates, as did both at once.
func TestTakingIsAloneAndWhole(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	stop := s.consuming()
	defer stop()
	old := time.Date(2025, 3, 5, 0, 0, 0, 0, time.UTC)
	for _, actor := range []string{"a", "b", "c"} {
		for i := range 20 {
			s.produce(recordOf("s", actor, old.Add(time.Duration(i)*time.Second), `{}`))
		}
	}
	require.Equal(t, 60, s.caughtUp().Rows)
	conn := s.store.Conn()

	s.exec("CREATE TABLE gone AS event_log")
	s.exec("INSERT INTO gone (" + rowColumns + ") SELECT " + rowColumns + " FROM event_log WHERE actor_id = 'a'")
	s.exec("ALTER TABLE event_log DELETE WHERE actor_id = 'a' SETTINGS mutations_sync = 2")
	landing := make(chan error, 1)
	go func() { // what a replay brings back, on its way
		landing <- conn.Exec(t.Context(), "INSERT INTO event_log ("+rowColumns+") SELECT "+rowColumns+" FROM gone WHERE sleepEachRow(0.25) = 0 SETTINGS log_comment = 'sluice/test', max_threads = 1, function_sleep_max_microseconds_per_block = 10000000")
	}()
	require.Eventually(t, func() bool {
		return s.scalar("SELECT count() FROM system.processes WHERE Settings['log_comment'] = 'sluice/test'") > 0
	}, 10*time.Second, 5*time.Millisecond)
	require.NoError(t, s.command(&strings.Builder{}, "erase", "--actor", "a", "--yes"))
	require.NoError(t, <-landing)
	require.Zero(t, s.scalar("SELECT count() FROM event_log WHERE actor_id = 'a'"))
	require.Zero(t, s.wrong())

	// An erasure that dies before its DELETE, then a retention.
	s.exec(`INSERT INTO journal (topic_id, topic, partition, entry, offset, last_offset, fate, records)
		SELECT topic_id, 'events', partition, 'fate', offset, offset, 'erased', 1 FROM event_log WHERE actor_id = 'b'`)
	// A retention that dies before its drop, then an erasure.
	month := time.Date(2025, 4, 1, 0, 0, 0, 0, time.UTC)
	require.NoError(t, erase.Watermark(t.Context(), conn, month, uuid.New()))
	require.ErrorContains(t, s.command(&strings.Builder{}, "erase", "--actor", "c", "--yes"), "consumer retention --before 2025-04-01T00:00:00Z --yes")
	require.NoError(t, s.command(&strings.Builder{}, "retention", "--before", "2025-04-01T00:00:00Z", "--yes"))
	require.NoError(t, s.command(&strings.Builder{}, "erase", "--actor", "c", "--yes"))
	require.Zero(t, s.scalar("SELECT count() FROM event_log"))
	require.Zero(t, s.wrong())
	require.Equal(t, 40, s.total("erased"))
	require.Equal(t, 20, s.total("expired"))
	require.True(t, s.verified().OK)

	release, err := replay.Take(t.Context(), s.cfg.Kafka.Options(s.log), s.cfg.Kafka.Control,
		replay.Lease{Kind: "erasure or retention", Run: uuid.New(), By: "ada@home", Since: time.Now()})
	require.NoError(t, err)
	for _, args := range [][]string{{"erase", "--actor", "c", "--yes"}, {"retention", "--before", "2025-04-01T00:00:00Z", "--yes"}} {
		_, said, status := s.says(args...)
		require.Equal(t, 3, status)
		require.Contains(t, said, "ada@home")
	}
	release()
}

// One source of an actor's is erased, the other stays.
func TestErasureOfOneSource(t *testing.T) {
	s := newStack(t)
	stop := s.consuming()
	defer stop()
	at := time.Now().Add(-time.Hour)
	s.produce(recordOf("s0", "a", at, `{}`), recordOf("s1", "a", at, `{}`), recordOf("s0", "b", at, `{}`))
	require.Equal(t, 3, s.caughtUp().Rows)
	require.NoError(t, s.command(&strings.Builder{}, "erase", "--actor", "a", "--source", "s0", "--yes"))
	require.EqualValues(t, 2, s.scalar("SELECT count() FROM event_log"))
	require.EqualValues(t, 1, s.scalar("SELECT count() FROM event_log WHERE actor_id = 'a' AND source = 's1'"))
	require.True(t, s.caughtUp().OK)
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

// What is new was told from how many lines there are and when the last was written.
// With the server's clock set back, and a line merged away meanwhile, a tombstone
// went unseen.
func TestATombstoneIsSeenWhateverTheClockSays(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.exec("SYSTEM STOP MERGES tombstones")
	for range 2 {
		s.exec("INSERT INTO tombstones (kind, source, actor, upto, operation, written_at) VALUES ('actor', '', unhex(hex(SHA256('one'))), '2026-01-01 00:00:00', generateUUIDv4(), '2026-02-02 00:00:00')")
	}
	c := tombstone.NewCache(s.store.Conn())
	_, err := c.Get(t.Context())
	require.NoError(t, err)
	s.exec("SYSTEM START MERGES tombstones")
	s.exec("OPTIMIZE TABLE tombstones FINAL")
	s.exec("INSERT INTO tombstones (kind, source, actor, upto, operation, written_at) VALUES ('actor', '', unhex(hex(SHA256('two'))), '2026-01-01 00:00:00', generateUUIDv4(), '2026-01-01 00:00:00')")
	require.EqualValues(t, 2, s.scalar("SELECT count() FROM tombstones"))
	time.Sleep(tombstone.MaxAge)
	set, err := c.Get(t.Context())
	require.NoError(t, err)
	_, taken := set.Fate(&event.Event{ActorID: "two", OccurredAt: time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)})
	require.True(t, taken)
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
	journaled := func(end uint64) {
		t.Helper()
		require.Eventually(t, func() bool {
			return s.scalar("SELECT toUInt64(if(count() = 1 AND max(first) = 0, max(end), 0)) FROM ("+strings.NewReplacer("topic_id = ? AND partition = ? AND ", "").Replace(schema.ContiguousRanges)+")") == end
		}, time.Minute, 20*time.Millisecond, "offset %d", end)
	}
	old, kept := time.Date(2025, 3, 5, 0, 0, 0, 0, time.UTC), time.Now().Add(-time.Hour)
	end := uint64(0)
	for round := range 6 { // each is a batch, of five rows that expire, three that don't, a repeat of each
		var records []*kgo.Record
		for i := range 10 {
			at, n := old, i%8
			if n > 4 || i == 9 {
				at, n = kept, max(n, 5)
			}
			records = append(records, recordOf("s", fmt.Sprint(round, "-", n), at, `{}`))
		}
		s.produce(records...)
		end += 10
		journaled(end)
	}
	require.NoError(t, s.command(&strings.Builder{}, "retention", "--before", "2025-05-01T00:00:00Z", "--yes"))
	require.Equal(t, 36, s.total("expired"))
	require.Equal(t, 18, s.total("rows"))
	require.Zero(t, s.wrong(), s.sheet())

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

// An actor's rows were lost from the table, then the actor was erased: of what was lost
// the erasure could write no fate. A replay took the tombstone for one, so nothing gave
// these records theirs, and the sheet stayed wrong. So it was with a forwarded record's
// that was lost, once the event had expired.
func TestAReplayGivesWhatWasErasedTheFateThatItLacks(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	defer s.consuming()()
	now := time.Now().Add(-time.Hour)
	for i := range 8 {
		s.produce(recordOf("s", []string{"a", "b"}[i%2], now.Add(time.Duration(i)*time.Second), `{}`))
	}
	misplaced := recordOf("s", "old", time.Date(2025, 3, 5, 0, 0, 0, 0, time.UTC), `{}`)
	misplaced.Topic = s.cfg.Kafka.Topic
	misplaced.Partition = (event.Partition(misplaced.Key, s.cfg.Topics.Partitions) + 1) % s.cfg.Topics.Partitions
	manual, err := kgo.NewClient(kgo.SeedBrokers(s.cfg.Kafka.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(t, err)
	defer manual.Close()
	require.NoError(t, manual.ProduceSync(t.Context(), misplaced).FirstErr())
	s.caughtUp()
	s.exec("ALTER TABLE event_log DELETE WHERE actor_id = 'a' SETTINGS mutations_sync = 2")
	s.exec("ALTER TABLE journal DELETE WHERE fate = 'forwarded' SETTINGS mutations_sync = 2")
	require.NoError(t, s.command(&strings.Builder{}, "erase", "--actor", "a", "--yes"))
	require.NoError(t, s.command(&strings.Builder{}, "retention", "--before", "2025-05-01T00:00:00Z", "--yes"))
	require.Equal(t, 5, s.wrong(), s.sheet())
	require.NoError(t, s.command(&strings.Builder{}, "replay", "--from", "earliest", "--yes"))
	s.caughtUp()
	require.Zero(t, s.wrong(), s.sheet())
	require.Equal(t, 4, s.total("erased"))
	require.Equal(t, 1, s.total("forwarded"))
	require.Equal(t, 4, s.total("rows"))
}

// A misplaced record of an erased actor is forwarded, and erased where it belongs. That
// fate names no event, so verify took it for astray, for as long as the journal stands.
func TestVerifyKnowsThatWhatWasForwardedIsErased(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	defer s.consuming()()
	require.NoError(t, s.command(&strings.Builder{}, "erase", "--actor", "a", "--source", "s", "--yes"))
	manual, err := kgo.NewClient(kgo.SeedBrokers(s.cfg.Kafka.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(t, err)
	defer manual.Close()
	for _, source := range []string{"s", "another"} {
		r := recordOf(source, "a", time.Now().Add(-time.Hour), `{}`)
		r.Topic = s.cfg.Kafka.Topic
		r.Partition = (event.Partition(r.Key, s.cfg.Topics.Partitions) + 1) % s.cfg.Topics.Partitions
		require.NoError(t, manual.ProduceSync(t.Context(), r).FirstErr())
	}
	require.Eventually(t, func() bool { return s.total("erased") == 1 && s.total("rows") == 1 }, time.Minute, 20*time.Millisecond)
	require.True(t, s.caughtUp().OK)
	s.exec("ALTER TABLE event_log DELETE WHERE source = 'another' SETTINGS mutations_sync = 2")
	require.False(t, s.verified().OK, "another's is missed")
}
