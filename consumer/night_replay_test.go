package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/consumer/internal/operations"
	"sluice/schemas/topic"
)

// broker is a broker in this process that can be restarted: what it holds is on disk.
func broker(t *testing.T) (address string, restart func()) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := listener.Addr().(*net.TCPAddr).Port
	require.NoError(t, listener.Close())
	dir := t.TempDir()
	open := func() *kfake.Cluster {
		c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(port), kfake.DataDir(dir))
		require.NoError(t, err)
		return c
	}
	cluster := open()
	t.Cleanup(func() { cluster.Close() })
	return fmt.Sprintf("127.0.0.1:%d", port), func() {
		cluster.Close()
		cluster = open()
	}
}

// Whatever ends in the middle of a replay, all that was lost is back afterwards, once:
// ClickHouse killed, the broker restarted, the terminal closed, the command killed.
// What goes on by itself does, what can't says where to go on, and each run is on
// record.
func TestReplayOverOutages(t *testing.T) {
	t.Parallel()
	// Whoever runs the tests by nohup has the programs they start ignore SIGHUP, too:
	// what is caught here is not ignored there.
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGHUP)
	defer signal.Stop(caught)
	address, restart := broker(t)
	s := newStackOn(t, []string{address})
	s.cfg.Batch.Rows = 20 // many steps
	defer s.consuming()()
	for i := range 500 {
		s.produce(record(i, `{"n":1}`), record(i/2, `{"n":1}`))
	}
	before := s.verified()
	require.Equal(t, 500, before.Rows)
	last := func() operations.Operation {
		out, _, _ := s.says("replay", "history", "--json", "--kinds", operations.Replay)
		return lines[operations.Operation](t, out)[0]
	}
	rows := func() uint64 {
		var n uint64
		if s.store.Conn().QueryRow(t.Context(), "SELECT count() FROM event_log").Scan(&n) != nil {
			return 0 // it may be away
		}
		return n
	}
	for _, tt := range []struct {
		name   string
		rate   string // of what is ended on the way so low that it has not come to its end by itself
		happen func(*exec.Cmd)
		status int // -1: it was killed
		state  string
	}{
		{"ClickHouse is killed", "500", func(*exec.Cmd) { s.engine.Kill(); s.engine.Restart() }, 0, operations.Done},
		{"the broker is restarted", "500", func(*exec.Cmd) { restart() }, 0, operations.Done},
		{"the terminal is closed", "200", func(cmd *exec.Cmd) { require.NoError(t, cmd.Process.Signal(syscall.SIGHUP)) }, 2, operations.Interrupted},
		{"the command is killed", "200", func(cmd *exec.Cmd) { require.NoError(t, cmd.Process.Kill()) }, -1, operations.Running},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.exec("TRUNCATE TABLE event_log")
			cmd, _, said := s.process("replay", "--from", "earliest", "--rate", tt.rate, "--findings", t.TempDir()+"/f")
			require.Eventually(t, func() bool { return rows() > 20 }, 30*time.Second, 20*time.Millisecond, said)
			require.Less(t, rows(), uint64(500), "it is over before anything has happened")
			tt.happen(cmd)
			cmd.Wait() //nolint:errcheck // the status tells
			require.Equal(t, tt.status, cmd.ProcessState.ExitCode(), said)
			require.Equal(t, tt.state, last().State)
			again := []string{"--from", "earliest"}
			if tt.state == operations.Interrupted {
				from := regexp.MustCompile(`go on with: consumer replay --from (\S+)`).FindSubmatch(said.Bytes())
				require.NotNil(t, from, said)
				require.Contains(t, last().Outcome, string(from[1]))
				again = []string{"--from", string(from[1])}
			}
			s.forgetLeases()
			if tt.status != 0 {
				s.replayed(0, again...)
			}
			require.EqualValues(t, 500, s.scalar("SELECT count() FROM event_log"))
			require.Equal(t, before, s.verified())
			s.balanced(before)
		})
	}
}

// An offset that the log no longer has is refused with the first that it has; the
// same table of a partition that is paused is left alone, and the operator told.
func TestReplayFromBeforeTheStartAndOfAPausedPartition(t *testing.T) {
	t.Parallel()
	s, before := seeded(t)
	_, err := kadm.NewClient(s.producer).DeleteRecords(t.Context(), kadm.Offsets{s.cfg.Kafka.Topic: {1: {Topic: s.cfg.Kafka.Topic, Partition: 1, At: 4}}})
	require.NoError(t, err)
	_, said, status := s.says("replay", "--from", "1:3")
	require.Equal(t, 2, status)
	require.Contains(t, said, "the log of partition 1 begins at offset 4")
	s.exec("ALTER TABLE event_log DELETE WHERE partition = 1 AND offset >= 4 SETTINGS mutations_sync = 2")
	_, _, status = s.says("pause", "--partitions", "1", "--why", "a test")
	require.Zero(t, status)
	_, said, status = s.says("replay", "--from", "1:4", "--yes", "--findings", t.TempDir()+"/f")
	require.Equal(t, 2, status)
	require.Contains(t, said, "partition 1 is paused by")
	require.Contains(t, said, "go on with: consumer replay --from 1:4", "nothing of what is missing was asked for")
	_, _, status = s.says("resume", "--partitions", "1")
	require.Zero(t, status)
	s.replayed(0, "--from", "1:4") // no consumer runs: the command is the owner
	require.EqualValues(t, before.Rows, s.scalar("SELECT count() FROM event_log"))
}

// Dead letters are put through while the command is killed with kill -9 each time it
// has written to the topic, before or after it has written that down: every letter's
// event is one row in the end, and another redrive finds nothing to do.
func TestANightOfRedrives(t *testing.T) {
	t.Parallel()
	const letters, kills = 3_000, 6
	s := newStack(t)
	var records []*kgo.Record
	gone := uuid.New() // of a topic that is no more
	for i := range letters {
		r := record(i, `{"n":1}`)
		r.Topic = s.cfg.Kafka.DeadLetters
		r.Headers = []kgo.RecordHeader{
			{Key: topic.DeadReason, Value: []byte(topic.ReasonRefused)}, {Key: topic.DeadTopicID, Value: []byte(gone.String())},
			{Key: topic.DeadPartition, Value: []byte("0")}, {Key: topic.DeadOffset, Value: strconv.AppendInt(nil, int64(i), 10)},
		}
		records = append(records, r)
	}
	require.NoError(t, s.producer.ProduceSync(t.Context(), records...).FirstErr())
	defer s.consuming()()
	written := func() (n int64) {
		ends, err := kadm.NewClient(s.producer).ListEndOffsets(t.Context(), s.cfg.Kafka.Topic)
		require.NoError(t, err)
		ends.Each(func(o kadm.ListedOffset) { n += o.Offset })
		return n
	}
	for range kills {
		at := written()
		cmd, _, said := s.process("dlq", "redrive", "--yes")
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			cmd.Wait() //nolint:errcheck // it is killed, as a rule
		}()
		for over := false; !over && written() == at; {
			select {
			case <-ended:
				require.Zero(t, cmd.ProcessState.ExitCode(), said)
				over = true
			default:
			}
		}
		cmd.Process.Kill() //nolint:errcheck // it may have ended by itself
		<-ended
		s.forgetLeases()
	}
	again := func() redriven {
		out, said, status := s.says("dlq", "redrive", "--yes", "--json")
		require.Zero(t, status, said)
		return lines[redriven](t, out)[0]
	}
	last := again()
	require.Equal(t, letters, last.Letters)
	require.Equal(t, letters, last.Settled+last.Stored+last.Redriven)
	require.Equal(t, redriven{Letters: letters, Settled: letters}, again())
	twice := int(written()) - letters
	require.LessOrEqual(t, twice, kills*redriveAtOnce, "what was written down is not put through again")
	want := report{OK: true, Records: letters + twice, Rows: letters, Duplicates: twice, RollupsEqual: true}
	s.settles(want)
	s.balanced(want)
	t.Logf("%d letters, %d kills, %d put through twice and one row all the same", letters, kills, twice)
	out, _, _ := s.says("dlq", "list", "--json")
	require.Empty(t, strings.TrimSpace(out))
}
