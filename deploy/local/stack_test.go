package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"sluice/deploy/local/supervise"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bound is how long anything may take here; all of it takes far less.
const bound = 30 * time.Second

// house is a stack of fake programs.
type house struct {
	t     *testing.T
	cfg   config
	dir   string // what the fakes read and write
	out   safeBuffer
	log   safeBuffer
	hurry chan struct{}
	stop  context.CancelCauseFunc
	ended chan error
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, dir: t.TempDir(), hurry: make(chan struct{}), ended: make(chan error, 1), cfg: freeConfig(t)}
	t.Setenv("FAKE_DIR", h.dir)
	h.cfg.bin = t.TempDir()
	fake := build(t, "fake", "./testdata/fake")
	for _, name := range []string{"broker", "engine", "ingest", "consumer"} {
		require.NoError(t, os.Symlink(fake, filepath.Join(h.cfg.bin, name)))
	}
	return h
}

// build compiles a program into the working copy's .local, where go build finds
// it up to date the next time.
func build(t *testing.T, name, pkg string) string {
	t.Helper()
	binary, err := filepath.Abs(filepath.Join("..", "..", ".local", "test", name))
	require.NoError(t, err)
	cmd := exec.Command("go", "build", "-o", binary, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return binary
}

// freeConfig is a configuration with free ports and an empty data directory.
func freeConfig(t *testing.T) config {
	t.Helper()
	var c config
	require.NoError(t, c.addFlags(pflag.NewFlagSet("", pflag.ContinueOnError)))
	var held []net.Listener
	for _, p := range c.ports() {
		l := listenBelow(t)
		held = append(held, l)
		p.number = l.Addr().(*net.TCPAddr).Port
	}
	for _, l := range held {
		require.NoError(t, l.Close())
	}
	c.data = filepath.Join(t.TempDir(), "data")
	return c
}

func (h *house) start() {
	ctx, stop := context.WithCancelCause(context.Background())
	h.stop = stop
	out := supervise.NewOutput(&h.log, nameWidth, false)
	s := &stack{
		cfg: h.cfg, out: out, ready: &h.out, hurry: h.hurry,
		log:     slog.New(slog.NewTextHandler(out.Named("sluice"), nil)),
		library: func(context.Context) (string, error) { return "a library", nil },
		backoff: supervise.Backoff{First: 20 * time.Millisecond, Most: 100 * time.Millisecond, Calm: time.Hour, StartTries: 3},
	}
	go func() { h.ended <- s.run(ctx) }()
	h.t.Cleanup(func() {
		stop(errSignal)
		if h.t.Failed() {
			h.t.Logf("events:\n%s\nlog:\n%s", h.events(), h.log.String())
		}
	})
}

func (h *house) end() error {
	h.t.Helper()
	select {
	case err := <-h.ended:
		return err
	case <-time.After(bound):
		h.t.Fatal("the stack does not end")
		return nil
	}
}

func (h *house) put(file string) {
	require.NoError(h.t, os.WriteFile(filepath.Join(h.dir, file), nil, 0o644))
}

func (h *house) events() string {
	b, err := os.ReadFile(filepath.Join(h.dir, "events"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		h.t.Error(err)
	}
	return string(b)
}

// names lists whom an event happened to, in order.
func (h *house) names(event string) (names []string) {
	for line := range strings.Lines(h.events()) {
		if f := strings.Fields(line); f[0] == event {
			names = append(names, f[1])
		}
	}
	return names
}

// pids are the processes that were started under a name.
func (h *house) pids(name string) (pids []int) {
	for line := range strings.Lines(h.events()) {
		if f := strings.Fields(line); f[0] == "start" && f[1] == name {
			pid, err := strconv.Atoi(f[2])
			require.NoError(h.t, err)
			pids = append(pids, pid)
		}
	}
	return pids
}

func (h *house) until(what string, ok func() bool) {
	h.t.Helper()
	require.Eventually(h.t, ok, bound, 5*time.Millisecond, what)
}

func (h *house) untilReady() {
	h.t.Helper()
	h.until("ready", func() bool { return h.out.String() != "" })
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func TestStartAndStopInOrder(t *testing.T) {
	h := newHouse(t)
	h.put("consumer.unready")
	h.start()
	h.until("all are started", func() bool { return slices.Contains(h.names("start"), "ingest") })
	require.Empty(t, h.out.String(), "not ready as long as one is not")
	require.NoError(t, os.Remove(filepath.Join(h.dir, "consumer.unready")))
	h.untilReady()
	started := h.names("start")
	require.ElementsMatch(t, []string{"broker", "engine"}, started[:2])
	require.Equal(t, []string{"topics", "migrate"}, started[2:4])
	require.ElementsMatch(t, []string{"consumer", "ingest"}, started[4:])

	h.stop(errSignal)
	require.NoError(t, h.end())
	require.Equal(t, []string{"ingest", "consumer", "engine", "broker"}, h.names("stop"))
	require.Equal(t, fmt.Sprintf("sluice is ready: POST http://127.0.0.1:%d/api/events\n", h.cfg.http.number), h.out.String())
}

func TestRestart(t *testing.T) {
	h := newHouse(t)
	h.start()
	h.untilReady()
	require.NoError(t, syscall.Kill(h.pids("consumer")[0], syscall.SIGKILL))
	h.until("back", func() bool { return strings.Contains(h.log.String(), "consumer is back") })
	require.Contains(t, h.log.String(), "consumer ended: signal: killed: starting it again")

	// It dies at once, again and again: each time the wait is longer, up to a
	// bound, and after the start it is never given up.
	h.put("ingest.fail")
	require.NoError(t, syscall.Kill(h.pids("ingest")[0], syscall.SIGKILL))
	h.until("many tries", func() bool { return len(h.pids("ingest")) > 5 })
	for _, wait := range []string{"in=20ms", "in=40ms", "in=80ms", "in=100ms"} {
		require.Contains(t, h.log.String(), wait)
	}
	require.NoError(t, os.Remove(filepath.Join(h.dir, "ingest.fail")))
	h.until("back", func() bool { return strings.Contains(h.log.String(), "ingest is back") })

	h.stop(errSignal)
	require.NoError(t, h.end())
	require.Equal(t, 1, strings.Count(h.out.String(), "\n"), "ready is said once")
}

// Only the consumer that the supervisor keeps is the group's static member.
func TestMember(t *testing.T) {
	h := newHouse(t)
	h.start()
	h.untilReady()
	h.stop(errSignal)
	require.NoError(t, h.end())
	for line := range strings.Lines(h.events()) {
		require.Equal(t, strings.Contains(line, " consumer "), strings.Contains(line, "SLUICE_GROUP_INSTANCE_ID=local"), line)
	}
	require.NotContains(t, strings.Join(h.cfg.consumerEnv(), " "), "INSTANCE_ID")
}

func TestFailureAtTheStart(t *testing.T) {
	for name, tries := range map[string]int{"migrate": 1, "topics": 1, "consumer": 3, "broker": 3} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.put(name + ".fail")
			h.start()
			err := h.end()
			require.ErrorContains(t, err, name)
			require.ErrorContains(t, err, "exit status 3")
			require.ErrorContains(t, err, "the reason")
			require.Len(t, h.pids(name), tries)
			require.Empty(t, h.out.String())
			for _, other := range []string{"broker", "engine", "ingest", "consumer"} {
				for _, pid := range h.pids(other) {
					require.False(t, alive(pid), "%s is left", other)
				}
			}
		})
	}
}

// A program that does not stop is killed at the second Ctrl-C, with the rest.
func TestHurry(t *testing.T) {
	h := newHouse(t)
	h.put("ingest.deaf")
	h.start()
	h.untilReady()
	h.stop(errSignal)
	select {
	case err := <-h.ended:
		t.Fatal("it did not wait for the edge", err)
	case <-time.After(100 * time.Millisecond):
	}
	require.NotContains(t, h.names("stop"), "consumer", "one after the other")
	close(h.hurry)
	require.NoError(t, h.end())
	for _, name := range []string{"broker", "engine", "ingest", "consumer"} {
		require.False(t, alive(h.pids(name)[0]), name)
	}
}

func TestRefusals(t *testing.T) {
	h := newHouse(t)
	h.start()
	h.untilReady()

	second := newHouse(t)
	second.cfg.data = h.cfg.data
	second.start()
	require.ErrorContains(t, second.end(), fmt.Sprintf("already runs on %s: process %d", h.cfg.data, os.Getpid()))

	taken := newHouse(t)
	taken.cfg.clickhouse.number = h.cfg.clickhouse.number
	taken.start()
	err := taken.end()
	require.ErrorContains(t, err, fmt.Sprintf("port %d, for ClickHouse, is taken by process %d (%s", h.cfg.clickhouse.number, h.pids("engine")[0], h.cfg.bin))
	require.ErrorContains(t, err, "make run CLICKHOUSE_PORT=")
	require.NotContains(t, err.Error(), "for Kafka")
	require.Empty(t, taken.events())
	h.stop(errSignal)
	require.NoError(t, h.end())

	var c config
	t.Setenv("KAFKA_PORT", "many")
	require.ErrorContains(t, c.addFlags(pflag.NewFlagSet("", pflag.ContinueOnError)), "KAFKA_PORT")
	c = h.cfg
	c.kafka.number = c.http.number
	require.ErrorContains(t, c.complete(), "HTTP_PORT and KAFKA_PORT are both")
	t.Setenv("KAFKA_PORT", "9092")
	t.Setenv("BROKER", "redpanda")
	require.ErrorContains(t, c.addFlags(pflag.NewFlagSet("", pflag.ContinueOnError)), `BROKER="redpanda": want kfake or apache`)
}

// safeBuffer is written by the stack and read by the test.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// listenBelow listens on a port that the system gives to nobody who asks for any: one
// of those could be another's before the program that it is for has it.
func listenBelow(t *testing.T) net.Listener {
	t.Helper()
	for range 1000 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(12_000)))
		if err == nil {
			return l
		}
	}
	require.FailNow(t, "no free port between 20000 and 32000")
	return nil
}
