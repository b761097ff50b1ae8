package tombstone

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/consumer/internal/dedup"
	"sluice/schemas/event"
)

func TestFate(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	s := &Set{Before: at(10)}
	s.Erase(HashOf("a"), "", at(100))
	s.Erase(HashOf("a"), "", at(90)) // never takes back
	s.Erase(HashOf("b"), "shop", at(100))
	for _, tt := range []struct {
		source, actor string
		at            int
		want          dedup.Fate
	}{
		{"shop", "c", 9, dedup.Expired},
		{"shop", "c", 10, ""},
		{"any", "a", 100, dedup.Erased},
		{"any", "a", 101, ""},
		{"shop", "b", 50, dedup.Erased},
		{"other", "b", 50, ""},
		{"shop", "A", 50, ""},
		{"shop", "a", 9, dedup.Expired},
	} {
		got, taken := s.Fate(&event.Event{Source: tt.source, ActorID: tt.actor, OccurredAt: at(tt.at)})
		require.Equal(t, tt.want, got, tt)
		require.Equal(t, tt.want != "", taken, tt)
	}
	_, taken := (&Set{}).Fate(&event.Event{OccurredAt: time.Unix(-1<<40, 0)})
	require.False(t, taken, "nothing was taken")
}
