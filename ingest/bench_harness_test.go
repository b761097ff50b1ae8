package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/schemas/topic"
)

// brokerEnv has this test binary be a broker, on the data directory it names,
// instead of running tests: so that a benchmark's broker is a process of its
// own, as in production.
const brokerEnv = "SLUICE_TEST_BROKER_DIR"

// runBroker serves until SIGTERM and prints its address.
func runBroker(dir string) int {
	c, err := kfake.NewCluster(
		kfake.NumBrokers(1), kfake.DataDir(dir), kfake.SeedTopics(partitions, topic.Events), kfake.SeedTopics(1, topic.Control),
		kfake.BrokerConfigs(map[string]string{"message.max.bytes": "2097152"}))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer c.Close()
	fmt.Println(c.ListenAddrs()[0])
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() { // the parent is gone when its end of the pipe is
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	<-ctx.Done()
	return 0
}

// brokerProcess starts a broker with its log on disk and returns its address.
func brokerProcess(b testing.TB) string {
	b.Helper()
	address, _ := brokerWithPID(b)
	return address
}

// brokerWithPID is brokerProcess for those who do something to the process.
func brokerWithPID(b testing.TB) (address string, pid int) {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), brokerEnv+"="+b.TempDir())
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(b, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(b, err)
	require.NoError(b, cmd.Start())
	b.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGCONT) // a test may have stopped it
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(b, err)
	return strings.TrimSpace(line), cmd.Process.Pid
}

// sample is about what a page sends: 270 bytes, no two alike.
func sample(i int) []byte {
	return fmt.Appendf(nil, `{"source":"git:snowplow/stream-collector","event_type":"commit_authored","actor_id":"44e0%012d","occurred_at":"2012-03-01T13:09:25+00:00","payload":{"commit":"74d22d288960","parents":0,"committed_at":"2012-03-01T13:09:25+00:00","subject_chars":18,"subject_words":2}}`, i)
}

const samples = 8192

func requestBytes(path, media string, body []byte) []byte {
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", path, media, len(body), body)
}

// lean is a client that costs little beside the server it measures.
type lean struct {
	conn net.Conn
	r    *bufio.Reader
}

func dialLean(address string) (*lean, error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	return &lean{c, bufio.NewReaderSize(c, 64<<10)}, nil
}

// do sends one request and reads its answer, of which it returns the status.
func (l *lean) do(request []byte) (int, error) {
	if _, err := l.conn.Write(request); err != nil {
		return 0, err
	}
	status, length := 0, 0
	for first := true; ; first = false {
		line, err := l.r.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		switch {
		case first:
			status, err = strconv.Atoi(string(line[9:12]))
			if err != nil {
				return 0, err
			}
		case len(line) <= 2:
			_, err := l.r.Discard(length)
			return status, err
		case bytes.HasPrefix(line, []byte("Content-Length: ")):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(line[16:]))); err != nil {
				return 0, err
			}
		}
	}
}

// hammer posts the requests in turn over as many connections as there are
// workers, and requires the status of each answer.
func hammer(b *testing.B, address string, workers, status int, requests [][]byte, unit string, perOp int) {
	b.Helper()
	var next atomic.Int64
	b.SetParallelism(max(1, workers/runtime.GOMAXPROCS(0)))
	b.ReportAllocs()
	b.ResetTimer()
	began := cpuTime(b)
	defer func() { reportCPU(b, began, unit, perOp) }()
	b.RunParallel(func(pb *testing.PB) {
		c, err := dialLean(address)
		if err != nil {
			b.Error(err)
			return
		}
		defer c.conn.Close()
		for pb.Next() {
			got, err := c.do(requests[int(next.Add(1))%len(requests)])
			if err != nil || got != status {
				b.Errorf("status %d, error %v", got, err)
				return
			}
		}
	})
}

// serveGin serves a gin engine as the edge serves its own.
func serveGin(b *testing.B, set func(*gin.Engine)) string {
	b.Helper()
	gin.SetMode(gin.ReleaseMode)
	e := gin.New()
	set(e)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	srv := server(defaults().HTTP, e)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	b.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
	return l.Addr().String()
}

// bareClient is a franz-go client as a handler without us would have it.
func bareClient(b *testing.B, broker string) *kgo.Client {
	b.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.DefaultProduceTopic(topic.Events),
		kgo.ProducerLinger(defaults().Produce.Linger), kgo.ProducerBatchMaxBytes(2<<20))
	require.NoError(b, err)
	b.Cleanup(c.Close)
	return c
}

// ratios remembers what each benchmark did a second, and reports the last one's
// share of the others.
type ratios map[string]float64

func (r ratios) note(b *testing.B, name, unit string, perOp int) {
	r[name] = float64(b.N*perOp) / b.Elapsed().Seconds()
	b.ReportMetric(r[name], unit)
}

// cpuTime is what this process, clients and server in one, has used so far. It
// tells more than the clock does on a machine that others use, too.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// reportCPU reports the CPU time used since began, for each of b.N*perOp.
func reportCPU(b *testing.B, began time.Duration, unit string, perOp int) {
	b.Helper()
	b.ReportMetric(float64((cpuTime(b)-began).Nanoseconds())/float64(b.N*perOp), "cpu-ns/"+unit)
}

func (r ratios) against(b *testing.B, name string, floors ...string) {
	for _, f := range floors {
		if r[f] > 0 {
			b.ReportMetric(r[name]/r[f], "of_"+f)
		}
	}
}
