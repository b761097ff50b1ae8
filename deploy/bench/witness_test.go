package main

import (
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
)

// TestBound95: the bucket that holds the quantile of what came between two readings.
func TestBound95(t *testing.T) {
	histogram := func(counts ...uint64) *dto.Histogram {
		h := &dto.Histogram{}
		total := uint64(0)
		for i, n := range counts[:len(counts)-1] {
			total += n
			end, so := []float64{0.001, 0.005, 0.025}[i], total
			h.Bucket = append(h.Bucket, &dto.Bucket{UpperBound: &end, CumulativeCount: &so})
		}
		total += counts[len(counts)-1]
		h.SampleCount = &total
		return h
	}
	require.Zero(t, bound95(nil, nil))
	require.Zero(t, bound95(histogram(5, 5, 5, 5), histogram(5, 5, 5, 5)))
	require.Equal(t, time.Millisecond, bound95(nil, histogram(95, 5, 0, 0)))
	require.Equal(t, 5*time.Millisecond, bound95(nil, histogram(94, 6, 0, 0)))
	require.Equal(t, time.Millisecond, bound95(histogram(0, 0, 100, 0), histogram(100, 5, 100, 0)))
	require.Equal(t, 25*time.Millisecond, bound95(nil, histogram(0, 0, 0, 7)), "beyond the last")
}
