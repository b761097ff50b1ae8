package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"sluice/deploy/local/lifeline"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// process is a broker in a process of its own.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
	addr  string
}

func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "broker")
	out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return binary
}

func start(t *testing.T, binary, data string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(binary, append([]string{"--port=0", "--data", data, "--" + lifeline.Flag}, args...)...)}
	var err error
	p.stdin, err = p.cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() {
		_ = p.stdin.Close() // a test that ended it has closed it
		_ = p.cmd.Wait()
	})
	p.addr, err = bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	p.addr = strings.TrimSpace(p.addr)
	require.True(t, strings.HasPrefix(p.addr, "127.0.0.1:"), p.addr)
	return p
}

func (p *process) kill(t *testing.T) {
	t.Helper()
	require.NoError(t, p.cmd.Process.Kill())
	require.Error(t, p.cmd.Wait())
}

func client(t *testing.T, addr string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	c, err := kgo.NewClient(append(opts, kgo.SeedBrokers(addr))...)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func read(t *testing.T, addr, topic string, n int) map[string]int {
	t.Helper()
	c := client(t, addr, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	seen := map[string]int{}
	for total := 0; total < n; {
		f := c.PollFetches(ctx)
		require.NoError(t, f.Err())
		f.EachRecord(func(r *kgo.Record) { seen[string(r.Value)]++; total++ })
	}
	return seen
}

// What was acknowledged is there once after the broker was killed in the middle
// of producing, with and without fsync; and so are the topics, their settings,
// their ids and the groups' offsets.
func TestKilled(t *testing.T) {
	binary := build(t)
	for _, syncWrites := range []bool{false, true} {
		t.Run(fmt.Sprintf("sync=%v", syncWrites), func(t *testing.T) {
			data := t.TempDir()
			flag := fmt.Sprintf("--sync-writes=%v", syncWrites)
			p := start(t, binary, data, flag)
			admin := kadm.NewClient(client(t, p.addr))
			ctx := t.Context()
			made, err := admin.CreateTopic(ctx, 2, 1, map[string]*string{
				"cleanup.policy": kadm.StringPtr("delete"), "retention.ms": kadm.StringPtr("-1"), "max.message.bytes": kadm.StringPtr("2000000"),
			}, "t")
			require.NoError(t, err)
			require.NoError(t, made.Err)
			require.NoError(t, admin.CommitAllOffsets(ctx, "g", kadm.Offsets{"t": {0: {Topic: "t", Partition: 0, At: 7, LeaderEpoch: -1, Metadata: "intent"}}}))

			var acked []string
			var mu sync.Mutex
			producer := client(t, p.addr, kgo.ProducerLinger(0))
			enough := make(chan struct{})
			var once sync.Once
			producing := sync.WaitGroup{}
			producing.Go(func() {
				for i := 0; ; i++ {
					r := kgo.StringRecord(fmt.Sprint(i))
					r.Topic = "t"
					if err := producer.ProduceSync(ctx, r).FirstErr(); err != nil {
						return
					}
					mu.Lock()
					if acked = append(acked, string(r.Value)); len(acked) > 300 {
						once.Do(func() { close(enough) })
					}
					mu.Unlock()
				}
			})
			<-enough
			p.kill(t)
			producer.Close() // the record in flight it would offer for ever
			producing.Wait()

			p = start(t, binary, data, flag)
			seen := read(t, p.addr, "t", len(acked))
			for _, v := range acked {
				require.Equal(t, 1, seen[v], v)
			}
			admin = kadm.NewClient(client(t, p.addr))
			topics, err := admin.ListTopics(ctx)
			require.NoError(t, err)
			require.Len(t, topics["t"].Partitions, 2)
			require.Equal(t, made.ID, topics["t"].ID)
			configs, err := admin.DescribeTopicConfigs(ctx, "t")
			require.NoError(t, err)
			got := map[string]string{}
			for _, c := range configs[0].Configs {
				got[c.Key] = c.MaybeValue()
			}
			require.Equal(t, "-1", got["retention.ms"])
			require.Equal(t, "2000000", got["max.message.bytes"])
			offsets, err := admin.FetchOffsets(ctx, "g")
			require.NoError(t, err)
			o, ok := offsets.Lookup("t", 0)
			require.True(t, ok)
			require.EqualValues(t, 7, o.At)
			require.Equal(t, "intent", o.Metadata)
		})
	}
}

// A topic's max.message.bytes is respected, above and below the default, and no
// topic comes into being unasked.
func TestTopics(t *testing.T) {
	p := start(t, build(t), t.TempDir())
	ctx := t.Context()
	admin := kadm.NewClient(client(t, p.addr))
	for topic, limit := range map[string]string{"small": "10000", "large": "5000000"} {
		r, err := admin.CreateTopic(ctx, 1, 1, map[string]*string{"max.message.bytes": &limit}, topic)
		require.NoError(t, err)
		require.NoError(t, r.Err)
	}
	producer := client(t, p.addr, kgo.ProducerBatchMaxBytes(6_000_000), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.UnknownTopicRetries(1), kgo.AllowAutoTopicCreation())
	produce := func(topic string, bytes int) error {
		return producer.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: make([]byte, bytes)}).FirstErr()
	}
	require.NoError(t, produce("small", 9_000))
	require.ErrorIs(t, produce("small", 11_000), kerr.MessageTooLarge)
	require.NoError(t, produce("large", 4_900_000))
	require.ErrorIs(t, produce("large", 5_100_000), kerr.MessageTooLarge)
	require.ErrorIs(t, produce("unasked", 1), kerr.UnknownTopicOrPartition)
}

// It stops in order when told to, and when its starter is gone; a second broker
// on the same data is refused.
func TestStop(t *testing.T) {
	binary, data := build(t), t.TempDir()
	p := start(t, binary, data)
	err := run(t.Context(), 0, "", data, false, io.Discard, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, fmt.Sprintf("process %d", p.cmd.Process.Pid))

	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, p.cmd.Wait())
	p = start(t, binary, data)
	require.NoError(t, p.stdin.Close())
	require.NoError(t, p.cmd.Wait())

	// In this process, for goleak.
	ctx, cancel := context.WithCancelCause(t.Context())
	pr, pw := io.Pipe()
	done := make(chan error)
	go func() { done <- run(ctx, 0, "", data, false, pw, slog.New(slog.NewTextHandler(os.Stderr, nil))) }()
	_, err = bufio.NewReader(pr).ReadString('\n')
	require.NoError(t, err)
	cancel(errors.New("the test is over"))
	require.NoError(t, <-done)
}

// A proxy in between works only if clients are told its address: they go where
// the broker's metadata say, whatever they began with.
func TestAdvertise(t *testing.T) {
	told, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer told.Close()
	p := start(t, build(t), t.TempDir(), "--advertise", told.Addr().String())
	require.Equal(t, told.Addr().String(), p.addr)

	_, err = advertised("127.0.0.1")
	require.ErrorContains(t, err, "--advertise")
}
