package partition

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// So many steps at a time and no more; who is refused is woken when a turn is over,
// and who ends one is told that somebody waits.
func TestTurns(t *testing.T) {
	turns := NewTurns(2)
	require.True(t, turns.take(1))
	free, _ := turns.has(1)
	require.True(t, free)
	require.False(t, turns.giveBack(1), "nobody has waited")

	require.True(t, turns.take(1))
	require.False(t, turns.take(2), "all of them are not free")
	free, freed := turns.has(2)
	require.False(t, free)
	select {
	case <-freed:
		t.Fatal("woken before a turn is over")
	default:
	}
	require.True(t, turns.giveBack(1), "somebody waits")
	<-freed
	require.True(t, turns.take(2))
	require.False(t, turns.take(1))
	require.True(t, turns.giveBack(2))

	var none *Turns
	free, _ = none.has(9)
	require.True(t, free && none.take(9))
	require.False(t, none.giveBack(9))
}

// What is left to be read again is divided into steps of much the same size: none is
// larger than it may be, and no small rest remains, which would be an INSERT of its own.
func TestStepsAreEven(t *testing.T) {
	for _, tt := range []struct {
		left int64
		most int
		want []int
	}{
		{50_000, 50_000, []int{50_000}},
		{50_001, 50_000, []int{25_001, 25_000}},
		{75_000, 50_000, []int{37_500, 37_500}},
		{1, 2_000, []int{1}},
		{5_000, 2_000, []int{1_667, 1_667, 1_666}},
	} {
		x := &replaying{p: Progress{To: tt.left}, most: tt.most}
		var got []int
		for x.p.Next < x.p.To {
			n := x.evenly()
			require.LessOrEqual(t, n, tt.most)
			got = append(got, n)
			x.p.Next += int64(n)
		}
		require.Equal(t, tt.want, got)
	}
}
