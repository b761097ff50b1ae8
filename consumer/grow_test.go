package main

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Partitions are added under load, with repeats of events from before coming in
// after: each event is one row, and the command waits until all owners agree.
func TestTopicsGrow(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	stop := s.consuming()
	for i := range 200 {
		s.produce(record(i, `{}`))
	}
	for _, tt := range []struct {
		args []string
		says string
	}{
		{[]string{"--to", "2", "--yes"}, "none can be taken away"},
		{[]string{"--to", "6"}, "--yes"},
	} {
		_, said, status := s.says(append([]string{"topics", "grow"}, tt.args...)...)
		require.Equal(t, 2, status)
		require.Contains(t, said, tt.says)
	}
	stop()
	_, said, status := s.says("topics", "grow", "--to", "6", "--yes")
	require.Equal(t, 2, status)
	require.Contains(t, said, "no consumer runs")
	stop = s.consuming()
	defer stop()
	sent, loading, loaded := 200, make(chan struct{}), make(chan struct{})
	go func() {
		defer close(loaded)
		for {
			select {
			case <-loading:
				return
			case <-time.After(10 * time.Millisecond):
				s.produce(record(sent, `{}`), record(sent%200, `{}`))
				sent++
			}
		}
	}()
	out, said, status := s.says("topics", "grow", "--to", "6", "--yes")
	require.Zero(t, status, said+out)
	require.Contains(t, out, "6 of 6 owners decide by 6 partitions")
	time.Sleep(200 * time.Millisecond) // some more under the new count
	close(loading)
	<-loaded
	require.Eventually(t, func() bool { return s.verified().OK }, 60*time.Second, 200*time.Millisecond)
	require.EqualValues(t, sent, s.scalar("SELECT count() FROM event_log"))
	require.Zero(t, s.scalar("SELECT toUInt64(sum(abs(difference))) FROM balance"))
	out, _, status = s.says("topics", "describe", "--json")
	require.Zero(t, status)
	all := lines[topicLine](t, out)
	require.Len(t, all, 3)
	require.Equal(t, 6, all[0].Partitions)
	require.Empty(t, all[0].behind(6))
}

// A table is rebuilt beside the live one, killed once on the way, what the log no
// longer has copied, and swapped; the rollups come along.
func TestReplayIntoATable(t *testing.T) {
	t.Parallel()
	s, before := seeded(t)
	stop := s.consuming()
	for _, tt := range []struct {
		args []string
		says string
	}{
		{[]string{"--into", "x; DROP TABLE journal", "--from", "earliest"}, "want the name of a new table"},
		{[]string{"--into", "event_log", "--from", "earliest"}, "want the name of a new table"},
		{[]string{"--into", "rebuilt", "--from", "0:1"}, "goes with --from earliest"},
		{[]string{"--into", "other", "--from", "earliest"}, "of another shape"},
	} {
		s.exec("CREATE TABLE IF NOT EXISTS other (event_id UUID) ENGINE = MergeTree ORDER BY event_id")
		_, said, status := s.says(append([]string{"replay"}, tt.args...)...)
		require.Equal(t, 2, status)
		require.Contains(t, said, tt.says)
	}
	// What has no fate is not a row by that: it once became one, a repeat's too.
	s.exec("ALTER TABLE journal DELETE WHERE fate IN ('duplicate', 'conflict') SETTINGS mutations_sync = 2")
	s.exec("ALTER TABLE event_log DELETE WHERE actor_id = 'actor-3' SETTINGS mutations_sync = 2")
	_, said, status := s.says("replay", "--into", "rebuilt", "--from", "earliest")
	require.Equal(t, 2, status)
	require.Contains(t, said, "neither a row nor a fate")
	require.Contains(t, said, "consumer replay --from earliest --yes")
	require.Equal(t, s.scalar("SELECT count() FROM event_log"), s.scalar("SELECT count() FROM rebuilt"))
	require.Zero(t, s.scalar("SELECT toUInt64(count() - uniqExact(event_id)) FROM rebuilt"))
	_, said, status = s.says("replay", "--from", "earliest", "--yes", "--findings", filepath.Join(t.TempDir(), "findings"))
	require.Zero(t, status, said)
	s.exec("DROP TABLE rebuilt")
	for range 2 { // the second time half of it is missing, as if the first had been killed
		out, said, status := s.says("replay", "--into", "rebuilt", "--from", "earliest")
		require.Zero(t, status, said)
		require.Contains(t, out, "EXCHANGE TABLES event_log AND rebuilt")
		require.EqualValues(t, 500, s.scalar("SELECT count() FROM rebuilt"))
		require.EqualValues(t, 500, s.scalar("SELECT uniqExact(event_id, offset) FROM rebuilt"))
		s.exec("ALTER TABLE rebuilt DELETE WHERE actor_id IN ('actor-1', 'actor-2') SETTINGS mutations_sync = 2")
	}
	_, said, status = s.says("replay", "--into", "rebuilt", "--from", "earliest")
	require.Zero(t, status, said)
	s.exec("EXCHANGE TABLES event_log AND rebuilt")
	s.exec("RENAME TABLE rebuilt TO event_log_before")
	require.Equal(t, before, s.verified())
	s.balanced(before)
	s.produce(record(9_000, `{}`))
	before.Records, before.Rows = before.Records+1, before.Rows+1
	s.settles(before)
	stop()
}
