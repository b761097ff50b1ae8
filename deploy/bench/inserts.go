package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	insertsFor = 15 * time.Second
	// window is how far the log is kept ahead of the consumers at the highest
	// rate, in records: two full batches.
	window = 100_000
	// drainBound is how long deciding what is left may take.
	drainBound = 5 * time.Minute
)

// inserts measures how many INSERTs reach ClickHouse, and how fresh events are,
// by partitions, consumers and rate. Records are produced straight to the log.
func inserts(ctx context.Context, b *bench) (*table, error) {
	t := newTable(
		column{"partitions", "partitions", "%d"}, column{"consumers", "consumers", "%d"}, column{"rate", "records/s asked", "%v"},
		column{"records_per_second", "taken/s", "%.0f"}, column{"batches_per_second", "INSERTs of rows/s", "%.1f"},
		column{"journal_inserts_per_second", "of the journal/s", "%.1f"}, column{"rows_per_insert", "rows an INSERT", "%.0f"},
		column{"parts", "active parts", "%d"}, column{"journal_parts", "of the journal", "%d"},
		column{"freshness_p50_seconds", "fresh P50", "%v"}, column{"freshness_p99_seconds", "P99", "%v"},
		column{"cpu_share", "consumers' cores", "%.2f"},
	)
	for _, partitions := range b.cfg.partitions {
		for _, members := range b.cfg.members {
			for _, rate := range b.cfg.rates {
				b.say("inserts: %d partitions, %d consumers, %d records/s", partitions, members, rate)
				if err := insertsOf(ctx, b, t, partitions, members, rate); err != nil {
					return t, fmt.Errorf("%d partitions, %d consumers: %w", partitions, members, err)
				}
			}
		}
	}
	t.note("The budget is the default, 20 INSERTs of rows a second for each consumer; full batches are free of it.")
	t.note("At the highest rate (most) the log is kept %d records ahead, so freshness is the time that those take.", b.cfg.count(window))
	t.note("Freshness is inserted_at - record_timestamp: the server's time at the INSERT, before its part is written (see the experiment freshness).")
	t.note("INSERTs are counted while records are produced; parts at the end, merges having run as they do.")
	return t, nil
}

func insertsOf(ctx context.Context, b *bench, t *table, partitions, members, rate int) (err error) {
	s, err := b.start(ctx, partitions)
	defer func() { err = errors.Join(err, s.stop()) }()
	if err != nil {
		return err
	}
	if err := s.consumeAll(members); err != nil {
		return err
	}
	before, err := s.reading()
	if err != nil {
		return err
	}
	record := func(n int, due time.Time) *kgo.Record {
		// A time of its own, a microsecond apart: the table partition is today's.
		return b.sample.record(n, before.at.Add(time.Duration(n)*time.Microsecond), due, partitions)
	}
	lasting := b.cfg.lasting(insertsFor)
	var sent int
	var asked any = "most"
	if rate > 0 {
		asked = rate
		out := &sending{client: s.client}
		if sent, _, err = paced(s.ctx, float64(rate), lasting, func(n int, due time.Time) { out.send(s.ctx, record(n, due)) }); err == nil {
			err = out.settle(s.ctx)
		}
	} else {
		sent, err = s.follow(lasting, b.cfg.count(window), record)
	}
	if err != nil {
		return err
	}
	after, err := s.reading()
	if err != nil {
		return err
	}
	if err := errors.Join(s.drained(sent, drainBound), s.holds(sent)); err != nil {
		return err
	}
	fresh, err := s.ages(-1, before.at)
	if err != nil {
		return err
	}
	rows, err := s.parts("event_log")
	if err != nil {
		return err
	}
	journal, err := s.parts("journal")
	if err != nil {
		return err
	}
	took := after.at.Sub(before.at).Seconds()
	batches := after.batches - before.batches
	t.add(partitions, members, asked, float64(after.journaled()-before.journaled())/took, batches/took,
		float64(after.journal.made-before.journal.made)/took, (after.rows-before.rows)/max(batches, 1),
		rows.active, journal.active, fresh.p50, fresh.p99, (after.cpu-before.cpu).Seconds()/took)
	return nil
}
