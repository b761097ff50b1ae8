// Package health knows how the things are that the edge depends on. Its checks
// run in the background, each with a bound of its own; whoever asks is told the
// last result and its age, and waits for nobody.
package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/schemas/topic"
)

// Check is one dependency, and how to find out about it.
type Check struct {
	// Name is the check's in /health and in metrics' labels. It must be unique.
	Name string
	// Probe asks the dependency; nil means that it is well. It should return
	// when ctx ends. One that does not is reported as an error all the same,
	// and not started again before it has returned.
	Probe func(ctx context.Context) error
	// Every is the pause between two probes. Default 1s.
	Every time.Duration
	// Timeout bounds one probe. Default 2s.
	Timeout time.Duration
	// Takes means that this is one of the ways to take an event: the edge is
	// ready while at least one of them is well.
	Takes bool
}

// Status is what the last probe found.
type Status string

// The statuses.
const (
	Unknown Status = "unknown" // no probe has ended yet
	Up      Status = "up"
	Down    Status = "down"
)

// Board runs checks and keeps their last results. It is safe for concurrent
// use, but every Add must come before Run.
type Board struct {
	log    *slog.Logger
	reg    prometheus.Registerer
	begun  time.Time
	checks []*check
	stop   atomic.Bool

	complete func() (topic.Completeness, bool)
}

// NewBoard returns a board without checks. Changes are logged to log; reg has
// a gauge of readiness, and two for each check.
func NewBoard(log *slog.Logger, reg prometheus.Registerer) *Board {
	b := &Board{log: log, reg: reg, begun: time.Now(), complete: func() (topic.Completeness, bool) { return topic.Completeness{}, false }}
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "sluice_ingest_ready",
		Help: "1 while the edge can take events, as /readyz says, else 0.",
	}, func() float64 {
		if b.Ready() == nil {
			return 1
		}
		return 0
	}))
	return b
}

// check is a Check and what is known.
type check struct {
	Check
	last  atomic.Pointer[result] // nil before the first probe has ended
	began atomic.Int64           // the running probe's start, nanoseconds after the board's; 0: none runs
}

// result is what a probe found, immutable.
type result struct {
	err   error
	at    time.Time // when the probe ended
	since time.Time // when the status became what it is
}

// Add puts a check on the board. It panics when the check has no name or no
// probe, or when the name is taken: a mistake of the program.
func (b *Board) Add(c Check) {
	if c.Name == "" || c.Probe == nil {
		panic("health: a check needs a name and a probe")
	}
	if c.Every <= 0 {
		c.Every = time.Second
	}
	if c.Timeout <= 0 {
		c.Timeout = 2 * time.Second
	}
	own := &check{Check: c}
	b.checks = append(b.checks, own)
	labels := prometheus.Labels{"check": c.Name}
	b.reg.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "sluice_ingest_check_up", ConstLabels: labels,
			Help: "1 when the last check of this dependency found it well, else 0.",
		}, func() float64 {
			if own.status() == Up {
				return 1
			}
			return 0
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "sluice_ingest_check_age_seconds", ConstLabels: labels,
			Help: "How long ago the last check of this dependency ended; since the start when none has.",
		}, func() float64 { return b.age(own, time.Now()).Seconds() }))
}

// Completeness has reports tell up to when the data is whole, as last asks no one
// and knows. Call it before Run.
func (b *Board) Completeness(last func() (topic.Completeness, bool)) { b.complete = last }

// Run runs the checks until ctx ends, and returns when no probe runs any more.
func (b *Board) Run(ctx context.Context) {
	var all sync.WaitGroup
	for _, c := range b.checks {
		all.Go(func() { b.watch(ctx, c) })
	}
	all.Wait()
}

// watch probes c, again and again.
func (b *Board) watch(ctx context.Context, c *check) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		b.probe(ctx, c)
		timer.Reset(c.Every)
	}
}

// probe probes c once. It returns when the probe has, but a probe that is late
// is noted as failed when its time is up.
func (b *Board) probe(ctx context.Context, c *check) {
	c.began.Store(max(1, int64(time.Since(b.begun))))
	defer c.began.Store(0)
	bounded, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- c.guarded(bounded) }()
	var err error
	select {
	case err = <-ended:
	case <-bounded.Done():
		if ctx.Err() == nil {
			b.note(c, fmt.Errorf("no answer within %v", c.Timeout))
		}
		err = <-ended
		if err == nil && bounded.Err() != nil {
			return // it came too late; the next probe tells
		}
	}
	if ctx.Err() == nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("no answer within %v: %w", c.Timeout, err)
		}
		b.note(c, err)
	}
}

// guarded is the probe; one that panics has failed.
func (c *check) guarded(ctx context.Context) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("the check itself failed: %v", v)
		}
	}()
	return c.Probe(ctx)
}

// note keeps what a probe found.
func (b *Board) note(c *check, err error) {
	now := time.Now()
	next := &result{err: err, at: now, since: now}
	was := c.last.Load()
	if was != nil && (was.err == nil) == (err == nil) {
		next.since = was.since
	}
	c.last.Store(next)
	switch {
	case err != nil && (was == nil || was.err == nil):
		b.log.Warn("a dependency is not well", "check", c.Name, "error", err)
	case err == nil && was != nil && was.err != nil:
		b.log.Info("a dependency is well again", "check", c.Name, "after", now.Sub(was.since).Round(time.Millisecond))
	}
}

func (c *check) status() Status {
	switch last := c.last.Load(); {
	case last == nil:
		return Unknown
	case last.err == nil:
		return Up
	}
	return Down
}

func (b *Board) age(c *check, now time.Time) time.Duration {
	if last := c.last.Load(); last != nil {
		return now.Sub(last.at)
	}
	return now.Sub(b.begun)
}

// Stopping makes the edge not ready, for good.
func (b *Board) Stopping() { b.stop.Store(true) }

// ErrStopping is what [Board.Ready] returns after [Board.Stopping].
var ErrStopping = errors.New("stopping")

// Ready tells why no event can be taken; nil when one can. It asks no one.
func (b *Board) Ready() error {
	if b.stop.Load() {
		return ErrStopping
	}
	var why []error
	for _, c := range b.checks {
		if !c.Takes {
			continue
		}
		switch last := c.last.Load(); {
		case last == nil:
			why = append(why, fmt.Errorf("%s: not checked yet", c.Name))
		case last.err == nil:
			return nil
		default:
			why = append(why, fmt.Errorf("%s: %w", c.Name, last.err))
		}
	}
	return errors.Join(why...)
}
