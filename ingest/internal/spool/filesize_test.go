package spool

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sys/unix"
)

const limitedEnv = "SLUICE_TEST_SPOOL_FILE_LIMIT"

// TestFileSizeLimit: a process that may write no larger files (ulimit -f) is told
// so by a signal that ends most programs. To the spool it is a full disk, and it
// takes records again by itself. The limit is a process's, so it is another one
// that runs into it.
func TestFileSizeLimit(t *testing.T) {
	dir := os.Getenv(limitedEnv)
	if dir == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFileSizeLimit$", "-test.v")
		cmd.Env = append(os.Environ(), limitedEnv+"="+t.TempDir())
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return
	}
	var was unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_FSIZE, &was))
	s := open(t, dir, nil)
	require.NoError(t, s.Append(t.Context(), some(0, 3)))
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 32 << 10, Max: was.Max}))
	big := record(9)
	big.Value = make([]byte, 64<<10)
	err := s.Append(t.Context(), []*kgo.Record{big})
	require.ErrorIs(t, err, ErrFull)
	require.ErrorIs(t, err, unix.EFBIG)
	require.ErrorIs(t, s.Ready(), ErrFull)
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &was))
	s.probeDisk()
	require.NoError(t, s.Ready())
	require.NoError(t, s.Append(t.Context(), some(3, 5)))
	require.Equal(t, numbers(0, 5), drained(t, s))
}
