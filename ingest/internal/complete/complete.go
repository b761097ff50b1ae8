// Package complete knows up to when the data is whole, as the consumer says it in
// the control topic. So an edge can show it, and asks neither ClickHouse nor the
// consumer.
package complete

import (
	"context"
	"log/slog"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/schemas/topic"
)

// Follower keeps what was said last. It is safe for concurrent use.
type Follower struct {
	log *slog.Logger

	mu   sync.Mutex
	last topic.Completeness
	ok   bool
}

// NewFollower has heard nothing.
func NewFollower(log *slog.Logger) *Follower { return &Follower{log: log} }

// Last is what was said last; ok is false while nothing has been heard. It asks
// no one.
func (f *Follower) Last() (c topic.Completeness, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last, f.ok
}

// Run reads the control topic until ctx ends, with a client of its own that has
// opts. It waits for a topic or a log that is not there; an error is a client that
// can't be made.
func (f *Follower) Run(ctx context.Context, control string, opts ...kgo.Opt) error {
	client, err := kgo.NewClient(append(opts[:len(opts):len(opts)],
		kgo.ConsumeTopics(control), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	if err != nil {
		return err
	}
	defer client.Close()
	failing := false
	for ctx.Err() == nil {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil && ctx.Err() == nil {
			if !failing {
				f.log.Warn("up to when the data is whole is not known to this edge", "topic", control, "error", err)
			}
			failing = true
			continue
		}
		failing = false
		fetches.EachRecord(func(r *kgo.Record) { f.apply(r.Key, r.Value) })
	}
	return nil
}

// apply takes a record of the control topic. A moment never falls.
func (f *Follower) apply(key, value []byte) {
	c, ok, err := topic.ParseCompleteness(key, value)
	if err != nil {
		f.log.Warn("a control record is passed over", "error", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if ok && !c.CompleteThrough.Before(f.last.CompleteThrough) {
		f.last, f.ok = c, true
	}
}
