package index_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/index"
)

func TestIndexKnowsOnlyWhatItCanAnswer(t *testing.T) {
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	x := index.New(noon.Add(30*time.Minute), 10)
	require.Equal(t, noon, x.Floor())
	require.True(t, x.Knows(noon))
	require.False(t, x.Knows(noon.Add(-time.Nanosecond)))
	require.False(t, x.Knows(time.Date(1960, 1, 1, 0, 0, 0, 0, time.UTC)))

	x.Add(noon.Add(-time.Hour), uuid.UUID{1}, dedup.First{})
	require.Zero(t, x.Keys(), "what lies before the floor is ClickHouse's to know")

	for i := range 12 {
		x.Add(noon.Add(time.Duration(i)*time.Hour), uuid.UUID{byte(i + 1)}, dedup.First{})
	}
	require.LessOrEqual(t, x.Keys(), 10)
	require.False(t, x.Knows(noon), "evicted with its bucket, it must be asked for again")
	last := noon.Add(11 * time.Hour)
	_, ok := x.Find(last, uuid.UUID{12})
	require.True(t, ok)
	_, ok = x.Find(last, uuid.UUID{13})
	require.False(t, ok)
}
