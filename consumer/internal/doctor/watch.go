package doctor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/twmb/franz-go/pkg/kadm"
)

// Gather finds the facts for s over the consumer's own connections. Each side
// is asked for at most s.Timeout; one that does not answer is Away.
func Gather(ctx context.Context, s Setup, conn driver.Conn, admin *kadm.Client) Facts {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	var f Facts
	var asking sync.WaitGroup
	asking.Go(func() { f.ClickHouse = GatherClickHouse(ctx, conn) })
	f.Kafka = GatherKafka(ctx, admin, s)
	asking.Wait()
	return f
}

// Observer is told the verdict of every round.
type Observer interface {
	// Doctor: refused is nil, or what must be mended; findings are the counts
	// by severity, with each severity present.
	Doctor(refused error, findings map[string]int)
}

// Watch checks again and again beside a running service, and holds its owners
// back while something must be mended. It is for concurrent use.
//
// A side that does not answer is no finding: what was known of it stands, and
// the owners halt by themselves.
type Watch struct {
	setup   Setup
	gather  func(context.Context) Facts
	observe Observer
	log     *slog.Logger

	round sync.Mutex // one round at a time

	mu      sync.Mutex
	known   Facts
	last    Report
	at      time.Time
	refused error
	changed chan struct{} // closed when the verdict changes
}

var errNotAsked = errors.New("not asked yet")

// NewWatch returns a watch that has checked nothing. gather is [Gather], or a
// test's.
func NewWatch(s Setup, gather func(context.Context) Facts, observe Observer, log *slog.Logger) *Watch {
	return &Watch{
		setup: s, gather: gather, observe: observe, log: log,
		known:   Facts{ClickHouse{Away: errNotAsked}, Kafka{Away: errNotAsked}},
		changed: make(chan struct{}),
	}
}

// recheck is the time between two rounds while something must be mended, or
// while a side has not been seen: whoever mends it is waiting.
const recheck = 5 * time.Second

// Start checks until both sides have answered once, so that nothing is written
// unchecked. It returns what must be mended before the service may run, or
// ctx's error. waiting is told what is waited for, and may be nil.
func (w *Watch) Start(ctx context.Context, waiting func(error)) error {
	for {
		r := w.Check(ctx)
		if err := ctx.Err(); err != nil {
			return err
		}
		if w.seenBoth() {
			return r.Refused()
		}
		err := fmt.Errorf("the doctor waits: %s", r.Summary())
		w.log.Warn("the doctor waits", "away", r.Away)
		if waiting != nil {
			waiting(err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

func (w *Watch) seenBoth() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.known.ClickHouse.Away == nil && w.known.Kafka.Away == nil
}

// Run checks every Config.Every until ctx ends, and every 5 s while something
// must be mended.
func (w *Watch) Run(ctx context.Context) {
	for {
		refused, _ := w.verdict()
		wait := w.setup.Every
		if refused != nil || !w.seenBoth() {
			wait = min(wait, recheck)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
			w.Check(ctx)
		}
	}
}

// Check makes a round now and returns what it found.
func (w *Watch) Check(ctx context.Context) Report {
	w.round.Lock()
	defer w.round.Unlock()
	return w.check(ctx)
}

// fresh is how old a round may be for [Watch.Before] to go by it: the partitions
// of a process recover together, and one round serves them all.
const fresh = 5 * time.Second

// Before is for the moment before a recovery: it checks, unless that was just
// done, and returns what must be mended.
func (w *Watch) Before(ctx context.Context) error {
	w.round.Lock()
	defer w.round.Unlock()
	w.mu.Lock()
	recent := !w.at.IsZero() && time.Since(w.at) < fresh
	w.mu.Unlock()
	if !recent {
		w.check(ctx)
	}
	refused, _ := w.verdict()
	return refused
}

func (w *Watch) check(ctx context.Context) Report {
	facts := w.gather(ctx)
	w.mu.Lock()
	if ctx.Err() != nil { // we did not wait for the answers
		defer w.mu.Unlock()
		return w.last
	}
	var away Report
	if facts.ClickHouse.Away != nil || facts.Kafka.Away != nil {
		away = Judge(w.setup, facts)
	}
	if facts.ClickHouse.Away == nil {
		w.known.ClickHouse = facts.ClickHouse
	}
	if facts.Kafka.Away == nil {
		w.known.Kafka = facts.Kafka
	}
	r := Judge(w.setup, w.known)
	r.Away = away.Away
	before := w.refused
	w.last, w.at, w.refused = r, time.Now(), r.Refused()
	refused := w.refused
	differs := text(before) != text(refused)
	if differs {
		close(w.changed)
		w.changed = make(chan struct{})
	}
	w.mu.Unlock()
	w.tell(r, refused, differs)
	return r
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (w *Watch) tell(r Report, refused error, differs bool) {
	counts := map[string]int{}
	for _, s := range []Severity{Refuse, Warn, Unknown} {
		counts[string(s)] = r.Count(s)
	}
	w.observe.Doctor(refused, counts)
	switch {
	case !differs:
	case refused != nil:
		w.log.Error("the doctor stops all partitions until it is mended", "error", refused)
	default:
		w.log.Info("mended: the partitions go on")
	}
	for _, x := range r.Results {
		if x.Finding != nil && x.Severity != Unknown {
			w.log.Debug("the doctor finds", "check", x.Check, "severity", x.Severity, "what", x.What, "mend", x.Mend)
		}
	}
}

// Last is what the last round found.
func (w *Watch) Last() Report {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// verdict is what must be mended, and a channel that is closed when that changes.
func (w *Watch) verdict() (error, <-chan struct{}) { //nolint:staticcheck // the error is a value here, not a failure
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.refused, w.changed
}

// Guard calls run, an owner's, while nothing must be mended. When something
// must, it ends run's context and waits for run to return; when it is mended it
// calls run again. It returns when run returned by itself, ctx ended, or stop
// was closed while run was held back.
func (w *Watch) Guard(ctx context.Context, stop <-chan struct{}, run func(context.Context)) {
	for {
		refused, changed := w.verdict()
		if refused == nil {
			if w.guarded(ctx, run) {
				return
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-stop:
			return
		case <-changed:
		}
	}
}

// guarded runs run until it returns, or something must be mended. It tells
// whether run returned by itself.
func (w *Watch) guarded(ctx context.Context, run func(context.Context)) bool {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		run(inner)
	}()
	for {
		refused, changed := w.verdict()
		if refused != nil {
			cancel()
			<-done
			return false
		}
		select {
		case <-done:
			return true
		case <-changed:
		}
	}
}
