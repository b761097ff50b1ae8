package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/consumer/internal/operations"
	"sluice/consumer/internal/replay"
)

// says runs a command as a shell would, against the stack.
func (s *stack) says(args ...string) (out, err string, status int) {
	s.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := command()
	cmd.SetArgs(append(args, "--kafka.brokers", strings.Join(s.cfg.Kafka.Brokers, ","), "--clickhouse.dsn", s.cfg.ClickHouse.DSN))
	cmd.SetOut(&stdout)
	cmd.SetErr(&stderr)
	if failed := cmd.ExecuteContext(s.t.Context()); failed != nil {
		status = 2
		var exit exitError
		if errors.As(failed, &exit) {
			status = exit.status
		}
		stderr.WriteString(failed.Error())
	}
	return stdout.String(), stderr.String(), status
}

// lines are a command's lines of JSON.
func lines[T any](t testing.TB, out string) []T {
	t.Helper()
	var all []T
	dec := json.NewDecoder(strings.NewReader(out))
	for dec.More() {
		var x T
		require.NoError(t, dec.Decode(&x))
		all = append(all, x)
	}
	return all
}

// replayed runs a replay and returns the sums over its partitions.
func (s *stack) replayed(want int, args ...string) (sum replayed, stderr string) {
	s.t.Helper()
	args = append([]string{"replay", "--json", "--findings", filepath.Join(s.t.TempDir(), "findings")}, args...)
	out, stderr, status := s.says(args...)
	require.Equal(s.t, want, status, stderr)
	for _, r := range lines[replayed](s.t, out) {
		sum.Records += r.Records
		sum.Present += r.Present
		sum.Missing += r.Missing
		sum.Different += r.Different
		sum.Expired += r.Expired
		sum.Erased += r.Erased
		sum.GoodNow += r.GoodNow
		sum.Written += r.Written
	}
	return sum, stderr
}

// A dry run names exactly what is gone and writes nothing; the run brings back
// exactly that; another writes nothing. Each is written down.
func TestReplayIsADiff(t *testing.T) {
	t.Parallel()
	s, before := seeded(t)
	defer s.consuming()()
	rows := s.scalar("SELECT count() FROM event_log")
	for _, gone := range []string{
		"ALTER TABLE event_log DELETE WHERE actor_id IN ('actor-2', 'actor-5') SETTINGS mutations_sync = 2",
		"ALTER TABLE event_log DROP PARTITION 202601",
		"TRUNCATE TABLE event_log",
	} {
		s.exec(gone)
		missing := int(rows - s.scalar("SELECT count() FROM event_log"))
		require.Positive(t, missing)
		dry, _ := s.replayed(1, "--from", "earliest", "--dry-run")
		require.Equal(t, missing, dry.Missing, gone)
		require.Zero(t, dry.Written+dry.Different)
		require.EqualValues(t, rows-uint64(missing), s.scalar("SELECT count() FROM event_log"))

		ran, _ := s.replayed(0, "--from", "earliest", "--yes")
		require.Equal(t, missing, ran.Missing)
		require.Equal(t, missing, ran.Written)
		require.EqualValues(t, rows, s.scalar("SELECT count() FROM event_log"))
		again, _ := s.replayed(0, "--from", "earliest", "--yes")
		require.Zero(t, again.Missing+again.Written+again.Different)
	}
	require.Equal(t, before, s.verified())
	s.balanced(before)

	out, _, status := s.says("replay", "history", "--json", "--kinds", "replay")
	require.Zero(t, status)
	history := lines[operations.Operation](t, out)
	require.Len(t, history, 9)
	require.EqualValues(t, rows, history[1].Written, "the table that was truncated")
	require.EqualValues(t, rows, history[1].Found["missing"])
	for _, o := range history {
		require.Equal(t, operations.Done, o.State)
		require.NotEmpty(t, o.Who)
		require.Len(t, o.To, 3)
	}
}

// Of what is missing only what the filter names comes back; the rest comes by a
// later replay, in the right order of the log.
func TestReplayOfSomeEvents(t *testing.T) {
	t.Parallel()
	s, before := seeded(t)
	defer s.consuming()()
	s.exec("ALTER TABLE event_log DELETE WHERE actor_id IN ('actor-2', 'actor-5') SETTINGS mutations_sync = 2")
	gone := 500 - int(s.scalar("SELECT count() FROM event_log"))
	none, _ := s.replayed(0, "--from", "earliest", "--sources", "nobody's")
	require.Zero(t, none.Records)
	one, _ := s.replayed(0, "--from", "earliest", "--actor", "actor-5", "--types", "typ%e", "--rate", "100000")
	require.Positive(t, one.Written)
	require.Equal(t, one.Missing, one.Written)
	require.Zero(t, s.scalar("SELECT count() FROM event_log WHERE actor_id = 'actor-2'"))
	rest, _ := s.replayed(0, "--from", "earliest")
	require.Equal(t, gone, one.Written+rest.Written)
	require.Equal(t, before, s.verified())
}

// What can't be meant is refused before anything begins, and says what can.
func TestReplayOfWhatIsNotThere(t *testing.T) {
	t.Parallel()
	s, _ := seeded(t)
	id, err := s.topicID()
	require.NoError(t, err)
	for _, tt := range []struct {
		args []string
		says string
	}{
		{[]string{"--from", "9:0"}, "the topic has partitions 0 to 2"},
		{[]string{"--from", "0:-1"}, "want partition:offset"},
		{[]string{"--from", "0:1,0:2"}, "names partition 0 twice"},
		{[]string{"--from", "0:99999999"}, "ends at offset"},
		{[]string{"--from", "0:'; DROP TABLE event_log"}, "want partition:offset"},
		{[]string{"--from", "0:3", "--to", "0:2"}, "lies before --from"},
		{[]string{"--from", "0:3", "--to", "1:5"}, "which --from leaves out"},
		{[]string{"--from-time", time.Now().Add(time.Hour).Format(time.RFC3339)}, "in the future"},
		{[]string{"--from-time", "yesterday"}, "want a time"},
		{[]string{"--from", "earliest", "--from-time", "1h"}, "say from where"},
		{[]string{"--from", "earliest", "--topic-id", uuid.NewString()}, "deleted and made again"},
		{nil, "say from where"},
	} {
		out, stderr, status := s.says(append([]string{"replay"}, tt.args...)...)
		require.Equal(t, 2, status, tt.args)
		require.Empty(t, out)
		require.Contains(t, stderr, tt.says, tt.args)
	}
	_, _ = s.replayed(0, "--from", "earliest", "--dry-run", "--topic-id", id.String())
	_, err2 := kadm.NewClient(s.producer).DeleteRecords(t.Context(), kadm.Offsets{s.cfg.Kafka.Topic: {1: {Topic: s.cfg.Kafka.Topic, Partition: 1, At: 4}}})
	require.NoError(t, err2)
	_, said := s.replayed(0, "--from", "earliest", "--dry-run")
	require.Contains(t, said, "partition 1: offsets before 4 are no longer in Kafka")
}

// A second operator is told who runs a replay; when that one has ended without a
// word, the next goes on.
func TestTwoOperators(t *testing.T) {
	t.Parallel()
	s, _ := seeded(t)
	ctx, cancel := context.WithCancel(t.Context())
	first := replay.Lease{Kind: leaseKind, Run: uuid.New(), By: "ada@home", Since: time.Now()}
	release, err := replay.Take(ctx, s.cfg.Kafka.Options(s.log), s.cfg.Kafka.Control, first)
	require.NoError(t, err)
	_, said, status := s.says("replay", "--from", "earliest")
	require.Equal(t, 3, status)
	require.Contains(t, said, "ada@home")
	require.Contains(t, said, first.Run.String())
	release()
	cancel()
	s.replayed(0, "--from", "earliest")

	gone := first
	gone.Run, gone.Renewed = uuid.New(), time.Now().Add(-time.Hour)
	require.NoError(t, replay.Order(t.Context(), s.cfg.Kafka.Options(s.log), s.cfg.Kafka.Control, map[string]any{"lease/replay/" + gone.Run.String(): gone}))
	s.replayed(0, "--from", "earliest")
}

// Live events are decided while a replay of everything goes on beside them, and an
// owner that ends in the middle is followed by one that goes on.
func TestReplayBesideLiveEvents(t *testing.T) {
	t.Parallel()
	s, before := seeded(t)
	s.cfg.Batch.Rows = 40
	stop := s.consuming()
	s.exec("TRUNCATE TABLE event_log")
	done := make(chan replayed, 1)
	tools, err := openTools(command(), s.cfg)
	require.NoError(t, err)
	defer tools.close()
	go func() {
		results, err := tools.replay(t.Context(), replaying{from: "earliest", rate: 400})
		if err != nil {
			t.Error(err)
		}
		done <- replayed{Written: count(results, func(r replayed) int { return r.Written }), Missing: count(results, func(r replayed) int { return r.Missing })}
	}()
	fresh := 0
	for over := false; !over; {
		for range 5 {
			s.produce(record(10_000+fresh, `{}`))
			fresh++
		}
		if fresh == 50 {
			stop()
			stop = s.consuming()
		}
		select {
		case got := <-done:
			require.Equal(t, 500, got.Missing)
			over = true
		case <-time.After(20 * time.Millisecond):
		}
	}
	before.Rows, before.Records = before.Rows+fresh, before.Records+fresh
	s.settles(before)
	s.balanced(before)
	require.EqualValues(t, 500+fresh, s.scalar("SELECT count() FROM event_log"))
	stop()
}

// What a foreign producer put in and no rule takes is listed, shown and counted;
// what is taken after the table has changed is put through once, killed in the
// middle or not; what is discarded stays where it is.
func TestDeadLetters(t *testing.T) {
	s := newStack(t)
	s.exec("ALTER TABLE event_log ADD CONSTRAINT not_bad CHECK payload_text NOT LIKE '%bad%'")
	defer s.consuming()()
	s.produce(&kgo.Record{Value: []byte(`{"source":"web","event_type":7}`)}, &kgo.Record{Key: []byte("x")}, &kgo.Record{Value: []byte{0xff, 0xfe}})
	for i := range 12 {
		s.produce(record(i, `{"bad":`+strconv.Itoa(i)+`}`))
	}
	s.settles(report{OK: true, Records: 15, DeadLettered: 15, RollupsEqual: true})

	out, _, status := s.says("dlq", "list", "--json")
	require.Zero(t, status)
	all := lines[letter](t, out)
	require.Len(t, all, 15)
	refused := all[slices.IndexFunc(all, func(l letter) bool { return l.Reason == "refused" })]
	out, _, _ = s.says("dlq", "list", "--json", "--reason", "malformed", "--source", "web", "--since", "1h")
	_, said, status := s.says("dlq", "list", "--reason", "malfromed")
	require.Equal(t, 2, status, "a word that is no reason is not a reason of which there are no letters")
	require.Contains(t, said, "malformed")
	web := lines[letter](t, out)
	require.Len(t, web, 1)
	out, _, status = s.says("dlq", "show", "--json", web[0].Origin)
	require.Zero(t, status)
	one := lines[shown](t, out)[0]
	require.Equal(t, `{"source":"web","event_type":7}`, one.Value)
	require.Contains(t, strings.Join(one.Faults, "\n"), "/event_type")
	require.Contains(t, one.Now, "a dead letter again")
	_, said, status = s.says("dlq", "show", "4294967296:0")
	require.Equal(t, 2, status, "which was taken for 0:0")
	require.Contains(t, said, "want topic id/partition/offset")
	_, said, status = s.says("dlq", "show", "0:4711")
	require.Equal(t, 1, status)
	require.Contains(t, said, "there is no dead letter")
	out, _, _ = s.says("dlq", "stats", "--json")
	total := 0
	for _, l := range lines[statLine](t, out) {
		total += l.Letters
	}
	require.Equal(t, 15, total)
	_, said, status = s.says("dlq", "redrive")
	require.Equal(t, 2, status)
	require.Contains(t, said, "--yes")

	// Refused again, they are new dead letters; the old ones are not taken twice.
	count := func(args ...string) redriven {
		out, said, status := s.says(append([]string{"dlq", "redrive", "--json"}, args...)...)
		require.Less(t, status, 2, said)
		return lines[redriven](t, out)[0]
	}
	require.Equal(t, redriven{Letters: 15, StillBad: 3, Redriven: 12}, count("--dry-run"))
	require.Equal(t, redriven{Letters: 1, Redriven: 1}, count("--yes", "--reason", "refused", "--origin", refused.Origin))
	s.settles(report{OK: true, Records: 16, DeadLettered: 16, RollupsEqual: true})

	s.exec("ALTER TABLE event_log DROP CONSTRAINT not_bad")
	// Killed between the topic and the record of it: the letters are as before.
	require.Equal(t, redriven{Letters: 16, Settled: 1, StillBad: 3, Redriven: 12}, count("--yes"))
	s.settles(report{OK: true, Records: 28, Rows: 12, DeadLettered: 16, RollupsEqual: true})
	s.exec("ALTER TABLE operations DELETE WHERE kind = 'dead letter' SETTINGS mutations_sync = 2")
	require.Equal(t, redriven{Letters: 16, StillBad: 3, Stored: 13}, count("--yes"))
	require.Equal(t, redriven{Letters: 16, Settled: 13, StillBad: 3}, count("--yes"))
	require.EqualValues(t, 12, s.scalar("SELECT count() FROM event_log"))

	out, _, status = s.says("dlq", "discard", "--origin", web[0].Origin, "--why", "o'clock; DROP TABLE journal --", "--yes")
	require.Zero(t, status)
	require.Contains(t, out, "1 dead letters")
	out, _, _ = s.says("dlq", "list", "--json")
	require.Len(t, lines[letter](t, out), 2)
	out, _, _ = s.says("dlq", "list", "--json", "--all")
	require.Len(t, lines[letter](t, out), 16)
	require.Equal(t, report{OK: true, Records: 28, Rows: 12, DeadLettered: 16, RollupsEqual: true}, s.verified())
}

func lookAt(s *stack) (replay.Orders, error) {
	return replay.Look(s.t.Context(), s.cfg.Kafka.Options(s.log), s.cfg.Kafka.Control)
}
