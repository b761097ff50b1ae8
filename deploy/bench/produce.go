package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// sending counts what the broker has acknowledged, and keeps the first failure.
type sending struct {
	client *kgo.Client
	acked  atomic.Int64
	mu     sync.Mutex
	err    error
}

func (s *sending) send(ctx context.Context, r *kgo.Record) {
	s.client.Produce(ctx, r, func(_ *kgo.Record, err error) {
		if err == nil {
			s.acked.Add(1)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.err == nil {
			s.err = fmt.Errorf("producing: %w", err)
		}
	})
}

// settle waits for all acknowledgements.
func (s *sending) settle(ctx context.Context) error {
	err := s.client.Flush(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.err, err)
}

// paced calls do for everything that is due, in order: number n at begin +
// n/rate, until lasting is over. It is an open loop: what is late is done at once
// and keeps the time it was due at, so that a slow answer delays no later
// question. worst is how late it was at most.
func paced(ctx context.Context, rate float64, lasting time.Duration, do func(n int, due time.Time)) (n int, worst time.Duration, err error) {
	const tick = time.Millisecond
	begin := time.Now()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		for {
			after := time.Duration(float64(n) / rate * float64(time.Second))
			if after >= lasting {
				return n, worst, nil
			}
			due := begin.Add(after)
			late := time.Since(due)
			if late < 0 {
				break
			}
			worst = max(worst, late)
			do(n, due)
			n++
		}
		select {
		case <-ctx.Done():
			return n, worst, context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

// fill produces n records as fast as the broker takes them.
func (s *stack) fill(n int, next func(n int) *kgo.Record) error {
	out := &sending{client: s.client}
	for i := range n {
		if s.ctx.Err() != nil {
			return context.Cause(s.ctx)
		}
		out.send(s.ctx, next(i))
	}
	return out.settle(s.ctx)
}

// follow produces for as long as lasting, always as many as keep the consumers
// window records behind the log's end, and returns how many.
func (s *stack) follow(lasting time.Duration, window int, next func(n int, now time.Time) *kgo.Record) (n int, err error) {
	out := &sending{client: s.client}
	for begin := time.Now(); time.Since(begin) < lasting; {
		f, err := s.figures()
		if err != nil {
			return n, err
		}
		for ; n < int(f.journaled())+window; n++ {
			out.send(s.ctx, next(n, time.Now()))
		}
		select {
		case <-s.ctx.Done():
			return n, context.Cause(s.ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return n, out.settle(s.ctx)
}
