package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
)

// sketches tries each on sets of actors whose size is known.
func (b *bench) sketches(ctx context.Context) (*table, error) {
	t := &table{
		name: "sketches", what: fmt.Sprintf("counting actors, over %d sets of each size", b.cfg.trials),
		columns: []column{{"actors", "actors", "%d"}, {"sketch", "sketch", "%s"}, {"worst_percent", "worst error %", "%.2f"}, {"mean_percent", "mean error %", "%.2f"}, {"state_bytes", "state bytes", "%d"}},
	}
	for _, size := range b.cfg.actors {
		for _, f := range []string{"uniqCombined64", "uniq", "uniqHLL12", "uniqExact"} {
			var worst, sum float64
			var state int
			for trial := range b.cfg.trials {
				a, err := b.in("default").Ask(ctx, fmt.Sprintf(
					"SELECT %sState(concat('actor-', hex(cityHash64(number, %d)))) AS s, finalizeAggregation(s) AS Counted, length(CAST(s AS String)) AS Bytes FROM numbers(%d)",
					f, trial, size), "")
				if err != nil {
					return nil, fmt.Errorf("%s of %d actors: %w", f, size, err)
				}
				var got struct {
					Counted int `json:",string"`
					Bytes   int `json:",string"`
				}
				if err := json.Unmarshal(a.Data[0], &got); err != nil {
					return nil, err
				}
				off := math.Abs(float64(got.Counted-size)) / float64(size) * 100
				worst, sum, state = max(worst, off), sum+off, max(state, got.Bytes)
			}
			t.add(size, f, worst, sum/float64(b.cfg.trials), state)
		}
		b.say("sketches of %s actors", strconv.Itoa(size))
	}
	return t, nil
}
