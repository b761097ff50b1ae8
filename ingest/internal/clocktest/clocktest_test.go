package clocktest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestShift(t *testing.T) {
	for _, d := range []time.Duration{time.Hour, -time.Hour, 0, 48 * time.Hour} {
		now := time.Now()
		then := Shift(now, d)
		require.Zero(t, then.Sub(now), "the monotonic clock")
		require.Equal(t, now.Add(d).UnixNano(), then.UnixNano(), "the wall clock")
	}
	require.Panics(t, func() { Shift(time.Now().Round(0), time.Hour) })
}
