package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/deploy/local/engine/install"
)

// supervisor is the supervisor in a process of its own.
type supervisor struct {
	t        *testing.T
	cmd      *exec.Cmd
	out, log safeBuffer
}

// launch starts it on cfg.
func launch(t *testing.T, cfg config) *supervisor {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	require.NoError(t, err)
	if _, err := os.Stat(install.Library(install.Dir(root))); err != nil {
		t.Fatalf("the ClickHouse engine is not installed: run \"make engine\" first (%v)", err)
	}
	s := &supervisor{t: t}
	s.cmd = exec.Command(build(t, "supervisor", "."), "--root", root, "--bin", cfg.bin, "--data", cfg.data)
	s.cmd.Env = os.Environ()
	for _, p := range cfg.ports() {
		s.cmd.Env = append(s.cmd.Env, fmt.Sprintf("%s=%d", p.variable, p.number))
	}
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.log
	// Its programs hold its standard error open; they end soon after it.
	s.cmd.WaitDelay = bound
	require.NoError(t, s.cmd.Start())
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill() // it ended, unless the test failed
		_ = s.cmd.Wait()
		if t.Failed() {
			t.Logf("the supervisor's log:\n%s", s.log.String())
		}
	})
	require.Eventually(t, func() bool { return s.out.String() != "" || s.gone() }, bound, 10*time.Millisecond, "not ready")
	require.Equal(t, fmt.Sprintf("sluice is ready: POST http://127.0.0.1:%d/api/events\n", cfg.http.number), s.out.String(), s.log.String())
	return s
}

// gone says whether the process has ended, be it waited for or not.
func (s *supervisor) gone() bool { return !running(s.cmd.Process.Pid) }

// running says whether a process is there and no zombie.
func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	return fields[0] != "Z"
}

// children are the processes that it started, by name.
func (s *supervisor) children() map[string]int {
	s.t.Helper()
	found := map[string]int{}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(s.t, err)
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		var pid, ppid int
		open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
		name := string(stat[open+1 : end])
		if _, err := fmt.Sscan(string(stat[:open]), &pid); err != nil {
			continue
		}
		var state string
		if _, err := fmt.Sscan(string(stat[end+1:]), &state, &ppid); err == nil && ppid == s.cmd.Process.Pid {
			found[name] = pid
		}
	}
	require.Len(s.t, found, 4, "%v", found)
	return found
}

// When the supervisor is killed nothing is left, whatever the programs do: the
// edge and the consumer are killed with it, broker and engine stop by
// themselves.
func TestSupervisorKilled(t *testing.T) {
	h := newHouse(t)
	h.put("ingest.deaf")
	h.put("consumer.deaf")
	s := launch(t, h.cfg)
	children := s.children()
	require.NoError(t, s.cmd.Process.Kill())
	for name, pid := range children {
		require.Eventually(t, func() bool { return !running(pid) }, bound, 5*time.Millisecond, "%s is left", name)
	}
	h.until("broker and engine stop in order", func() bool { return len(h.names("stop")) == 2 })
	require.ElementsMatch(t, []string{"broker", "engine"}, h.names("stop"))
}

// The whole of Sluice: an event posted is a row, and still is after the
// supervisor was killed and started again; Ctrl-C ends it with status 0.
func TestSluice(t *testing.T) {
	throughAndBack(t, "ingest", "consumer", "engine", "broker", "sluice")
}

// throughAndBack is TestSluice. stopped are those whose last words are looked
// at, in the order in which they must come.
func throughAndBack(t *testing.T, stopped ...string) {
	t.Helper()
	cfg := freeConfig(t)
	for name, pkg := range map[string]string{"broker": "./broker", "engine": "./engine", "ingest": "../../ingest", "consumer": "../../consumer"} {
		cfg.bin = filepath.Dir(build(t, "bin/"+name, pkg))
	}
	s := launch(t, cfg)
	post := func(actor string) {
		body := fmt.Sprintf(`{"source":"test","event_type":"t","actor_id":%q,"occurred_at":"2026-01-02T03:04:05Z"}`, actor)
		resp, err := http.Post("http://"+cfg.http.address()+"/api/events", "application/json", strings.NewReader(body))
		require.NoError(t, err)
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, http.StatusAccepted, resp.StatusCode, "%s", answer)
	}
	actors := func() string {
		resp, err := http.Post("http://"+cfg.clickhouse.address()+"/?database=sluice", "", strings.NewReader("SELECT arraySort(groupArray(actor_id)) FROM events"))
		require.NoError(t, err)
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return strings.TrimSpace(string(answer))
	}
	post("a")
	require.Eventually(t, func() bool { return actors() == "['a']" }, bound, 20*time.Millisecond)
	children := s.children()
	require.NoError(t, s.cmd.Process.Kill())

	// At once: what is left of the first is waited for.
	s = launch(t, cfg)
	for name, pid := range children {
		require.False(t, running(pid), "%s of the first run", name)
	}
	post("a")
	post("b")
	require.Eventually(t, func() bool { return actors() == "['a','b']" }, bound, 20*time.Millisecond)

	require.NoError(t, s.cmd.Process.Signal(syscall.SIGINT))
	require.NoError(t, s.cmd.Wait(), "status 0")
	require.Equal(t, 1, strings.Count(s.out.String(), "\n"), "the ready line and nothing else")
	log := s.log.String()
	last := -1
	for _, name := range stopped {
		at := strings.LastIndex(log, fmt.Sprintf("%-*s | ", nameWidth, name))
		require.Greater(t, at, last, "stopped out of order: %s", name)
		last = at
	}
}
