package spool

import (
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
)

// BenchmarkOpen is the start of an edge that was killed with SPOOL_MIB (default
// 64) in its spool. What is measured is reading the footers, and the one segment
// that has none.
func BenchmarkOpen(b *testing.B) {
	mib := 64
	if text := os.Getenv("SPOOL_MIB"); text != "" {
		n, err := strconv.Atoi(text)
		require.NoError(b, err)
		mib = n
	}
	cfg := DefaultConfig(b.TempDir())
	cfg.Bytes, cfg.SegmentBytes, cfg.noSync = int64(mib+64)<<20, 16<<20, true
	s, err := Open(cfg, discard)
	require.NoError(b, err)
	var records []*kgo.Record
	for i := range 1000 {
		r := record(i)
		r.Value = append(r.Value, make([]byte, 400)...)
		records = append(records, r)
	}
	n := 0
	for s.Status().Bytes < int64(mib)<<20 {
		require.NoError(b, s.Append(b.Context(), records))
		n += len(records)
	}
	names := mustSegments(b, cfg.Dir)
	last := names[len(names)-1]
	unsealed, err := os.ReadFile(last)
	require.NoError(b, err)
	for b.Loop() {
		b.StopTimer()
		require.NoError(b, s.Close())
		require.NoError(b, os.WriteFile(last, unsealed, 0o644)) // as a kill leaves it
		b.StartTimer()
		s, err = Open(cfg, discard)
		require.NoError(b, err)
		b.StopTimer()
		require.Equal(b, n, s.Status().Records)
		b.StartTimer()
	}
	b.ReportMetric(float64(s.Status().Bytes)/(1<<20), "MiB")
	b.ReportMetric(float64(n), "records")
	require.NoError(b, s.Close())
}

// BenchmarkAppend is one post's event into the spool, alone: the sync it waits
// for is most of it.
func BenchmarkAppend(b *testing.B) {
	s := open(b, b.TempDir(), nil)
	records := []*kgo.Record{record(1)}
	for b.Loop() {
		require.NoError(b, s.Append(b.Context(), records))
	}
}
