package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"sluice/deploy/bench/scratch"
)

// final asks the same of events, which is FINAL, and of events_physical, which is
// not, on parts as they were written.
func (b *bench) final(ctx context.Context) (*table, error) {
	c := b.in(variants()[0].database)
	var state struct {
		Parts  int `json:",string"`
		Source string
	}
	if err := c.One(ctx, "SELECT (SELECT count() FROM system.parts WHERE database = currentDatabase() AND table = 'event_log' AND active) AS Parts, (SELECT topK(1)(source)[1] FROM event_log) AS Source", &state); err != nil {
		return nil, err
	}
	t := &table{
		name: "final", what: fmt.Sprintf("%d rows in %d parts, median milliseconds of %d", b.rows, state.Parts, b.cfg.runs),
		columns: []column{{"question", "question", "%s"}, {"final_ms", "FINAL", "%.1f"}, {"physical_ms", "without", "%.1f"}, {"final_rows", "rows read", "%d"}, {"physical_rows", "without", "%d"}},
	}
	var wrong error
	for _, q := range []struct{ name, sql string }{
		{"a count", "SELECT count() AS n FROM %s"},
		{"one source by type", "SELECT event_type, count() AS n FROM %s WHERE source = '" + state.Source + "' GROUP BY event_type ORDER BY event_type"},
		{"the last day", fmt.Sprintf("SELECT source, count() AS n FROM %%s WHERE occurred_at >= fromUnixTimestamp64Milli(%d, 'UTC') GROUP BY source ORDER BY source", ends.AddDate(0, 0, -1).UnixMilli())},
	} {
		final, finalMS, err := b.timed(ctx, c, fmt.Sprintf(q.sql, "events"))
		if err != nil {
			return nil, fmt.Errorf("%s, FINAL: %w", q.name, err)
		}
		physical, physicalMS, err := b.timed(ctx, c, fmt.Sprintf(q.sql, "events_physical"))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", q.name, err)
		}
		if len(final.Data) == 0 || !slices.EqualFunc(final.Data, physical.Data, func(x, y json.RawMessage) bool { return string(x) == string(y) }) {
			wrong = errors.Join(wrong, fmt.Errorf("%s: with FINAL %.200s, without %.200s", q.name, final.Data, physical.Data))
		}
		t.add(q.name, finalMS, physicalMS, final.Statistics.RowsRead, physical.Statistics.RowsRead)
	}
	b.say("FINAL asked")
	return t, wrong
}

// timed asks after one time that does not count; the median is in milliseconds.
func (b *bench) timed(ctx context.Context, c scratch.Client, query string) (*scratch.Answer, float64, error) {
	var last *scratch.Answer
	var times []time.Duration
	for i := range b.cfg.runs + 1 {
		a, err := c.Ask(ctx, query, "")
		if err != nil {
			return nil, 0, err
		}
		if last = a; i > 0 {
			times = append(times, a.Took)
		}
	}
	slices.Sort(times)
	return last, float64(times[len(times)/2].Microseconds()) / 1000, nil
}
