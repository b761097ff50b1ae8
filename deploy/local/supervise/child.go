package supervise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Spec says how to run a program.
type Spec struct {
	// Name is what it is called in logs and errors.
	Name string
	// Path and Args are the program and its arguments.
	Path string
	Args []string
	// Env are NAME=value pairs over this process's own environment.
	Env []string
	// Lifeline: the program stops by itself, and in order, when its standard
	// input ends. Any other program is killed when this process is gone.
	Lifeline bool
	// StopBound is how long the program may take to stop before it is killed.
	StopBound time.Duration
}

// waitDelay is how long a program's output may stay open after its end, held
// by a process it left behind.
const waitDelay = 2 * time.Second

// child is one run of a program.
type child struct {
	spec   Spec
	cmd    *exec.Cmd
	stdin  io.Closer
	exited chan struct{} // closed at its end, when err is set
	err    error
}

// start runs spec. Its output goes to out. It has a process group of its own,
// so that a terminal's Ctrl-C reaches only the supervisor, which stops the
// programs in order.
func (s *Spawner) start(spec Spec, out *Named) (*child, error) {
	c := &child{spec: spec, exited: make(chan struct{})}
	// No context: what ends it is stop, which asks first and kills later.
	c.cmd = exec.CommandContext(context.Background(), spec.Path, spec.Args...)
	c.cmd.Env = append(os.Environ(), spec.Env...)
	c.cmd.Stdout, c.cmd.Stderr = out, out
	c.cmd.WaitDelay = waitDelay
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if spec.Lifeline {
		w, err := c.cmd.StdinPipe()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", spec.Name, err)
		}
		c.stdin = w
	} else {
		c.cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	if err := s.Start(c.cmd); err != nil {
		return nil, fmt.Errorf("%s: %w", spec.Name, err)
	}
	go func() {
		err := c.cmd.Wait()
		if errors.Is(err, exec.ErrWaitDelay) {
			err = nil // what it left behind holds its output, it itself has ended well
		}
		_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL) // what it left behind, if anything
		out.Flush()
		c.err = err
		close(c.exited)
	}()
	return c, nil
}

// stop asks the program to end and kills its process group when it takes longer
// than its bound, or when hurry is closed.
func (c *child) stop(hurry <-chan struct{}, log *slog.Logger) {
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	bound := time.NewTimer(c.spec.StopBound)
	defer bound.Stop()
	select {
	case <-c.exited:
		return
	case <-hurry:
	case <-bound.C:
		log.Warn("it does not stop: killing it", "name", c.spec.Name, "after", c.spec.StopBound)
	}
	_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL) // likewise
	<-c.exited
}

// RunOnce runs a program to its end. Its error has the program's last words.
// When ctx ends the program is stopped.
func (s *Spawner) RunOnce(ctx context.Context, spec Spec, out *Named, log *slog.Logger) error {
	c, err := s.start(spec, out)
	if err != nil {
		return err
	}
	select {
	case <-c.exited:
	case <-ctx.Done():
		c.stop(nil, log)
		return context.Cause(ctx)
	}
	if c.err != nil {
		return fmt.Errorf("%s failed: %w\n%s", spec.Name, c.err, out.Tail())
	}
	return nil
}
