package apache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Leftover returns an error as long as a node of an earlier run is still there:
// killed with its starter, a JVM takes a moment to give its memory and ports
// back. dir is the cluster's directory, which need not exist.
func Leftover(dir string) error {
	locks, err := filepath.Glob(filepath.Join(dir, "node-*", "data", ".lock"))
	if err != nil {
		return err
	}
	for _, path := range locks {
		pid, err := lockedBy(path)
		if err != nil {
			return err
		}
		if pid != 0 {
			return fmt.Errorf("process %d holds %s", pid, path)
		}
	}
	return nil
}

// lockedBy asks who holds the lock that Kafka takes on a data directory, which
// is one of POSIX's: the system gives it back with the process. 0 is nobody.
func lockedBy(path string) (pid int, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("kafka's lock: %w", err)
	}
	defer f.Close()
	query := unix.Flock_t{Type: unix.F_WRLCK, Whence: 0}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &query); err != nil {
		return 0, fmt.Errorf("kafka's lock %s: %w", path, err)
	}
	if query.Type == unix.F_UNLCK {
		return 0, nil
	}
	return int(query.Pid), nil
}
