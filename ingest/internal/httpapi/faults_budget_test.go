package httpapi

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/ingest/internal/decode"
	"sluice/schemas/event"
)

// TestFaultsAreCharged: what a batch's items are told when they are refused was
// outside the memory budget: 100,000 items of a few bytes, each with several
// faults, held many times the bytes that they were let in with.
func TestFaultsAreCharged(t *testing.T) {
	b := &batch{budget: decode.NewBudget(10_000), lists: new(lists)}
	fault := event.Fault{Pointer: "/" + strings.Repeat("p", 499), Detail: strings.Repeat("d", 300), Allowed: strings.Repeat("a", 200)}
	for !b.full {
		b.reject(fault)
		require.LessOrEqual(t, len(b.items), 10)
	}
	require.Len(t, b.items, 9)
	require.Equal(t, b.taken, b.budget.Used())
	require.Greater(t, b.taken, int64(9*1000))
}
