package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A source with ESC in its name cleared the screen of whoever listed dead letters.
func TestWhatSendersWroteDoesNotSteerATerminal(t *testing.T) {
	const hostile = "\x1b[2Jshop\u009b31m\u202e\r\n\x7f é😀"
	const tame = `\u001b[2Jshop\u009b31m\u202e\u000d\u000a\u007f é😀`
	require.Equal(t, tame, plain(hostile))
	require.Equal(t, "a\n\tb", plainBut("a\n\tb", "\n\t"))
	var out strings.Builder
	require.NoError(t, writeLetters(&out, []letter{{Source: hostile, Detail: hostile, Time: time.Unix(0, 0)}}, false))
	require.NotContains(t, out.String(), "\x1b")
	require.Equal(t, 2, strings.Count(out.String(), "\n"))
	out.Reset()
	require.NoError(t, shown{letter: letter{Detail: hostile}, Value: hostile}.write(&out, false))
	require.NotContains(t, out.String(), "\x1b")
	require.NotContains(t, out.String(), "\u009b")
}
