package limit

import (
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/ingest/internal/clocktest"
)

// TestClockJumps: a wall clock that is set ahead by an hour fills no bucket, and
// one that is set back keeps none empty; what the headers say stays true.
func TestClockJumps(t *testing.T) {
	now := time.Now()
	for _, jump := range []time.Duration{0, time.Hour, -time.Hour} {
		b := NewBucket(10, 20)
		ok, _ := b.Take(now, 25)
		require.True(t, ok)
		ok, wait := b.Take(clocktest.Shift(now, jump), 1)
		require.False(t, ok, jump)
		require.Equal(t, 600*time.Millisecond, wait.Round(time.Millisecond), jump)
		h := http.Header{}
		b.SetHeader(h, clocktest.Shift(now, jump))
		require.Equal(t, `"events";r=0;t=1`, h.Get("RateLimit"), jump)
		ok, _ = b.Take(clocktest.Shift(now.Add(wait), -jump), 1)
		require.True(t, ok, jump)

		f := NewFailures(1, 2, 10)
		a := netip.MustParseAddr("192.0.2.1")
		f.Add(now, a)
		f.Add(now, a)
		allowed, tell := f.Add(clocktest.Shift(now, jump), a)
		require.False(t, allowed, jump)
		require.False(t, tell, jump)
		allowed, _ = f.Add(clocktest.Shift(now.Add(1100*time.Millisecond), -jump), a)
		require.True(t, allowed, jump)
	}
}
