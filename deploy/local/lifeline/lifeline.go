// Package lifeline ends the local stack's own programs in order: when they are
// told to, and when whoever started them is gone.
package lifeline

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Flag is the command-line flag by which a starter says that it holds the
// other end of the program's standard input.
const Flag = "exit-with-stdin"

// Reasons for which a context of Context ends.
var (
	ErrSignal = errors.New("told to stop by a signal")
	ErrParent = errors.New("whoever started this program is gone")
)

// Context returns a context that ends at SIGINT or SIGTERM and, if stdin is not
// nil, when stdin does: a pipe that the starter holds open is closed by the
// system however the starter ends. A program that is still there bound after
// the context's end exits with status 1. stop releases what Context holds.
func Context(parent context.Context, stdin io.Reader, bound time.Duration) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		select {
		case <-signals:
			cancel(ErrSignal)
		case <-ctx.Done():
		}
	}()
	if stdin != nil {
		go func() {
			_, _ = io.Copy(io.Discard, stdin) // however it ends, it has ended
			cancel(ErrParent)
		}()
	}
	unhook := context.AfterFunc(ctx, func() {
		time.AfterFunc(bound, func() { os.Exit(1) })
	})
	return ctx, func() {
		unhook()
		signal.Stop(signals)
		cancel(nil)
	}
}
