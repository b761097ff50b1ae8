package health

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/ingest/internal/clocktest"
)

// TestClockJumps: the start of a running probe was kept as a moment of the wall
// clock: when that was set ahead by an hour, /health told of a probe that had hung
// for an hour. Ages and durations must not know of the wall clock.
func TestClockJumps(t *testing.T) {
	for _, jump := range []time.Duration{time.Hour, -time.Hour} {
		b, _ := newBoard()
		var report Report
		b.Add(Check{Name: "kafka", Takes: true, Probe: func(context.Context) error {
			// Seen from here, the wall clock is set back, or ahead.
			b.begun = clocktest.Shift(b.begun, jump)
			last := *b.checks[0].last.Load()
			last.at = clocktest.Shift(last.at, jump)
			b.checks[0].last.Store(&last)
			report = b.Report()
			return errors.New("gone")
		}})
		b.note(b.checks[0], nil)
		b.probe(t.Context(), b.checks[0])
		require.Less(t, report.UptimeSeconds, 600.0)
		require.Less(t, report.Checks[0].AgeSeconds, 600.0)
		require.Less(t, report.Checks[0].ProbingSeconds, 600.0)
		require.Equal(t, Up, report.Checks[0].Status)
		require.Equal(t, Down, b.Report().Checks[0].Status)
	}
}
