package admission

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config says when requests are refused because of those before them.
type Config struct {
	// Slack is how much longer than it must a request may take because of
	// others that are inside already. 0 refuses no one. Default 20ms: with half of it
	// the accepted took less time at ten times the capacity, but an edge that other
	// programs kept from the processor refused some of a thousand posts a second.
	Slack time.Duration
}

// DefaultConfig are the defaults.
func DefaultConfig() Config { return Config{Slack: 20 * time.Millisecond} }

// Validate tells what is wrong.
func (c Config) Validate() error {
	if c.Slack < 0 {
		return errors.New("slack must not be negative; 0 refuses no one")
	}
	return nil
}

const (
	// requestBytes is what a request counts for beyond its body: what the edge
	// does for each costs about as much as that many bytes of a batch.
	requestBytes = 3 << 10
	// mostBytes is the most that a request counts for, so that one large batch
	// does not keep all others out.
	mostBytes = 256 << 10
	// leastBytes is let in whatever is measured: some 300 single posts.
	leastBytes = 1 << 20
	// firstRate and firstBase are what is assumed until it is known better.
	firstRate = 64 << 20
	firstBase = 5 * time.Millisecond

	// window is how long one measurement takes.
	window = 100 * time.Millisecond
	// baseFor is how long the least time seen counts as the time that a request
	// must take.
	baseFor = 5 * time.Second
	// A probe lasts so many windows, and lets in so small a part of the bound.
	probeWindows = 2
	probePart    = 4
	// forgetting is a window's weight in the rate when the window's is lower.
	forgetting = 0.25
)

// Limiter bounds what is inside; see the package. It is safe for concurrent use. A
// nil *Limiter lets everyone in.
type Limiter struct {
	slack time.Duration

	inside  atomic.Int64
	limit   atomic.Int64
	done    atomic.Int64 // bytes that left in this window
	refused atomic.Int64 // requests refused in this window
	least   atomic.Int64 // nanoseconds, of those that left in this window

	rate atomic.Int64 // bytes a second; of step, and read by metrics
	base atomic.Int64 // nanoseconds; likewise

	// Of step only.
	found  time.Duration // the least time since the base was set
	age    time.Duration // of the base
	probes int           // windows left of a probe

	turns turns

	admitted, full prometheus.Counter
}

const never = math.MaxInt64

// NewLimiter returns a limiter; [Limiter.Run] must run beside it. reg may be nil.
func NewLimiter(cfg Config, reg prometheus.Registerer) *Limiter {
	l := &Limiter{slack: cfg.Slack, found: never, turns: newTurns()}
	l.rate.Store(firstRate)
	l.base.Store(int64(firstBase))
	l.least.Store(never)
	l.setLimit()
	l.register(reg)
	return l
}

// Ticket is what a request that was let in leaves with.
type Ticket struct {
	bytes int64
	since time.Time
}

// Full tells whether as much is inside as may be: then the request must be
// refused.
func (l *Limiter) Full() bool {
	if l == nil || l.slack == 0 || l.inside.Load() < l.limit.Load() {
		return false
	}
	l.refused.Add(1)
	l.full.Inc()
	return true
}

// Enter lets in a request whose body, as decoded, has so many bytes.
func (l *Limiter) Enter(bytes int64) Ticket {
	if l == nil {
		return Ticket{}
	}
	t := Ticket{min(requestBytes+bytes, mostBytes), time.Now()}
	l.inside.Add(t.bytes)
	l.admitted.Inc()
	return t
}

// Leave lets it out; a second time does nothing. took tells whether the log, or
// the spool, has taken something of it: only the time of such a request says how
// long one must take.
func (l *Limiter) Leave(t *Ticket, took bool) {
	if t.bytes == 0 {
		return
	}
	l.inside.Add(-t.bytes)
	l.done.Add(t.bytes)
	t.bytes = 0
	if !took {
		return
	}
	d := int64(time.Since(t.since))
	for {
		least := l.least.Load()
		if d >= least || l.least.CompareAndSwap(least, d) {
			return
		}
	}
}

// Run measures until ctx ends.
func (l *Limiter) Run(ctx context.Context) {
	tick := time.NewTicker(window)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			now := time.Now()
			l.step(now.Sub(last))
			last = now
		}
	}
}

// step ends a window that took so long.
func (l *Limiter) step(took time.Duration) {
	done, refused, least := l.done.Swap(0), l.refused.Swap(0), l.least.Swap(never)
	rate, was := int64(float64(done)/took.Seconds()), l.rate.Load()
	switch {
	case rate > was:
		l.rate.Store(rate)
	case refused > 0 && done > 0 && l.probes == 0:
		// Only where some are refused no more than this is got through: else no
		// more has come. A window in which nothing is done tells that something
		// stands still, not how fast it is.
		l.rate.Store(was + int64(forgetting*float64(rate-was)))
	}
	l.setBase(took, time.Duration(least), refused > 0)
	l.setLimit()
}

// setBase keeps the time that a request must take: the least seen. After baseFor
// it is replaced by the least seen since, so that a log that has become slower is
// not taken for a queue for ever. Where there is a queue all the time, every time
// seen has the queue in it: it is let run down first.
func (l *Limiter) setBase(took, least time.Duration, refused bool) {
	l.age += took
	l.found = min(l.found, least)
	if least < time.Duration(l.base.Load()) {
		l.base.Store(int64(least))
	}
	renew := func(base time.Duration) {
		l.base.Store(int64(base))
		l.found, l.age = never, 0
	}
	switch {
	case l.probes > 0:
		if l.probes--; l.probes == 0 && least != never {
			renew(least)
		}
	case l.age < baseFor || l.found == never:
	case refused:
		l.probes = probeWindows
	default:
		renew(l.found)
	}
}

func (l *Limiter) setLimit() {
	limit := int64(float64(l.rate.Load()) * (time.Duration(l.base.Load()) + l.slack).Seconds())
	if l.probes > 0 {
		limit /= probePart
	}
	l.limit.Store(max(limit, leastBytes))
}
