// Package stored tells when a record that the log has acknowledged is decided and
// can be queried: when the consumer group's committed offset has passed it. The
// edge asks Kafka, never ClickHouse.
package stored

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"sluice/ingest/internal/delivery"
	"sluice/schemas/commit"
	"sluice/schemas/event"
)

// Interval is how often the group's commits are asked for while someone waits.
// Nobody waits: nobody asks.
const Interval = 50 * time.Millisecond

// lookTimeout bounds one look.
const lookTimeout = 5 * time.Second

// Commit is where the group stands in a partition, by a commit of ours.
type Commit struct {
	commit.Mark
	// Next is the first offset that is not decided, or not known to be.
	Next int64
}

// Source finds the commits.
type Source interface {
	// Look returns, of every partition of the topic that there is now, the
	// group's last commit if it is one of ours and speaks of this topic and not
	// of an earlier one of its name.
	Look(ctx context.Context) (map[int32]Commit, error)
}

// Follower follows the group's commits. It is safe for concurrent use.
type Follower struct {
	source Source
	log    *slog.Logger
	waits  prometheus.Histogram

	wake chan struct{} // has one value when someone came to wait

	mu      sync.Mutex
	waiting int
	looks   int              // begun
	view    map[int32]Commit // of the last look that succeeded
	seenBy  int              // which look that was
	fresh   chan struct{}    // closed by the next look that succeeds
}

// New returns a follower of source. [Follower.Run] must run beside it.
func New(source Source, log *slog.Logger, reg *prometheus.Registry) *Follower {
	f := &Follower{
		source: source, log: log, wake: make(chan struct{}, 1), fresh: make(chan struct{}),
		waits: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "sluice_ingest_stored_wait_seconds",
			Help:    "Time that requests waited for their events to be stored, whether they were in the end or not.",
			Buckets: prometheus.ExponentialBuckets(0.01, 2, 12),
		}),
	}
	reg.MustRegister(f.waits, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "sluice_ingest_stored_waiting",
		Help: "Requests that wait for their events to be stored.",
	}, func() float64 {
		f.mu.Lock()
		defer f.mu.Unlock()
		return float64(f.waiting)
	}))
	return f
}

// Run looks while anyone waits, until ctx ends.
func (f *Follower) Run(ctx context.Context) {
	tick := time.NewTicker(Interval)
	defer tick.Stop()
	failed := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.wake:
		}
		for f.wanted() {
			look := f.begin()
			bounded, cancel := context.WithTimeout(ctx, lookTimeout)
			view, err := f.source.Look(bounded)
			cancel()
			switch {
			case ctx.Err() != nil:
				return
			case err == nil:
				failed = false
				f.publish(view, look)
			case !failed:
				failed = true
				f.log.Warn("cannot see how far the consumer is; events are answered as queued", "error", err)
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}
}

func (f *Follower) wanted() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.waiting > 0
}

// begin counts a look, and returns which it is.
func (f *Follower) begin() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looks++
	return f.looks
}

func (f *Follower) publish(view map[int32]Commit, look int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.view, f.seenBy = view, look
	close(f.fresh)
	f.fresh = make(chan struct{})
}

// enter makes the follower look, and returns what the next look closes, and how
// many looks have begun already: one under way may have asked before the record
// was there.
func (f *Follower) enter() (fresh <-chan struct{}, before int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting++
	select {
	case f.wake <- struct{}{}:
	default:
	}
	return f.fresh, f.looks
}

func (f *Follower) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting--
}

// seen returns the last look's commits, which look it was, and what the next
// look closes.
func (f *Follower) seen() (map[int32]Commit, int, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.view, f.seenBy, f.fresh
}

// Wait waits until all of ds that are queued are stored, or ctx ends, and makes
// [delivery.Stored] the status of those that are.
//
// Commits that were asked for before Wait began say nothing of these records: the
// topic may have been made again, or the log cut, since then. For the same
// reason a partition whose log becomes another during the wait is given up.
func (f *Follower) Wait(ctx context.Context, ds []*delivery.Delivery) {
	last := lastOffsets(ds)
	if len(last) == 0 {
		return
	}
	begun := time.Now()
	fresh, before := f.enter()
	defer f.leave()
	logs := make(map[int32]uuid.UUID, len(last))
	var view map[int32]Commit
	for waiting := true; waiting; {
		select {
		case <-ctx.Done():
			waiting = false
		case <-fresh:
			var seen map[int32]Commit
			var look int
			if seen, look, fresh = f.seen(); look <= before {
				continue
			}
			view = sameLogs(seen, logs)
			waiting = !passed(view, last)
		}
	}
	f.waits.Observe(time.Since(begun).Seconds())
	for _, d := range ds {
		if d.Err == nil && d.Status == delivery.Queued && decided(view, d) {
			d.Status = delivery.Stored
		}
	}
}

// lastOffsets is the last offset of those queued in each partition.
func lastOffsets(ds []*delivery.Delivery) map[int32]int64 {
	last := make(map[int32]int64, 1)
	for _, d := range ds {
		if d.Err != nil || d.Status != delivery.Queued {
			continue
		}
		if at, ok := last[d.Record.Partition]; !ok || d.Record.Offset > at {
			last[d.Record.Partition] = d.Record.Offset
		}
	}
	return last
}

// sameLogs is view without the partitions that were of another log when first
// seen, as noted in logs.
func sameLogs(view map[int32]Commit, logs map[int32]uuid.UUID) map[int32]Commit {
	out := make(map[int32]Commit, len(view))
	for p, c := range view {
		if first, ok := logs[p]; !ok {
			logs[p] = c.Log
		} else if first != c.Log {
			continue
		}
		out[p] = c
	}
	return out
}

func passed(view map[int32]Commit, last map[int32]int64) bool {
	for p, offset := range last {
		if c, ok := view[p]; !ok || c.Next <= offset {
			return false
		}
	}
	return true
}

// decided tells whether d is decided where it lies. A record whose key belongs
// to another partition, by the count that the consumer goes by, was only
// forwarded.
func decided(view map[int32]Commit, d *delivery.Delivery) bool {
	c, ok := view[d.Record.Partition]
	return ok && c.Next > d.Record.Offset && event.Partition(d.Record.Key, c.Partitions) == d.Record.Partition
}
