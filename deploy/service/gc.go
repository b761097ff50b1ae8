package service

import (
	"errors"
	"os"
	"runtime/debug"
)

// GC tells Go's garbage collector how much memory a service may take to be
// collected less often. Most of what both services allocate lives as long as one
// request or one batch, beside little that stays: collected at Go's default of
// 100 percent, a consumer spends a third of its time on it (deploy/docs/bench.md).
// See https://go.dev/doc/gc-guide.
type GC struct {
	// Percent is how much may be allocated anew before a collection, in percent
	// of what was alive after the last. Default 400.
	Percent int `mapstructure:"percent" help:"new memory before a collection, in percent of what is alive; the variable GOGC goes before it"`
	// LimitBytes is where collections become frequent enough to stay below,
	// if what is alive fits; nothing is refused by it. 0: no limit.
	LimitBytes int64 `mapstructure:"limit_bytes" help:"memory that the collector tries to stay below, whatever gc.percent says; 0: none; GOMEMLIMIT goes before it"`
}

// DefaultGC collects at 400 percent, and more often near limit bytes.
func DefaultGC(limit int64) GC { return GC{Percent: 400, LimitBytes: limit} }

// Validate tells which value can't be worked with.
func (g GC) Validate() error {
	if g.Percent < 10 {
		return errors.New("gc.percent must be at least 10: below it the collector does nothing but collect")
	}
	if g.LimitBytes < 0 || g.LimitBytes > 0 && g.LimitBytes < 64<<20 {
		return errors.New("gc.limit_bytes must be 0 (no limit) or at least 67108864 (64 MiB)")
	}
	return nil
}

// Apply sets the process's collector, but for what the variables GOGC and
// GOMEMLIMIT have set already. The function it returns puts back what was.
func (g GC) Apply() (restore func()) {
	percent, limit := -2, int64(-1)
	if os.Getenv("GOGC") == "" {
		percent = debug.SetGCPercent(g.Percent)
	}
	if os.Getenv("GOMEMLIMIT") == "" && g.LimitBytes > 0 {
		limit = debug.SetMemoryLimit(g.LimitBytes)
	}
	return func() {
		if percent != -2 {
			debug.SetGCPercent(percent)
		}
		if limit != -1 {
			debug.SetMemoryLimit(limit)
		}
	}
}
