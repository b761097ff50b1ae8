package spool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// probeDisk sees whether a disk that failed takes writes again, so that readiness
// comes back without a post that tries.
func (s *Store) probeDisk() {
	s.mu.Lock()
	broken, failed := s.broken, s.counts.DiskErrors
	s.mu.Unlock()
	if broken == nil {
		return
	}
	path := filepath.Join(s.cfg.Dir, "probe")
	f, err := s.cfg.open(path)
	if err == nil {
		_, err = f.Write(make([]byte, 64<<10))
		if err == nil {
			err = f.Sync()
		}
		err = errors.Join(err, f.Close(), os.Remove(path))
	}
	if err == nil {
		s.mu.Lock()
		if s.counts.DiskErrors == failed { // not again meanwhile
			s.broken = nil
		}
		s.mu.Unlock()
		s.log.Info("the spool's disk takes writes again", "dir", s.cfg.Dir)
	}
}

// diskError wraps an error of the disk: a full one as ErrFull.
func diskError(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return fmt.Errorf("%w: %w", ErrDisk, err)
}

// syncDir makes what was made, renamed or removed in the folder outlive a power
// failure.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// makeFolder makes the folder dir, with those above it that are missing, each
// synced into the one above.
func makeFolder(dir string, sync func(dir string) error) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	above := filepath.Dir(dir)
	if above != dir {
		if err := makeFolder(above, sync); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return sync(above)
}
