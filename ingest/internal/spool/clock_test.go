package spool

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/ingest/internal/clocktest"
	"sluice/ingest/internal/delivery"
)

// TestClockJumps: the wall clock is set ahead by an hour and back while events go
// to the spool. They leave it in the order in which they came; the low water
// never falls, and passes none of them; received_at stands still until the clock
// is there again. Retry-After, which was computed from a moment of the wall clock,
// knows nothing of it.
func TestClockJumps(t *testing.T) {
	s, log := newSpool(t, nil)
	thaw := log.freeze()
	now := time.Now()
	low := s.LowWater()
	for i, at := range []time.Time{now, now.Add(time.Hour), now.Add(-time.Hour), now} {
		require.Equal(t, delivery.Spooled, received(s, i, at).Status)
		got := s.LowWater()
		require.False(t, got.Before(low), "it fell")
		require.False(t, got.After(now), "it passes what is spooled")
		low = got
	}
	thaw()
	drainedAll(t, s)
	require.Equal(t, numbers(0, 4), log.numbers(t))

	ahead := s.water.low(now.Add(time.Hour))
	d := received(s, 4, now)
	require.True(t, d.Record.Timestamp.Equal(ahead), "received before what was promised")
	require.True(t, s.water.low(now).Equal(ahead), "it fell")
	d = received(s, 5, now.Add(2*time.Hour))
	require.True(t, d.Record.Timestamp.Equal(now.Add(2*time.Hour)))

	quiet, _ := newSpool(t, nil)
	quiet.lastAck.Store(int64(time.Since(quiet.begun) - 40*time.Second))
	for _, jump := range []time.Duration{time.Hour, -2 * time.Hour} {
		quiet.begun = clocktest.Shift(quiet.begun, jump)
		require.InDelta(t, 40, quiet.RetryAfter().Seconds(), 15)
	}
}
