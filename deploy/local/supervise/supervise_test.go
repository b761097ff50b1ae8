package supervise

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func shell(name, script string, bound time.Duration) Spec {
	return Spec{Name: name, Path: "/bin/sh", Args: []string{"-c", script}, StopBound: bound}
}

func TestOutput(t *testing.T) {
	var b bytes.Buffer
	o := NewOutput(&b, 6, false)
	one, other := o.Named("one"), o.Named("another")
	fmt.Fprint(one, "half a ")
	fmt.Fprint(other, "whole line\n\n")
	fmt.Fprint(one, "line\nand no end")
	require.Equal(t, "another | whole line\nanother | \none    | half a line\n", b.String())
	one.Flush()
	one.Flush()
	require.True(t, strings.HasSuffix(b.String(), "\none    | and no end\n"))
	require.Equal(t, "half a line\nand no end", one.Tail())

	b.Reset()
	fmt.Fprint(one, strings.Repeat("x", maxLine+1))
	require.Equal(t, len("one    | ")+maxLine+1, b.Len(), "a line without end is not held for ever")
	for i := range 20 {
		fmt.Fprintln(other, i)
	}
	require.Equal(t, "12\n13\n14\n15\n16\n17\n18\n19", other.Tail())

	b.Reset()
	fmt.Fprintln(NewOutput(&b, 3, true).Named("c"), "colour")
	require.Regexp(t, `^\x1b\[\d+mc   \| \x1b\[0mcolour\n$`, b.String())
}

// Lines of programs that write at the same time are not mixed.
func TestOutputConcurrent(t *testing.T) {
	var b bytes.Buffer
	o := NewOutput(&b, 1, false)
	var wg sync.WaitGroup
	for i := range 8 {
		n := o.Named(fmt.Sprint(i))
		wg.Go(func() {
			for range 200 {
				fmt.Fprint(n, n.prefix)
				fmt.Fprint(n, "end\n")
			}
		})
	}
	wg.Wait()
	for line := range strings.Lines(b.String()) {
		require.Regexp(t, `^(\d) \| (\d) \| end\n$`, line)
		require.Equal(t, line[0], line[4], line)
	}
}

func TestRunOnce(t *testing.T) {
	s := NewSpawner()
	defer s.Close()
	var b bytes.Buffer
	out := NewOutput(&b, 1, false).Named("x")
	require.NoError(t, s.RunOnce(t.Context(), shell("x", "echo $VAR", time.Second), out, discard()))
	err := s.RunOnce(t.Context(), shell("x", "echo the reason >&2; exit 3", time.Second), out, discard())
	require.ErrorContains(t, err, "x failed: exit status 3")
	require.ErrorContains(t, err, "the reason")
	require.Error(t, s.RunOnce(t.Context(), Spec{Name: "x", Path: "/no/such"}, out, discard()))

	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	require.ErrorIs(t, s.RunOnce(ctx, shell("x", "exec sleep 600", 10*time.Second), out, discard()), why)
}

// A program that takes too long to stop is killed, with all that it started.
func TestStopBound(t *testing.T) {
	s := NewSpawner()
	defer s.Close()
	file := filepath.Join(t.TempDir(), "pid")
	script := "trap '' TERM; sleep 600 & echo $! > " + file + ".new; mv " + file + ".new " + file + "; wait; wait"
	k := s.Keep(shell("deaf", script, 50*time.Millisecond), DefaultBackoff(), nil, NewOutput(&bytes.Buffer{}, 1, false).Named("x"), nil, discard())
	var pid int
	require.Eventually(t, func() bool {
		b, err := os.ReadFile(file)
		if err == nil {
			_, err = fmt.Sscan(string(b), &pid)
		}
		return err == nil
	}, 20*time.Second, 5*time.Millisecond)
	k.Stop()
	// Its child may be left as a zombie until whoever adopted it looks.
	require.Eventually(t, func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || bytes.Contains(stat, []byte(") Z "))
	}, 20*time.Second, 5*time.Millisecond)
}

// The parent-death signal comes when the thread that forked ends. A program
// started from a goroutine that happened to run on such a thread was killed for
// no reason that anyone could see.
func TestThreadsEnd(t *testing.T) {
	s := NewSpawner()
	defer s.Close()
	var children []*child
	threadEnds := func() {
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread() // and not unlocked: the thread ends here
			c, err := s.start(shell("x", "exec sleep 600", time.Second), NewOutput(&bytes.Buffer{}, 1, false).Named("x"))
			if err == nil {
				children = append(children, c)
			}
		}()
		<-done
	}
	for range 5 {
		threadEnds()
	}
	require.Len(t, children, 5)
	time.Sleep(50 * time.Millisecond) // a signal that is on its way arrives
	for _, c := range children {
		select {
		case <-c.exited:
			t.Fatalf("it ended with a thread: %v", c.err)
		default:
		}
		c.stop(nil, discard())
		require.Equal(t, syscall.SIGTERM, c.cmd.ProcessState.Sys().(syscall.WaitStatus).Signal())
	}
}
