package supervise

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// Backoff says when a program that died is started again.
type Backoff struct {
	// First is the wait after the first death; each further one doubles it, up
	// to Most. A program that ran for Calm begins anew.
	First, Most, Calm time.Duration
	// StartTries is how often a program may die, without Calm between, before
	// Settled was called; then it is given up.
	StartTries int
}

// DefaultBackoff waits 200 ms to 2 s, and gives up at the third death at the
// start. (With 10 s, someone who killed a program every few seconds to see what
// became of the events saw mostly programs that were waiting to be started.)
func DefaultBackoff() Backoff {
	return Backoff{First: 200 * time.Millisecond, Most: 2 * time.Second, Calm: 30 * time.Second, StartTries: 3}
}

// Keeper keeps one program running.
type Keeper struct {
	spec    Spec
	backoff Backoff
	probe   func(context.Context) error
	spawner *Spawner
	out     *Named
	log     *slog.Logger

	stopping chan struct{}
	hurry    <-chan struct{}
	settled  chan struct{}
	gaveUp   chan error
	ended    chan struct{}
}

// Keep starts a program and starts it again whenever it ends. probe says
// whether it is at work: after a restart the log says so when probe first
// returns nil. Closing hurry lets Stop kill at once.
func (s *Spawner) Keep(spec Spec, backoff Backoff, probe func(context.Context) error, out *Named, hurry <-chan struct{}, log *slog.Logger) *Keeper {
	k := &Keeper{
		spec: spec, backoff: backoff, probe: probe, spawner: s, out: out, log: log, hurry: hurry,
		stopping: make(chan struct{}), settled: make(chan struct{}),
		gaveUp: make(chan error, 1), ended: make(chan struct{}),
	}
	go k.run()
	return k
}

// Settled says that the start is over: from now on the program is started again
// as often as it dies. Call it once.
func (k *Keeper) Settled() { close(k.settled) }

// GaveUp delivers the error of a program that died too often at the start.
func (k *Keeper) GaveUp() <-chan error { return k.gaveUp }

// Stop ends the program, within its bound, and waits until it is gone. Call it
// once.
func (k *Keeper) Stop() {
	close(k.stopping)
	<-k.ended
}

func (k *Keeper) run() {
	defer close(k.ended)
	wait := k.backoff.First
	for deaths := 0; ; {
		begun := time.Now()
		c, err := k.spawner.start(k.spec, k.out)
		if err == nil {
			stopWatch := func() {}
			if deaths > 0 {
				stopWatch = k.sayWhenBack()
			}
			select {
			case <-k.stopping:
				stopWatch()
				c.stop(k.hurry, k.log)
				return
			case <-c.exited:
				stopWatch()
				err = fmt.Errorf("%s ended: %s", k.spec.Name, c.cmd.ProcessState)
			}
		}
		if time.Since(begun) >= k.backoff.Calm {
			deaths, wait = 0, k.backoff.First
		}
		deaths++
		if !k.isSettled() && deaths >= k.backoff.StartTries {
			k.gaveUp <- fmt.Errorf("%w, %d times\n%s", err, deaths, k.out.Tail())
			<-k.stopping
			return
		}
		k.log.Warn(err.Error()+": starting it again", "in", wait)
		select {
		case <-time.After(wait):
		case <-k.stopping:
			return
		}
		wait = min(2*wait, k.backoff.Most)
	}
}

func (k *Keeper) isSettled() bool {
	select {
	case <-k.settled:
		return true
	default:
		return false
	}
}

// sayWhenBack logs when the program is at work again.
func (k *Keeper) sayWhenBack() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if Await(ctx, k.probe) == nil {
			k.log.Info(k.spec.Name + " is back")
		}
	}()
	return func() { cancel(); <-done }
}

// probeEvery is how often Await probes.
const probeEvery = 50 * time.Millisecond

// Await probes until probe returns nil, or ctx ends: then it returns why, with
// the last reason that probe gave.
func Await(ctx context.Context, probe func(context.Context) error) error {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		err := probe(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (last: %w)", context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}
