package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	backfillPartitions = 4
	backfillStored     = 1_000_000
	backfillRecords    = 500_000
	decade             = 10 * 365 * 24 * time.Hour
	// backfillBound is how long the backfill may take; what is done by then is
	// its rate.
	backfillBound = 4 * time.Minute
)

// backfill writes events of ten years in the order of their times, then in any
// order, half of them repeats, with a consumer that has none of them in memory.
func backfill(ctx context.Context, b *bench) (t *table, err error) {
	s, err := b.start(ctx, backfillPartitions)
	defer func() { err = errors.Join(err, s.stop()) }()
	if err != nil {
		return nil, err
	}
	t = newTable(
		column{"what", "what", "%s"}, column{"records", "records", "%d"}, column{"of", "of", "%d"}, column{"records_per_second", "records/s", "%.0f"},
		column{"records_per_cpu_second", "a CPU-second of the consumer", "%.0f"}, column{"engine_cpu", "the engine's cores", "%.2f"},
		column{"batches", "batches", "%.0f"}, column{"records_per_batch", "records a batch", "%.0f"},
		column{"parts_made", "parts made", "%d"}, column{"parts", "active parts", "%d"},
	)
	stored, more := b.cfg.count(backfillStored), b.cfg.count(backfillRecords)
	base := time.Now().Add(-decade).Truncate(time.Second)
	step := decade / time.Duration(stored+1)
	at := func(n int) time.Time { return base.Add(time.Duration(n) * step) }
	b.say("backfill: %d events in the order of their times", stored)
	if err := s.fill(stored, func(n int) *kgo.Record {
		return b.sample.record(n, at(n), time.Time{}, backfillPartitions)
	}); err != nil {
		return nil, err
	}
	if err := s.catchUp(t, "in the order of their times", stored, 0, "backfill-ordered"); err != nil {
		return nil, err
	}
	b.say("backfill: %d events in any order", more)
	random, fresh := rand.New(rand.NewPCG(1, 2)), 0
	if err := s.fill(more, func(n int) *kgo.Record {
		if n%2 == 0 {
			which := random.IntN(stored)
			return b.sample.record(which, at(which), time.Time{}, backfillPartitions)
		}
		fresh++
		// Between two of the stored ones, at a nanosecond of its own.
		return b.sample.record(n, at(random.IntN(stored)).Truncate(time.Second).Add(time.Duration(n)+1), time.Time{}, backfillPartitions)
	}); err != nil {
		return nil, err
	}
	if err := s.catchUp(t, "in any order, half of them stored", more, stored, "backfill-random"); err != nil {
		return nil, err
	}
	if t.rows[1][1] == t.rows[1][2] {
		if err := s.holds(stored + fresh); err != nil {
			return nil, err
		}
	}
	t.note("The second row's consumer was started anew, with none of the keys in memory; after %v what is done is its rate.", b.cfg.lasting(backfillBound))
	return t, nil
}

// catchUp starts a consumer that decides n records, besides those it did before,
// writes its row and ends it.
func (s *stack) catchUp(t *table, what string, n, before int, profile string) error {
	m, err := s.consume(1)
	if err != nil {
		return err
	}
	if err := s.balanced(); err != nil {
		return err
	}
	r0, err := s.reading()
	if err != nil {
		return err
	}
	done0 := max(r0.journaled()-int64(before), 0)
	profiled := s.profile(s.ctx, m.admin, profile, s.cfg.lasting(15*time.Second))
	drained := s.drained(before+n, s.cfg.lasting(backfillBound))
	r1, err := s.reading()
	if err != nil {
		return errors.Join(err, drained)
	}
	done := r1.journaled() - int64(before)
	if done <= done0 || s.ctx.Err() != nil {
		return errors.Join(errors.New("nothing moves"), drained)
	}
	took, batches := r1.at.Sub(r0.at), r1.batches-r0.batches
	t.add(what, done, int64(n), float64(done-done0)/took.Seconds(), float64(done-done0)/(r1.cpu-r0.cpu).Seconds(),
		(r1.engine-r0.engine).Seconds()/took.Seconds(), batches, float64(done-done0)/max(batches, 1),
		r1.rowParts.made-r0.rowParts.made, r1.rowParts.active)
	if err := <-profiled; err != nil {
		return err
	}
	s.gone(1)
	m.stop(startBound)
	return nil
}
