package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/consumer/internal/tombstone"
	"sluice/deploy/demo/sample"
)

// asCommand makes the test binary the consumer's command: what is killed must be a
// process of its own.
const asCommand = "SLUICE_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	// Owners ask more often what was taken, so whoever takes waits for them less.
	tombstone.MaxAge = 500 * time.Millisecond
	if os.Getenv(asCommand) != "" {
		os.Unsetenv(asCommand) //nolint:errcheck // an unknown variable would be refused, and said so
		main()
		os.Exit(0)
	}
	status := m.Run()
	if migrated.dir != "" {
		if err := os.RemoveAll(migrated.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
	}
	os.Exit(status)
}

// process starts a command of the consumer's as a process.
func (s *stack) process(args ...string) (cmd *exec.Cmd, out, said *bytes.Buffer) {
	s.t.Helper()
	args = append(args, "--kafka.brokers", strings.Join(s.cfg.Kafka.Brokers, ","), "--clickhouse.dsn", s.cfg.ClickHouse.DSN)
	cmd, out, said = exec.CommandContext(s.t.Context(), os.Args[0], args...), &bytes.Buffer{}, &bytes.Buffer{}
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), asCommand+"=1"), out, said
	require.NoError(s.t, cmd.Start())
	return cmd, out, said
}

// realEvents are the events of the file that EVENTS names, or else the demo's.
func realEvents(t testing.TB) []*kgo.Record {
	t.Helper()
	events, err := sample.Events(os.Getenv("EVENTS"))
	require.NoError(t, err)
	var out []*kgo.Record
	for _, e := range events {
		out = append(out, &kgo.Record{Key: e.AppendKey(nil), Value: e.AppendJSON(nil)})
	}
	return out
}

// origins are those of all rows, as text.
func (s *stack) origins() map[string]bool {
	s.t.Helper()
	rows, err := s.store.Conn().Query(s.t.Context(), "SELECT concat(toString(partition), '/', toString(offset)) FROM event_log")
	require.NoError(s.t, err)
	defer rows.Close() //nolint:errcheck // Err below tells
	out := map[string]bool{}
	for rows.Next() {
		var o string
		require.NoError(s.t, rows.Scan(&o))
		require.False(s.t, out[o], "an origin has two rows")
		out[o] = true
	}
	require.NoError(s.t, rows.Err())
	return out
}

// named are the records that a dry run names as missing. All of them stand in the
// file when there are more than fit on a page; else they are printed.
func named(t testing.TB, file, said string) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	text, err := os.ReadFile(file)
	if err != nil {
		for _, l := range strings.Split(said, "\n") {
			var p, o int64
			if n, _ := fmt.Sscanf(l, "partition %d offset %d", &p, &o); n == 2 {
				out[fmt.Sprintf("%d/%d", p, o)] = true
			}
		}
		return out
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	for dec.More() {
		var l line
		require.NoError(t, dec.Decode(&l))
		out[fmt.Sprintf("%d/%d", *l.Partition, *l.Offset)] = true
	}
	return out
}

// An operator's night on real events: a month dropped, a source's rows deleted, the
// whole table emptied and the replay killed ten times, all under live traffic; the
// group's offsets set back and forward by other tools. Each time the dry run names
// exactly what is gone, the run brings exactly that back, and another run writes
// nothing. "make night EVENTS=" does it with a file of any size.
func TestANightOnRealEvents(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.cfg.Topics.Partitions = 3
	events := realEvents(t)
	stop := s.consuming()
	began := time.Now()
	for at := 0; at < len(events); at += 5_000 {
		s.produce(events[at:min(at+5_000, len(events))]...)
	}
	require.Eventually(t, func() bool {
		return s.scalar("SELECT toUInt64(sum(records)) FROM balance") == uint64(len(events))
	}, 4*time.Minute, 50*time.Millisecond)
	t.Logf("%d records written live in %.1f s", len(events), time.Since(began).Seconds())
	want := s.verified()
	require.True(t, want.OK)
	t.Logf("rows %d, conflicts %d, duplicates %d", want.Rows, want.Conflicts, want.Duplicates)
	all := s.origins()

	var month, source string
	require.NoError(t, s.store.Conn().QueryRow(t.Context(), "SELECT toString(toYYYYMM(occurred_at)) AS m FROM event_log GROUP BY m ORDER BY count() DESC LIMIT 1").Scan(&month))
	require.NoError(t, s.store.Conn().QueryRow(t.Context(), "SELECT source FROM event_log GROUP BY source ORDER BY count() DESC LIMIT 1").Scan(&source))
	for name, loss := range map[string]string{
		"a month dropped":  "ALTER TABLE event_log DROP PARTITION " + month,
		"a source deleted": "ALTER TABLE event_log DELETE WHERE source = '" + source + "' SETTINGS mutations_sync = 2",
	} {
		s.exec(loss)
		left := s.origins()
		gone := map[string]bool{}
		for o := range all {
			if !left[o] {
				gone[o] = true
			}
		}
		require.NotEmpty(t, gone)
		file := filepath.Join(t.TempDir(), "findings")
		out, said, status := s.says("replay", "--from", "earliest", "--dry-run", "--json", "--findings", file)
		require.Equal(t, 1, status, said)
		require.Equal(t, gone, named(t, file, said), "the dry run names exactly what is gone")
		require.Equal(t, left, s.origins(), "and writes nothing")
		require.NotEmpty(t, out)
		began = time.Now()
		ran, _ := s.replayed(0, "--from", "earliest")
		t.Logf("%s: %d rows gone, %d written in %.1f s", name, len(gone), ran.Written, time.Since(began).Seconds())
		require.Equal(t, len(gone), ran.Written)
		require.Equal(t, all, s.origins(), "exactly these come back")
		began = time.Now()
		again, _ := s.replayed(0, "--from", "earliest")
		t.Logf("a diff of %d records with nothing missing: %.2f s", again.Records, time.Since(began).Seconds())
		require.Zero(t, again.Missing+again.Written+again.Different)
	}

	// Emptied, and the command killed ten times under live traffic.
	s.exec("TRUNCATE TABLE event_log")
	traffic, quiet := make(chan struct{}), make(chan struct{})
	var posted atomic.Int64 // read while the traffic goes on
	go func() {
		defer close(quiet)
		for {
			select {
			case <-traffic:
				return
			case <-time.After(20 * time.Millisecond):
				s.produce(record(1_000_000+int(posted.Load()), `{}`))
				posted.Add(1)
			}
		}
	}()
	killed := 0
	for range 10 {
		args := []string{"replay", "--from", "earliest", "--findings", filepath.Join(t.TempDir(), "f")}
		if killed%2 == 0 { // while it compares; else while the owners write
			args = append(args, "--rate", fmt.Sprint(len(events)))
		}
		cmd, _, _ := s.process(args...)
		time.Sleep(time.Duration(300+100*killed) * time.Millisecond)
		require.NoError(t, cmd.Process.Signal(syscall.SIGKILL))
		cmd.Wait() //nolint:errcheck // killed
		killed++
		// What it leaves behind is no lease for long; the next must not wait for it.
		s.forgetLeases()
	}
	began = time.Now()
	ran, _ := s.replayed(0, "--from", "earliest")
	t.Logf("killed %d times; the last run wrote %d in %.1f s, with %d live events beside", killed, ran.Written, time.Since(began).Seconds(), posted.Load())
	close(traffic)
	<-quiet
	fresh := int(posted.Load())
	want.Records, want.Rows = want.Records+fresh, want.Rows+fresh
	s.settles(want)
	s.balanced(want)
	s.replayed(0, "--from", "earliest")
	require.EqualValues(t, want.Rows, s.scalar("SELECT count() FROM event_log"))
	all = s.origins()

	// The offsets set back to 0 by another tool while events come in, and forward.
	stop()
	for _, to := range []int64{0, 1_000} {
		offsets := kadm.Offsets{}
		for p := range int32(3) {
			at := to
			if to > 0 {
				_, end, err := s.bounds()
				require.NoError(t, err)
				at = end + to
			}
			offsets.Add(kadm.Offset{Topic: s.cfg.Kafka.Topic, Partition: p, At: at, LeaderEpoch: -1})
		}
		_, err := kadm.NewClient(s.producer).CommitOffsets(t.Context(), s.cfg.Group.ID, offsets)
		require.NoError(t, err)
		for i := range 10 {
			s.produce(record(2_000_000+int(to)+i, `{}`))
		}
		want.Records, want.Rows = want.Records+10, want.Rows+10
		began = time.Now()
		address, stop := s.consumingWithStatus()
		s.settles(want)
		s.balanced(want)
		t.Logf("offsets set to %d: right again after %.1f s", to, time.Since(began).Seconds())
		words := map[int64]string{0: "read again from 0", 1_000: "was not followed"}[to]
		require.Eventually(t, func() bool { return strings.Contains(strings.Join(s.look(address).Notes, "\n"), words) }, 20*time.Second, 100*time.Millisecond)
		stop()
	}
	now := s.origins()
	for o := range all {
		require.True(t, now[o], "figures are unchanged")
	}
	require.Len(t, now, want.Rows)
}

// forgetLeases takes back what commands that were killed have claimed.
func (s *stack) forgetLeases() {
	s.t.Helper()
	orders, err := lookAt(s)
	require.NoError(s.t, err)
	for _, l := range orders.Leases {
		require.NoError(s.t, s.producer.ProduceSync(s.t.Context(), &kgo.Record{Topic: s.cfg.Kafka.Control, Key: []byte("lease/" + l.Kind + "/" + l.Run.String())}).FirstErr())
	}
}
