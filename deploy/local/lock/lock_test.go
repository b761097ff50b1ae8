package lock

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	l, err := Try(path)
	require.NoError(t, err)

	_, err = Try(path)
	var held *HeldError
	require.ErrorAs(t, err, &held)
	require.Equal(t, os.Getpid(), held.PID)
	require.ErrorContains(t, err, path)

	got := make(chan error)
	go func() {
		l, err := Wait(path)
		if err == nil {
			err = l.Release()
		}
		got <- err
	}()
	select {
	case err := <-got:
		t.Fatal("Wait took a lock that is held", err)
	default:
	}
	require.NoError(t, l.Release())
	require.NoError(t, <-got)

	l, err = Try(path)
	require.NoError(t, err, "the file that a holder left does not lock")
	require.NoError(t, l.Release())

	_, err = Try(filepath.Join(path, "below a file"))
	require.Error(t, err)
}
