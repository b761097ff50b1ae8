package enginetest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a killed process left is removed by whoever comes next, what is in use stays.
func TestMemoryIsGivenBack(t *testing.T) {
	parent := t.TempDir()
	left := filepath.Join(parent, "sluice-enginetest-1")
	require.NoError(t, os.MkdirAll(filepath.Join(left, "data", "store"), 0o755))
	another := filepath.Join(parent, "sluice-other-1")
	require.NoError(t, os.Mkdir(another, 0o755))
	var first, second string
	t.Run("in use", func(t *testing.T) {
		var err error
		first, err = memoryDir(t, parent)
		require.NoError(t, err)
		require.NoDirExists(t, left)
		second, err = memoryDir(t, parent)
		require.NoError(t, err)
		require.NotEqual(t, first, second)
		require.DirExists(t, first)
		for _, dir := range []string{first, second} {
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Empty(t, entries)
		}
	})
	require.NoDirExists(t, filepath.Dir(first))
	require.NoDirExists(t, filepath.Dir(second))
	require.DirExists(t, another)
	_, err := memoryDir(t, filepath.Join(parent, "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
}
