package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/consumer/internal/operations"
	"sluice/schemas/event"
	"sluice/schemas/topic"
)

// A pause holds before and after a restart, shows everywhere, and nothing of what
// arrived meanwhile is missing after it.
func TestPauseAndResume(t *testing.T) {
	s := newStack(t)
	address, stop := s.consumingWithStatus()
	s.produce(record(0, `{}`))
	s.settles(report{OK: true, Records: 1, Rows: 1, RollupsEqual: true})
	_, said, status := s.says("pause", "--partitions", "all")
	require.Equal(t, 2, status)
	require.Contains(t, said, "--why")
	_, _, status = s.says("pause", "--partitions", "7", "--why", "x")
	require.Equal(t, 2, status)
	_, said, status = s.says("pause", "--partitions", "all", "--why", "an upgrade of 'ClickHouse'")
	require.Zero(t, status, said)
	paused := func() bool {
		got := s.look(address)
		for _, p := range got.Partitions {
			if p.State != "paused" || !strings.Contains(p.Reason, "an upgrade of 'ClickHouse'") {
				return false
			}
		}
		return !got.OK
	}
	require.Eventually(t, paused, 20*time.Second, 50*time.Millisecond)
	for i := range 30 {
		s.produce(record(100+i, `{}`))
	}
	stop()
	address, stop = s.consumingWithStatus()
	defer stop()
	require.Eventually(t, paused, 20*time.Second, 50*time.Millisecond)
	require.EqualValues(t, 1, s.scalar("SELECT count() FROM event_log"))
	out, _, status := s.says("lag", "--json", "--every", "0")
	require.Zero(t, status)
	behind := int64(0)
	for _, l := range lines[lagLine](t, out) {
		behind += l.Records
		if l.Records > 0 {
			require.Positive(t, *l.Seconds)
		}
	}
	require.EqualValues(t, 30, behind)
	_, said, status = s.says("replay", "--from", "earliest", "--dry-run")
	require.Zero(t, status, said)
	_, _, status = s.says("resume", "--partitions", "all")
	require.Zero(t, status)
	s.settles(report{OK: true, Records: 31, Rows: 31, RollupsEqual: true})
	require.Eventually(t, func() bool { return s.look(address).OK }, 20*time.Second, 50*time.Millisecond)
}

// Records that are skipped are in the balance and in the journal, with the reason;
// what was decided before can't be skipped, nor what is not there yet.
func TestSkip(t *testing.T) {
	s := newStack(t)
	manual, err := kgo.NewClient(kgo.SeedBrokers(s.cfg.Kafka.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(t, err)
	defer manual.Close()
	of := func(n int) *kgo.Record { // of partition 0
		for i := n * 1000; ; i++ {
			r := record(i, `{}`)
			if event.Partition(r.Key, 3) == 0 {
				r.Topic = s.cfg.Kafka.Topic
				return r
			}
		}
	}
	put := func(from, n int) {
		for i := range n {
			require.NoError(t, manual.ProduceSync(t.Context(), of(from+i)).FirstErr())
		}
	}
	put(0, 10)
	stop := s.consuming()
	s.settles(report{OK: true, Records: 10, Rows: 10, RollupsEqual: true})
	stop()
	put(10, 10)
	for _, tt := range []struct {
		args []string
		says string
	}{
		{[]string{"--partition", "0", "--from", "5", "--to", "12", "--yes", "--why", "x"}, "decided already"},
		{[]string{"--partition", "0", "--from", "12", "--to", "99", "--yes", "--why", "x"}, "ends at offset 20"},
		{[]string{"--partition", "0", "--from", "12", "--to", "12", "--yes", "--why", "x"}, "must be past"},
		{[]string{"--partition", "8", "--from", "12", "--to", "13", "--yes", "--why", "x"}, "partitions 0 to 2"},
		{[]string{"--partition", "0", "--from", "12", "--to", "15", "--why", "x"}, "--yes"},
		{[]string{"--partition", "0", "--from", "12", "--to", "15", "--yes"}, "--why"},
	} {
		_, said, status := s.says(append([]string{"skip"}, tt.args...)...)
		require.Equal(t, 2, status)
		require.Contains(t, said, tt.says)
	}
	// No consumer runs: the command is the owner.
	out, said, status := s.says("skip", "--partition", "0", "--from", "12", "--to", "15", "--yes", "--why", "ticket 7")
	require.Zero(t, status, said)
	require.Contains(t, out, "3 records")
	stop = s.consuming()
	defer stop()
	require.Eventually(t, func() bool { return s.scalar("SELECT toUInt64(sum(records)) FROM balance") == 20 }, 20*time.Second, 50*time.Millisecond)
	require.EqualValues(t, 3, s.scalar("SELECT toUInt64(sum(skipped)) FROM balance"))
	require.EqualValues(t, 17, s.scalar("SELECT count() FROM event_log"))
	require.Zero(t, s.scalar("SELECT toUInt64(sum(abs(difference))) FROM balance"))
	require.EqualValues(t, 3, s.scalar("SELECT count() FROM journal WHERE fate = 'skipped' AND detail LIKE '%ticket 7%' AND offset IN (12, 13, 14)"))
	require.True(t, s.verified().OK)
	out, _, status = s.says("receipt", string(of(12).Key))
	require.Equal(t, 1, status)
	require.Contains(t, out, "skipped")
	// Read again, what was skipped stays so.
	again, _ := s.replayed(0, "--from", "earliest")
	require.Zero(t, again.Missing)
}

// Offsets set back by hand are read again and put on record, undone when nobody
// has gone on since; set forward by Kafka's own tools they are explained.
func TestOffsetsSetByHand(t *testing.T) {
	t.Parallel()
	s, before := seeded(t)
	_, stop := s.consumingWithStatus()
	_, said, status := s.says("offsets", "set", "--to", "earliest", "--yes")
	require.Equal(t, 2, status)
	require.Contains(t, said, "consumers run")
	stop()
	for _, tt := range []struct{ to, says string }{{"0:99999", "past the journal's end"}, {"9:0", "partitions 0 to 2"}, {"0:x", "want partition:offset"}} {
		_, said, status = s.says("offsets", "set", "--to", tt.to, "--yes")
		require.Equal(t, 2, status)
		require.Contains(t, said, tt.says)
	}
	out, said, status := s.says("offsets", "set", "--to", "0:1", "--yes")
	require.Zero(t, status, said)
	run := strings.Fields(out[strings.Index(out, "--undo"):])[1]
	out, _, _ = s.says("offsets", "show")
	require.Contains(t, out, "reads 1 to")
	out, said, status = s.says("offsets", "set", "--undo", run, "--yes")
	require.Zero(t, status, said)
	require.Contains(t, out, "undid run")
	out, _, _ = s.says("offsets", "show")
	require.NotContains(t, out, "again")

	s.exec("ALTER TABLE event_log DELETE WHERE partition = 0 SETTINGS mutations_sync = 2")
	gone := 500 - s.scalar("SELECT count() FROM event_log")
	require.Positive(t, gone)
	out, said, status = s.says("offsets", "set", "--to", "0:0", "--yes")
	require.Zero(t, status, said)
	run = strings.Fields(out[strings.Index(out, "--undo"):])[1]
	address, stop := s.consumingWithStatus()
	history := func(kind string) []operations.Operation {
		out, _, _ := s.says("replay", "history", "--json", "--kinds", kind)
		return lines[operations.Operation](t, out)
	}
	require.Eventually(t, func() bool { return len(history(operations.Reread)) == 1 }, 60*time.Second, 50*time.Millisecond)
	require.Equal(t, before, s.verified())
	require.EqualValues(t, gone, history(operations.Reread)[0].Written)
	require.Contains(t, strings.Join(s.look(address).Notes, "\n"), "read again from 0")
	stop()
	_, said, status = s.says("offsets", "set", "--undo", run, "--yes")
	require.Equal(t, 2, status)
	require.Contains(t, said, "nothing is left to be undone")

	// Forward, as the stock tool does it.
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: s.cfg.Kafka.Topic, Partition: 1, At: 1_000_000, LeaderEpoch: -1})
	_, err := kadm.NewClient(s.producer).CommitOffsets(t.Context(), s.cfg.Group.ID, offsets)
	require.NoError(t, err)
	out, _, _ = s.says("offsets", "show")
	require.Contains(t, out, "does not follow the jump to 1000000")
	address, stop = s.consumingWithStatus()
	defer stop()
	s.produce(record(9_999, `{}`))
	before.Records, before.Rows = before.Records+1, before.Rows+1
	s.settles(before)
	require.Eventually(t, func() bool { return len(history(operations.Jump)) == 1 }, 20*time.Second, 50*time.Millisecond)
	require.Contains(t, strings.Join(s.look(address).Notes, "\n"), "was not followed")
}

// What became of an event, by its key and by its id.
func TestReceipt(t *testing.T) {
	s := newStack(t)
	defer s.consuming()()
	one := record(1, `{"n":1}`)
	one.Headers = []kgo.RecordHeader{{Key: topic.HeaderEdge, Value: []byte("edge-7")}}
	s.produce(one, record(1, `{ "n":1}`), record(1, `{"n":2}`))
	s.settles(report{OK: true, Records: 3, Rows: 1, Duplicates: 1, Conflicts: 1, RollupsEqual: true})
	s.replayed(0, "--from", "earliest")
	for _, name := range []string{string(one.Key), event.IDOf(one.Key).String()} {
		out, said, status := s.says("receipt", "--json", name)
		require.Zero(t, status, said)
		r := lines[receipt](t, out)[0]
		require.Equal(t, string(one.Key), r.Key)
		require.Equal(t, `{"n":1}`, r.Row.PayloadText)
		require.Len(t, r.Records, 3)
		require.Equal(t, []string{"row", "duplicate", "conflict"}, []string{r.Records[0].Fate, r.Records[1].Fate, r.Records[2].Fate})
		require.Equal(t, "edge-7", r.Records[0].Headers[topic.HeaderEdge])
		require.Len(t, r.Operations, 1)
	}
	out, _, _ := s.says("receipt", string(one.Key))
	require.Regexp(t, `row +\d+ +0 .* edge-7 `, out, "by which edge it was taken")
	_, said, status := s.says("lag", "--every", "-1s")
	require.Equal(t, 2, status)
	require.Contains(t, said, "--every")
	_, said, status = s.says("receipt", "nonsense")
	require.Equal(t, 2, status)
	require.Contains(t, said, "neither an event id nor a key")
	out, _, status = s.says("receipt", "00000000-0000-8000-8000-000000000000")
	require.Equal(t, 1, status)
	require.Contains(t, out, "nothing is known of it")
}

// A broker or an engine that is away is said so, within bounds, and by the exit
// status.
func TestSidesThatAreAway(t *testing.T) {
	s := newStack(t)
	brokers, dsn := s.cfg.Kafka.Brokers, s.cfg.ClickHouse.DSN
	for _, args := range [][]string{
		{"lag"}, {"offsets", "show"}, {"dlq", "list"}, {"replay", "history"}, {"replay", "--from", "earliest"}, {"receipt", "a:b:c:2026-01-02T03:04:05.000000000Z"},
	} {
		s.cfg.Kafka.Brokers, s.cfg.ClickHouse.DSN = brokers, "http://127.0.0.1:1/sluice"
		_, said, status := s.says(args...)
		require.Equal(t, 2, status, args)
		require.Contains(t, said, "127.0.0.1:1", args)
	}
	s.cfg.Kafka.Brokers, s.cfg.ClickHouse.DSN = []string{nobody}, dsn
	_, said, status := s.says("pause", "--partitions", "all", "--why", "x")
	require.Equal(t, 2, status)
	require.Contains(t, said, nobody)
}
