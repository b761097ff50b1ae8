package spool

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestSegmentCannotBeRemoved: a disk that for a moment let no file be removed
// held the drain up until the next start, although it took writes again. The
// segment that the log had, and the writer had closed, stayed the oldest: it was
// neither sealed, so that the reader waited for more of it, nor anyone's to
// remove. With a sealed one the reader tried to remove it for ever. What the log
// has must not keep what it has not.
func TestSegmentCannotBeRemoved(t *testing.T) {
	for name, sealed := range map[string]bool{"the active one": false, "a sealed one": true} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, func(c *Config) { c.SegmentBytes = 1 })
			require.NoError(t, s.Append(t.Context(), some(0, 1)))
			first := segments(t, dir)[0]
			c, err := s.Next(512) // has it open from here on
			require.NoError(t, err)
			want := numbers(1, 2)
			if sealed {
				require.NoError(t, s.Append(t.Context(), some(1, 2)))
			}
			// A folder that is not empty is not removed, whoever asks.
			kept := filepath.Join(t.TempDir(), "kept")
			require.NoError(t, os.Rename(first, kept))
			require.NoError(t, os.MkdirAll(filepath.Join(first, "x"), 0o755))

			if err := s.Ack(c); sealed {
				require.ErrorContains(t, err, "stays until the next start")
			} else {
				require.NoError(t, err)
			}
			if !sealed {
				require.Eventually(t, func() bool {
					s.mu.Lock()
					defer s.mu.Unlock()
					return len(s.segments) == 0
				}, 10*time.Second, time.Millisecond)
				require.NoError(t, s.Append(t.Context(), some(1, 2)))
			}
			require.Equal(t, want, drained(t, s))
			require.Positive(t, s.Status().Bytes, "what is on the disk still counts")
			require.NoError(t, s.Close())

			// The next start removes it.
			require.NoError(t, os.RemoveAll(first))
			require.NoError(t, os.Rename(kept, first))
			again := open(t, dir, nil)
			require.Empty(t, drained(t, again))
			require.NoFileExists(t, first)
		})
	}
}
