package service

import (
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

// An operator's GOGC and GOMEMLIMIT go before the configuration, and what was set
// is put back.
func TestGC(t *testing.T) {
	t.Setenv("GOGC", "")
	t.Setenv("GOMEMLIMIT", "")
	defer debug.SetGCPercent(debug.SetGCPercent(123))
	percent := func() int { p := debug.SetGCPercent(100); debug.SetGCPercent(p); return p }
	before := debug.SetMemoryLimit(-1)

	restore := GC{Percent: 400, LimitBytes: 1 << 40}.Apply()
	require.Equal(t, 400, percent())
	require.EqualValues(t, 1<<40, debug.SetMemoryLimit(-1))
	restore()
	require.Equal(t, 123, percent())
	require.Equal(t, before, debug.SetMemoryLimit(-1))

	t.Setenv("GOGC", "100")
	t.Setenv("GOMEMLIMIT", "1GiB")
	restore = GC{Percent: 400, LimitBytes: 1 << 40}.Apply()
	require.Equal(t, 123, percent())
	require.Equal(t, before, debug.SetMemoryLimit(-1))
	restore()
	require.Equal(t, 123, percent())

	require.NoError(t, DefaultGC(0).Validate())
	require.NoError(t, DefaultGC(64<<20).Validate())
	require.Error(t, GC{Percent: 0}.Validate())
	require.Error(t, GC{Percent: 100, LimitBytes: 1}.Validate())
}
