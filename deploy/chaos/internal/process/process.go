// Package process runs the programs that chaos befalls: it starts them, kills
// them, freezes them, and starts again what ends by itself. None outlives the
// process that started it, not even a frozen one.
package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"sluice/deploy/local/supervise"
)

// againAfter is how soon a program that ended by itself is started again, as
// whatever keeps services running would; each further time it waits longer by
// as much.
const againAfter = 300 * time.Millisecond

// Spec says how to run a program.
type Spec struct {
	// Name is what it is called in logs and errors.
	Name string
	// Path and Args are the program and its arguments.
	Path string
	Args []string
	// Env are NAME=value pairs over this process's own environment, of which
	// nothing that begins with SLUICE_ is passed on.
	Env []string
	// Log is the file that standard output and error are appended to.
	Log string
}

// Process is one program over all its lives. Its methods are safe for
// concurrent use, but Kill, Freeze, Thaw and Start belong to one schedule.
type Process struct {
	spec    Spec
	spawner *supervise.Spawner
	// onEnd is told when the program ended without being killed by us.
	onEnd func(name string, state *os.ProcessState)

	mu      sync.Mutex
	cmd     *exec.Cmd
	exited  chan struct{}
	wanted  bool // it should be running
	ends    int  // by itself
	watches sync.WaitGroup
}

// New returns a program that does not run yet.
func New(spawner *supervise.Spawner, spec Spec, onEnd func(name string, state *os.ProcessState)) *Process {
	return &Process{spec: spec, spawner: spawner, onEnd: onEnd}
}

// Name is the Spec's.
func (p *Process) Name() string { return p.spec.Name }

// Start starts the program and keeps it running until Kill or Stop.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wanted {
		return fmt.Errorf("%s runs already", p.spec.Name)
	}
	p.wanted = true
	return p.launch()
}

// launch starts the program; p.mu is held.
func (p *Process) launch() error {
	log, err := os.OpenFile(p.spec.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("%s: its log: %w", p.spec.Name, err)
	}
	defer log.Close() // the program has a descriptor of its own
	cmd := command(p.spec)
	cmd.Stdout, cmd.Stderr = log, log
	if err := p.spawner.Start(cmd); err != nil {
		return fmt.Errorf("%s: %w", p.spec.Name, err)
	}
	fmt.Fprintf(log, "=== %s started as process %d at %s\n", p.spec.Name, cmd.Process.Pid, time.Now().Format(time.RFC3339Nano))
	exited := make(chan struct{})
	p.cmd, p.exited = cmd, exited
	p.watches.Go(func() { p.watch(cmd, exited) })
	return nil
}

// watch waits for the program's end and starts it again if nobody meant it.
func (p *Process) watch(cmd *exec.Cmd, exited chan struct{}) {
	_ = cmd.Wait() // how it ended is in the state
	close(exited)
	if !p.meant(cmd) {
		p.onEnd(p.spec.Name, cmd.ProcessState)
		p.mu.Lock()
		p.ends++
		wait := time.Duration(p.ends) * againAfter
		p.mu.Unlock()
		for begun := time.Now(); !p.meant(cmd); {
			time.Sleep(againAfter / 10)
			if time.Since(begun) < wait {
				continue
			}
			p.mu.Lock()
			if p.wanted && p.cmd == cmd && p.launch() == nil {
				p.mu.Unlock()
				return
			}
			p.mu.Unlock()
		}
	}
}

// meant tells whether the end of cmd is none of watch's business.
func (p *Process) meant(cmd *exec.Cmd) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.wanted || p.cmd != cmd
}

// Kill ends the program with SIGKILL and returns when it is gone.
func (p *Process) Kill() { p.end(syscall.SIGKILL, 0) }

// Stop asks the program to end with SIGTERM and kills it after bound.
func (p *Process) Stop(bound time.Duration) {
	p.end(syscall.SIGTERM, bound)
	p.watches.Wait()
}

func (p *Process) end(sig syscall.Signal, bound time.Duration) {
	p.mu.Lock()
	p.wanted = false
	cmd, exited := p.cmd, p.exited
	p.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Signal(sig) // it may have ended by itself
	if sig != syscall.SIGKILL {
		_ = cmd.Process.Signal(syscall.SIGCONT) // a frozen program hears nothing
		select {
		case <-exited:
		case <-time.After(bound):
			_ = cmd.Process.Kill()
		}
	}
	<-exited
}

// Freeze stops the program where it is (SIGSTOP) until Thaw (SIGCONT).
func (p *Process) Freeze() { p.signal(syscall.SIGSTOP) }

// Thaw lets a frozen program go on.
func (p *Process) Thaw() { p.signal(syscall.SIGCONT) }

func (p *Process) signal(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		_ = p.cmd.Process.Signal(sig) // it may have ended by itself
	}
}

// Run runs a program to its end and returns its standard output. A failure has
// its last words.
func Run(spawner *supervise.Spawner, spec Spec, bound time.Duration) (stdout string, err error) {
	cmd := command(spec)
	var out, words strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &words
	if err := spawner.Start(cmd); err != nil {
		return "", fmt.Errorf("%s: %w", spec.Name, err)
	}
	timer := time.AfterFunc(bound, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	if err := cmd.Wait(); err != nil {
		return out.String(), &RunError{Name: spec.Name, Words: strings.TrimSpace(words.String()), Err: err}
	}
	return out.String(), nil
}

// RunError is how a program of Run failed.
type RunError struct {
	Name, Words string
	Err         error
}

func (e *RunError) Error() string {
	return strings.TrimSpace(fmt.Sprintf("%s: %v\n%s", e.Name, e.Err, e.Words))
}

func (e *RunError) Unwrap() error { return e.Err }

// ExitCode is the program's exit code, -1 when it was killed.
func (e *RunError) ExitCode() int {
	var exit *exec.ExitError
	if errors.As(e.Err, &exit) {
		return exit.ExitCode()
	}
	return -1
}

func command(spec Spec) *exec.Cmd {
	cmd := exec.Command(spec.Path, spec.Args...) //nolint:noctx // its end is Kill's and Stop's
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "SLUICE_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, spec.Env...)
	// A group of its own, so that Ctrl-C reaches it through us only; and it is
	// killed when the spawner's thread ends, which is when this process does.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}
