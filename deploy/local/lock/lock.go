// Package lock keeps a second process off a directory or a file.
package lock

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Lock is a held lock. The system gives it back when the process ends, however
// it ends, so a crash leaves nothing to clean up.
type Lock struct{ f *os.File }

// HeldError says that another process holds the lock.
type HeldError struct {
	Path string
	// PID is the holder's, 0 when it is not known.
	PID int
}

func (e *HeldError) Error() string {
	if e.PID == 0 {
		return "another process holds " + e.Path
	}
	return fmt.Sprintf("process %d holds %s", e.PID, e.Path)
}

// Try takes the lock file at path, making it if need be, and writes this
// process's id into it. A lock that another holds is a *HeldError.
func Try(path string) (*Lock, error) { return take(path, unix.LOCK_EX|unix.LOCK_NB) }

// Wait takes the lock file at path, waiting as long as another holds it.
func Wait(path string) (*Lock, error) { return take(path, unix.LOCK_EX) }

func take(path string, how int) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock file: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		defer f.Close()
		b := make([]byte, 20)
		n, _ := f.ReadAt(b, 0) // a short file is all there is
		pid, _ := strconv.Atoi(strings.TrimSpace(string(b[:n])))
		return nil, &HeldError{path, pid}
	}
	if err == nil {
		err = write(f)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", path, err), f.Close())
	}
	return &Lock{f}, nil
}

func write(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// Release gives the lock back. The file stays: to remove it would let two
// processes lock two files of one name.
func (l *Lock) Release() error { return l.f.Close() }
