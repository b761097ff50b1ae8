package event

import (
	"fmt"
	"strings"
	"testing"
	"time"

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

// A payload with a hundred thousand members costs itself, and not the payloads after
// it; nothing of any payload is kept.
func TestCanonicalizerLetsGo(t *testing.T) {
	var c canonicalizer
	hash := func(payload string) {
		_, ok := c.hash([]byte(payload))
		require.True(t, ok)
		require.Nil(t, c.src)
		for _, m := range c.members[:cap(c.members)] {
			require.Nil(t, m.name)
		}
	}
	hash(`{"b":{"c":1,"a":2},"a":[{"x":1}]}`)
	require.Positive(t, cap(c.members), "what is usual is kept")
	var many strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&many, `,"n%d":0`, i)
	}
	hash("{" + many.String()[1:] + "}")
	require.LessOrEqual(t, cap(c.members), keepMembers)
	require.LessOrEqual(t, cap(c.dst)+cap(c.scratch), keepBytes)
	hash(`{"b":{"c":1,"a":2},"a":[{"x":1}]}`)
}

// A payload's members are put in order in memory that is used again, but for what
// few payloads need; nothing else of it is kept.
func TestDecoderLetsGo(t *testing.T) {
	d := NewDecoder(DefaultLimits())
	hash := func(payload string) Hash {
		body := `{"source":"s","event_type":"t","actor_id":"u","occurred_at":"2026-01-02T03:04:05Z","payload":` + payload + `}`
		hash, faults := d.DecodeInto(new(Event), []byte(body), time.Time{})
		require.Empty(t, faults)
		require.False(t, d.noted.other)
		require.Nil(t, d.scan.src)
		require.Equal(t, PayloadHash([]byte(payload)), hash)
		return hash
	}
	first := hash(`{"b":1,"a":2}`)
	require.Positive(t, cap(d.text), "what is usual is kept")
	hash(`{"b":"` + strings.Repeat("x", keepBytes) + `","a":2}`)
	require.Zero(t, cap(d.text))
	require.Equal(t, first, hash(`{"a":2,"b":1}`))
}
