package partition

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/consumer/internal/batch"
)

// A step holds live records up for as long as it may, by what the last one took, and is
// never smaller than is worth an INSERT nor larger than a live batch.
func TestStepSizes(t *testing.T) {
	for _, tt := range []struct {
		name string
		busy bool
		most int
		pace float64 // records a second
		want int
	}{
		{"the first", false, 0, 0, leastIdle},
		{"the first beside live records", true, 0, 0, firstRow},
		{"fast", false, 50_000, 200_000, 50_000},
		{"as much as a second gives", false, 50_000, 40_000, 40_000},
		{"slow", false, 50_000, 3_000, leastIdle},
		{"twice the last at most", false, 14_000, 200_000, 28_000},
		{"fast beside live records", true, 8_000, 200_000, 8_000},
		{"slow beside live records", true, 8_000, 10_000, leastBusy},
		{"after large ones, beside live records", true, 50_000, 50_000, leastBusy},
	} {
		o := &Owner{cfg: Config{Limits: batch.DefaultLimits()}}
		if tt.busy {
			o.lastLive = time.Now()
		}
		require.Equal(t, tt.want, o.size(&replaying{most: tt.most, pace: tt.pace}), tt.name)
	}
	x := &replaying{most: 40_000, p: Progress{Next: 100, To: 50_100}}
	require.Equal(t, 25_000, x.evenly(), "no small rest remains")

	// Where no live record is expected, one that comes before the intent has the step
	// put off: only what follows counts.
	began := time.Now()
	o := &Owner{answered: began.Add(time.Second)}
	require.Equal(t, began.Add(time.Second), o.heldSince(began))
	o.lastLive = began
	require.Equal(t, began, o.heldSince(began))
	o = &Owner{answered: began.Add(-time.Minute)}
	require.Equal(t, began, o.heldSince(began), "the intent of another batch")
}
