// Package enginetest gives a test a ClickHouse server of its own: the local
// engine, in a process of its own, on a free port and an empty data directory, which
// is in memory where there is room.
package enginetest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/deploy/local/engine/install"
	"sluice/deploy/local/lifeline"
	"sluice/deploy/local/lock"
)

// startBound is how long the engine may take to answer: it takes less than a
// second, unless the machine is very busy.
const startBound = 60 * time.Second

// Engine is a running ClickHouse server. Its methods fail the test on errors
// and must be called from the test's own goroutine.
type Engine struct {
	// URL is http://127.0.0.1:PORT. It stays the same over Restart.
	URL string
	// DSN is for clickhouse-go: URL and the database "default".
	DSN string
	// Addr is 127.0.0.1:PORT.
	Addr string
	// Dir is the data directory.
	Dir string

	tb      testing.TB
	binary  string
	library string

	cmd   *exec.Cmd
	stdin io.Closer
	log   *syncBuffer
}

// Start builds the engine, starts it and waits until it answers. It is stopped,
// and its data removed, when the test ends; what it logged is shown if the test
// failed. Where libchdb is not installed the test fails and says what to run.
func Start(tb testing.TB) *Engine { return StartFrom(tb, "") }

// StartFrom is [Start] with a copy of the data that another engine left in dir when it
// was stopped; "" is none.
func StartFrom(tb testing.TB, dir string) *Engine {
	tb.Helper()
	built := build()
	if built.err != nil {
		tb.Fatal(built.err)
	}
	library := install.Library(install.Dir(built.root))
	if _, err := os.Stat(library); err != nil {
		tb.Fatalf("the ClickHouse engine is not installed: run \"make engine\" in %s first (%v)", built.root, err)
	}
	e := &Engine{tb: tb, binary: built.binary, library: library, Dir: dataDir(tb), log: &syncBuffer{}}
	tb.Cleanup(func() {
		if e.cmd != nil {
			e.Stop()
		}
		if tb.Failed() {
			tb.Logf("the engine's log:\n%s", e.log)
		}
	})
	if dir != "" {
		if err := os.CopyFS(e.Dir, os.DirFS(dir)); err != nil {
			tb.Fatalf("copying the engine's data: %v", err)
		}
	}
	e.start("127.0.0.1:0")
	e.DSN = e.URL + "/default"
	e.Addr = strings.TrimPrefix(e.URL, "http://")
	return e
}

// Kill ends the engine as a crash would (SIGKILL) and waits until it is gone.
func (e *Engine) Kill() {
	e.tb.Helper()
	if err := e.cmd.Process.Kill(); err != nil {
		e.tb.Fatalf("killing the engine: %v", err)
	}
	_ = e.wait() // "signal: killed"
}

// Stop ends the engine in order, as SIGTERM does, and waits until it is gone.
func (e *Engine) Stop() {
	e.tb.Helper()
	_ = e.stdin.Close() // a pipe whose reader may have ended first
	if err := e.wait(); err != nil {
		e.tb.Errorf("the engine did not stop in order: %v\n%s", err, e.log)
	}
}

// Restart starts the engine anew on the same data and address, ending it in
// order before if it runs, and waits until it answers.
func (e *Engine) Restart() {
	e.tb.Helper()
	if e.cmd != nil {
		e.Stop()
	}
	e.start(e.Addr)
}

// PID is the process, of which Restart makes another.
func (e *Engine) PID() int { return e.cmd.Process.Pid }

// Log returns what the engine has logged so far.
func (e *Engine) Log() string { return e.log.String() }

func (e *Engine) wait() error {
	err := e.cmd.Wait()
	_ = e.stdin.Close() // closed before, or of no more use
	e.cmd = nil
	return err
}

func (e *Engine) start(listen string) {
	e.tb.Helper()
	cmd := exec.Command(e.binary, "--listen", listen, "--library", e.library, "--data", e.Dir, "--"+lifeline.Flag)
	cmd.Dir = e.Dir
	cmd.Stderr = e.log
	// The engine ends when this pipe does, so it cannot outlive the test
	// process, whatever ends that.
	stdin, err := cmd.StdinPipe()
	if err != nil {
		e.tb.Fatalf("starting the engine: %v", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		e.tb.Fatalf("starting the engine: %v", err)
	}
	if err := cmd.Start(); err != nil {
		e.tb.Fatalf("starting the engine: %v", err)
	}
	e.cmd, e.stdin = cmd, stdin
	killed := time.AfterFunc(startBound, func() { _ = cmd.Process.Kill() }) // it may be gone already
	defer killed.Stop()
	url, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		err = errors.Join(err, e.wait())
		e.tb.Fatalf("the engine did not start: %v\n%s", err, e.log)
	}
	e.URL = strings.TrimSpace(url)
	if _, err := net.ResolveTCPAddr("tcp", strings.TrimPrefix(e.URL, "http://")); err != nil {
		e.tb.Fatalf("the engine says it answers at %q: %v", e.URL, err)
	}
}

// building is the engine's binary in the module at root.
type building struct {
	root, binary string
	err          error
}

// build compiles the engine into the working copy's .local, or finds it up to date
// there. It does so once a process, which may start many engines. Tests of several
// packages run at the same time: one builds, the others wait.
var build = sync.OnceValue(func() (b building) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		b.err = fmt.Errorf("go env GOMOD: %w", err)
		return b
	}
	b.root = filepath.Dir(strings.TrimSpace(string(out)))
	b.binary = filepath.Join(b.root, ".local", "test", "engine")
	if b.err = os.MkdirAll(filepath.Dir(b.binary), 0o755); b.err != nil {
		return b
	}
	held, err := lock.Wait(b.binary + ".lock")
	if err != nil {
		b.err = fmt.Errorf("building the engine: %w", err)
		return b
	}
	defer func() { _ = held.Release() }() // its file needs nothing more
	cmd := exec.Command("go", "build", "-o", b.binary, "./deploy/local/engine")
	cmd.Dir = b.root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.err = fmt.Errorf("building the engine: %w\n%s", err, out)
	}
	return b
})

// syncBuffer may be read while the engine writes.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
