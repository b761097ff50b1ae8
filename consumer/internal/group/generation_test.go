package group

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A broker was killed and went on with the first member that joined, at generation
// 6; another was taken in at 7 under the id it had at 5, and still worked on
// partitions that the first had been given. Its commits at 7 were taken, and both
// wrote the same records in other bounds: rows twice (chaos, seed 20261124, round
// 107).
func TestLeftOutOfAGeneration(t *testing.T) {
	m := &Member{classic: true}
	require.False(t, m.leftOut(41), "the first generation of a member is any")
	m.generation = 5
	require.False(t, m.leftOut(5))
	require.False(t, m.leftOut(6), "a rebalance that it took part in")
	require.True(t, m.leftOut(7))
	require.True(t, m.leftOut(1), "the coordinator began anew")
	m.classic = false
	require.False(t, m.leftOut(9), "an epoch of KIP-848 moves on by itself")
}
