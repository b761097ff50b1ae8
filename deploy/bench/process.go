package main

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/procfs"

	"sluice/deploy/local/supervise"
)

// programs is the directory of the binaries, of which only what is measured is
// looked at.
type programs struct{ dir string }

// Open opens the directory or one of its files, as an [fs.FS] does.
func (p programs) Open(name string) (fs.File, error) { return os.DirFS(p.dir).Open(name) }

// ReadDir lists the programs.
func (p programs) ReadDir(string) (all []fs.DirEntry, err error) {
	for _, name := range []string{"broker", "consumer", "engine", "ingest"} {
		info, err := os.Stat(filepath.Join(p.dir, name))
		if err != nil {
			return nil, err
		}
		all = append(all, fs.FileInfoToDirEntry(info))
	}
	return all, nil
}

// program is one run of a program.
type program struct {
	name   string
	cmd    *exec.Cmd
	exited chan struct{}
	ending chan struct{} // closed when its end is meant
}

// launch starts a program. The system kills it when this process ends, however
// it ends. onEnd is told when it ends without kill or stop.
func launch(spawner *supervise.Spawner, name, path string, args, env []string, log string, onEnd func(error)) (*program, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("%s: its log: %w", name, err)
	}
	defer out.Close() // the program has a descriptor of its own
	p := &program{name: name, cmd: command(path, args, env), exited: make(chan struct{}), ending: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := spawner.Start(p.cmd); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait() // how it ended is in the state
		select {
		case <-p.ending:
		default:
			onEnd(fmt.Errorf("%s ended by itself: %s: %s", name, p.cmd.ProcessState, lastWords(log)))
		}
	}()
	return p, nil
}

// command has this process's environment without what would configure a program
// of ours, and a process group of its own, so that a terminal's Ctrl-C reaches it
// through us only.
func command(path string, args, env []string) *exec.Cmd {
	cmd := exec.Command(path, args...) //nolint:noctx // its end is kill's, or the end of this process
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "SLUICE_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// kill ends the program with SIGKILL and returns when it is gone. Call kill or
// stop once.
func (p *program) kill() {
	close(p.ending)
	_ = p.cmd.Process.Kill() // it may have ended by itself
	<-p.exited
}

// stop asks the program to end and returns when it has; past bound it is killed.
func (p *program) stop(bound time.Duration) {
	close(p.ending)
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	select {
	case <-p.exited:
	case <-time.After(bound):
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
}

// used is the user and system time that a running program has taken, and the
// memory it holds just now.
func (p *program) used() (cpu time.Duration, rss int, err error) {
	proc, err := procfs.NewProc(p.cmd.Process.Pid)
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w", p.name, err)
	}
	stat, err := proc.Stat()
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w", p.name, err)
	}
	return time.Duration(stat.CPUTime() * float64(time.Second)), stat.ResidentMemory(), nil
}

// lastWords is the last line of a log.
func lastWords(log string) string {
	b, err := os.ReadFile(log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}
