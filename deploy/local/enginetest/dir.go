package enginetest

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/deploy/local/lock"
)

// memory is a file system in memory. A schema is hundreds of small files, each
// synced: on a disk a test waits for that most of its time.
const memory = "/dev/shm"

// memoryLeft is what memory must have to spare, in bytes.
const memoryLeft = 2 << 30

// dataDir returns an empty directory that is removed when the test ends: in memory
// where there is room, else where [testing.TB.TempDir] puts it. Benchmarks are on the
// disk.
func dataDir(tb testing.TB) string {
	tb.Helper()
	if _, bench := tb.(*testing.B); !bench {
		if dir, err := memoryDir(tb, memory); err == nil {
			return dir
		}
	}
	return tb.TempDir()
}

// memoryDir makes a directory in parent and, first, removes those that processes
// left behind which were killed: nothing else would free that memory. One that is in
// use is told by its lock.
func memoryDir(tb testing.TB, parent string) (_ string, err error) {
	tb.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs(parent, &fs); err != nil {
		return "", err
	}
	all, err := lock.Wait(filepath.Join(parent, "sluice-enginetest.lock"))
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, all.Release()) }()
	left, err := filepath.Glob(filepath.Join(parent, "sluice-enginetest-*"))
	if err != nil {
		return "", err
	}
	for _, dir := range left {
		held, err := lock.Try(filepath.Join(dir, "lock"))
		if err != nil {
			continue // it is in use, or another user's
		}
		if err := errors.Join(os.RemoveAll(dir), held.Release()); err != nil {
			return "", err
		}
	}
	if err := unix.Statfs(parent, &fs); err != nil {
		return "", err
	}
	if uint64(fs.Bavail)*uint64(fs.Bsize) < memoryLeft { //nolint:unconvert // their types differ by system
		return "", unix.ENOSPC
	}
	own, err := os.MkdirTemp(parent, "sluice-enginetest-")
	if err != nil {
		return "", err
	}
	held, err := lock.Try(filepath.Join(own, "lock"))
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(own))
	}
	tb.Cleanup(func() {
		if err := errors.Join(os.RemoveAll(own), held.Release()); err != nil {
			tb.Errorf("removing the engine's data: %v", err)
		}
	})
	data := filepath.Join(own, "data")
	return data, os.Mkdir(data, 0o755)
}
