package spool

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestDiskFails: a disk that is full, read-only or broken, in writing or in
// syncing: the post is told, nothing that was promised is lost, nothing that was
// refused is promised, and the store goes on by itself.
func TestDiskFails(t *testing.T) {
	rows := []struct {
		name string
		make func(f *os.File, err error) file
		err  error
		want error
	}{
		{"full", func(f *os.File, err error) file {
			return &hooked{File: f, write: func(b []byte) (int, error) {
				n, werr := f.Write(b[:len(b)/2])
				return n, errors.Join(werr, err)
			}}
		}, syscall.ENOSPC, ErrFull},
		{"quota", func(f *os.File, err error) file {
			return &hooked{File: f, write: func([]byte) (int, error) { return 0, err }}
		}, syscall.EDQUOT, ErrFull},
		{"sync", func(f *os.File, err error) file { return &hooked{File: f, sync: func() error { return err }} }, syscall.EIO, ErrDisk},
		{"read-only", nil, syscall.EROFS, ErrDisk},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			var failing atomic.Bool
			dir := t.TempDir()
			s := open(t, dir, func(c *Config) {
				c.open = func(path string) (file, error) {
					if r.make == nil && failing.Load() {
						return nil, &os.PathError{Op: "open", Path: path, Err: r.err}
					}
					f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
					if err != nil || r.make == nil {
						return f, err
					}
					bad := r.make(f, r.err)
					return &switched{good: f, bad: bad, failing: &failing}, nil
				}
			})
			require.NoError(t, s.Append(t.Context(), some(0, 10)))
			if r.make == nil { // the next segment can't be made
				require.Equal(t, numbers(0, 10), drained(t, s))
				require.Eventually(t, func() bool { return s.Status().Segments == 0 }, 10*time.Second, time.Millisecond)
			}
			failing.Store(true)
			for range 3 {
				err := s.Append(t.Context(), some(10, 20))
				require.ErrorIs(t, err, r.want)
				require.ErrorIs(t, err, r.err)
				require.ErrorIs(t, s.Ready(), r.want)
			}
			used := s.Status().Bytes
			failing.Store(false)
			s.probeDisk()
			require.NoError(t, s.Ready(), "it has not noticed that the disk is well")
			require.NoError(t, s.Append(t.Context(), some(20, 30)))
			require.Greater(t, s.Status().Bytes, used)
			want := numbers(0, 10)
			if r.make == nil {
				want = nil
			}
			require.Equal(t, append(want, numbers(20, 30)...), drained(t, s))
			require.Eventually(t, func() bool { return s.Status().Bytes == 0 }, 10*time.Second, time.Millisecond, "bytes counted for ever")
		})
	}
}

// switched fails while failing is set.
type switched struct {
	good, bad file
	failing   *atomic.Bool
}

func (s *switched) now() file {
	if s.failing.Load() {
		return s.bad
	}
	return s.good
}

func (s *switched) Write(b []byte) (int, error) { return s.now().Write(b) }

func (s *switched) Sync() error { return s.now().Sync() }

func (s *switched) Truncate(n int64) error { return s.good.Truncate(n) }

func (s *switched) Close() error { return s.good.Close() }

// TestDiskSilent: a disk that does not answer holds a post no longer than its
// client is there.
func TestDiskSilent(t *testing.T) {
	answer := make(chan struct{})
	s := open(t, t.TempDir(), func(c *Config) {
		c.open = func(path string) (file, error) {
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
			return &hooked{File: f, sync: func() error { <-answer; return f.Sync() }}, err
		}
	})
	ctx, leave := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Append(ctx, some(0, 1)) }()
	require.Eventually(t, func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.held == 1 }, 20*time.Second, time.Millisecond)
	leave()
	require.ErrorIs(t, <-done, context.Canceled)
	close(answer)
	require.Eventually(t, func() bool { return s.Status().Records == 1 }, 20*time.Second, time.Millisecond)
	require.Equal(t, []int{0}, drained(t, s))
}
