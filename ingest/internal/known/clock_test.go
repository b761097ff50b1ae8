package known

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"sluice/ingest/internal/clocktest"
)

// TestClockJumps: a wall clock that is set by an hour makes no key older or
// younger than it is.
func TestClockJumps(t *testing.T) {
	m := newMemory(1<<20, time.Minute)
	id := uuid.NewSHA1(uuid.Nil, []byte("one"))
	s := m.shard(id)
	m.remember(s, id, place{offset: 7}, m.now())
	for _, jump := range []time.Duration{time.Hour, -2 * time.Hour} {
		m.begun = clocktest.Shift(m.begun, jump)
		p, ok := m.find(s, id)
		require.True(t, ok, jump)
		require.Equal(t, int64(7), p.offset)
	}
	m.begun = m.begun.Add(-2 * time.Minute)
	_, ok := m.find(s, id)
	require.False(t, ok, "it is too old now")
}
