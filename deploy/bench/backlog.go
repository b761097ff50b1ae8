package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	backlogPartitions = 4
	backlogRecords    = 2_000_000
	// trickle is how many records a second one partition gets that has no
	// backlog.
	trickle = 100
	// memoryEvery is how often memory is looked at.
	memoryEvery = 200 * time.Millisecond
	// settled is the share of the backlog after which memory is at its steady
	// state.
	settled = 0.2
)

// backlog lets one consumer catch up, while one of its partitions is live.
func backlog(ctx context.Context, b *bench) (t *table, err error) {
	s, err := b.start(ctx, backlogPartitions)
	defer func() { err = errors.Join(err, s.stop()) }()
	if err != nil {
		return nil, err
	}
	const live = backlogPartitions - 1
	total := b.cfg.count(backlogRecords)
	b.say("backlog: producing %d records", total)
	// Six hours of events, of which every twentieth is a repeat. Those of the live
	// partition are left out.
	base, step := time.Now().Add(-6*time.Hour).Truncate(time.Second), 6*time.Hour/time.Duration(2*total)
	n, distinct := 0, map[int]struct{}{}
	err = s.fill(total, func(int) *kgo.Record {
		for {
			which := original(n)
			n++
			r := b.sample.record(which, base.Add(time.Duration(which)*step), time.Time{}, backlogPartitions)
			if r.Partition != live {
				distinct[which] = struct{}{}
				return r
			}
		}
	})
	if err != nil {
		return nil, err
	}
	rows := len(distinct)
	clear(distinct)

	b.say("backlog: one consumer catches up")
	m, err := s.consume(1)
	if err != nil {
		return nil, err
	}
	started := time.Now()
	if err := s.balanced(); err != nil {
		return nil, err
	}
	before, err := s.reading()
	if err != nil {
		return nil, err
	}
	profiled := b.profile(s.ctx, m.admin, "backlog", 20*time.Second)

	// The live partition's own records, as long as there is a backlog.
	out, sent := &sending{client: s.client}, 0
	trickling, enough := context.WithCancel(s.ctx)
	defer enough()
	var trickled sync.WaitGroup
	begin := time.Now()
	trickled.Go(func() {
		k := 0
		_, _, _ = paced(trickling, trickle, time.Hour, func(_ int, due time.Time) { // it ends by its context
			for {
				k++
				r := b.sample.record(k, begin.Add(time.Duration(k)*time.Microsecond), due, backlogPartitions)
				if r.Partition == live {
					out.send(s.ctx, r)
					sent++
					return
				}
			}
		})
	})
	used, err := watch(s, m, int64(total), live)
	enough()
	trickled.Wait()
	if err = errors.Join(err, out.settle(s.ctx)); err != nil {
		return nil, err
	}
	after := used.end
	if err := errors.Join(s.drained(total+sent, drainBound), s.holds(rows+sent), <-profiled); err != nil {
		return nil, err
	}
	fresh, err := s.ages(live, begin)
	if err != nil {
		return nil, err
	}
	journaled := after.journaled() - before.journaled()
	wall, cpu := after.at.Sub(before.at), after.cpu-before.cpu
	const mib = 1 << 20
	t = newTable(
		column{"records", "records", "%d"}, column{"records_per_second", "records/s", "%.0f"}, column{"records_per_cpu_second", "a CPU-second of the consumer", "%.0f"},
		column{"engine_cpu", "the engine's cores", "%.2f"}, column{"rss_steady_bytes", "memory, steady (MiB)", "%d"}, column{"rss_peak_bytes", "peak", "%d"},
		column{"rss_ratio", "ratio", "%.2f"},
		column{"live_p50_seconds", "live partition P50", "%v"}, column{"live_p99_seconds", "P99", "%v"}, column{"live_max_seconds", "max", "%v"},
	)
	t.add(journaled, float64(journaled)/wall.Seconds(), float64(journaled)/cpu.Seconds(),
		(after.engine-before.engine).Seconds()/wall.Seconds(), used.steady/mib, used.peak/mib, float64(used.peak)/float64(used.steady),
		fresh.p50, fresh.p99, fresh.most)
	t.note("%d records wait in %d partitions, 5 %% of them repeats; the other partition gets %d a second. The consumer owned all %v after its start.",
		total, live, trickle, before.at.Sub(started).Round(10*time.Millisecond))
	t.note("Memory is the process's resident set every %v; steady is the median once %.0f %% are decided, the peak is of all.", memoryEvery, 100*settled)
	return t, nil
}

// usage is what a consumer took while it caught up.
type usage struct {
	steady, peak int
	end          reading // when the backlog was decided
}

// watch looks at the consumer's memory until all of the backlog is decided.
func watch(s *stack, m *member, total int64, live int32) (u usage, err error) {
	var rss []int
	ticker := time.NewTicker(memoryEvery)
	defer ticker.Stop()
	ctx, cancel := context.WithTimeoutCause(s.ctx, drainBound*2, errors.New("the backlog was not decided"))
	defer cancel()
	for {
		_, now, err := m.used()
		if err != nil {
			return u, err
		}
		f, err := s.figures()
		if err != nil {
			return u, err
		}
		decided := f.journaled()
		for _, ends := range f.ends {
			decided -= ends[live]
		}
		u.peak = max(u.peak, now)
		if float64(decided) > settled*float64(total) {
			rss = append(rss, now)
		}
		if decided >= total {
			break
		}
		select {
		case <-ctx.Done():
			return u, fmt.Errorf("%d of %d records: %w", decided, total, context.Cause(ctx))
		case <-ticker.C:
		}
	}
	slices.Sort(rss)
	if len(rss) > 0 {
		u.steady = rss[len(rss)/2]
	}
	u.end, err = s.reading()
	return u, err
}
