package event

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestKept: whatever was met before, a text is that text, and stays it when the
// memory that it was read from is used again.
func TestKept(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var k kept
		var got, want []string
		for _, text := range rapid.SliceOf(rapid.StringOfN(rapid.RuneFrom([]rune("ab")), 1, 80, -1)).Draw(t, "texts") {
			b := []byte(text)
			got, want = append(got, k.text(b)), append(want, text)
			for i := range b {
				b[i] = '!'
			}
		}
		require.Equal(t, want, got)
	})
}
