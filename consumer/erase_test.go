package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/consumer/internal/erase"
	"sluice/consumer/internal/replay"
	"sluice/consumer/internal/tombstone"
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
	require.NoError(t, s.command(&strings.Builder{}, "retention", "--before", "2025-05-01T00:00:00Z", "--yes", "--despite-missing"))
	require.Equal(t, 5, s.wrong(), s.sheet())
	require.NoError(t, s.command(&strings.Builder{}, "replay", "--from", "earliest", "--yes"))
	s.caughtUp()
	require.Zero(t, s.wrong(), s.sheet())
	require.Equal(t, 4, s.total("erased"))
	require.Equal(t, 1, s.total("forwarded"))
	require.Zero(t, s.scalar("SELECT count() FROM journal WHERE actor_id = 'old'"), "nor does what is forwarded name it")
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
	require.Equal(t, 2, s.total("forwarded"))
	require.EqualValues(t, 1, s.scalar("SELECT count() FROM journal WHERE actor_id = 'a'"), "another's")
	s.exec("ALTER TABLE event_log DELETE WHERE source = 'another' SETTINGS mutations_sync = 2")
	r, _ := s.verifiedWith(verifying{}) // which gives what is under way no time: nothing is
	require.Equal(t, 2, r.Missing, "another's is missed, and not found where it was forwarded to")
}

// Whether it was taken was asked after whether a record belongs elsewhere, or is to be
// skipped: the journal's line of one that came after the erasure named the actor, until
// the same erasure ran again. A retention left what was forwarded before it as it was.
func TestWhatIsTakenIsNotNamedWhereItIsForwardedOrSkipped(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	stop := s.consuming()
	defer func() { stop() }()
	manual, err := kgo.NewClient(kgo.SeedBrokers(s.cfg.Kafka.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(t, err)
	defer manual.Close()
	produce := func(r *kgo.Record, away int32) *kgo.Record {
		t.Helper()
		r.Topic = s.cfg.Kafka.Topic
		r.Partition = (event.Partition(r.Key, s.cfg.Topics.Partitions) + away) % s.cfg.Topics.Partitions
		require.NoError(t, manual.ProduceSync(t.Context(), r).FirstErr())
		return r
	}
	named := func() uint64 {
		t.Helper()
		return s.scalar("SELECT count() FROM journal WHERE actor_id != '' OR source != '' OR event_id != toUUID('00000000-0000-0000-0000-000000000000')" +
			" OR payload_hash != toFixedString('', 16) OR toUnixTimestamp(occurred_at) != 0")
	}
	produce(recordOf("s", "b", time.Date(2025, 3, 5, 0, 0, 0, 0, time.UTC), `{}`), 1)
	require.Eventually(t, func() bool { return s.total("rows") == 1 }, time.Minute, 20*time.Millisecond)
	require.EqualValues(t, 1, named())
	require.NoError(t, s.command(&strings.Builder{}, "retention", "--before", "2025-05-01T00:00:00Z", "--yes"))
	require.Zero(t, named(), "forwarded, then expired")
	require.NoError(t, s.command(&strings.Builder{}, "erase", "--actor", "a", "--yes"))
	produce(recordOf("s", "a", time.Now().Add(-time.Hour), `{}`), 1)
	produce(recordOf("s", "b", time.Date(2025, 3, 6, 0, 0, 0, 0, time.UTC), `{}`), 1)
	require.Eventually(t, func() bool { return s.total("erased") == 1 && s.total("expired") == 2 }, time.Minute, 20*time.Millisecond)
	require.True(t, s.caughtUp().OK)
	require.Zero(t, named(), "forwarded when it was taken already")
	require.Equal(t, 3, s.total("forwarded"))
	stop()
	r := produce(recordOf("s", "a", time.Now().Add(-2*time.Hour), `{}`), 0)
	_, said, status := s.says("skip", "--partition", fmt.Sprint(r.Partition), "--from", fmt.Sprint(r.Offset), "--to", fmt.Sprint(r.Offset+1), "--why", "ticket 7", "--yes")
	require.Zero(t, status, said)
	stop = s.consuming()
	require.True(t, s.caughtUp().OK)
	require.Zero(t, named())
	require.EqualValues(t, 1, s.scalar("SELECT count() FROM journal WHERE fate = 'skipped' AND endsWith(detail, 'ticket 7')"))
	require.Zero(t, s.wrong(), s.sheet())
}
