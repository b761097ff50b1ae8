package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
)

// standing is what this edge has told the readers of its watermarks, as far as
// its next start must know it. Times are Unix nanoseconds.
type standing struct {
	// stands: a watermark of this edge was in the control topic when this was
	// noted, and not a retired one, so that no reader goes past it. An operator may
	// have retired the edge since.
	stands bool
	// floor: no event may be received before it, for that has been promised.
	floor int64
	// from: what was received before it was accepted while no watermark stood.
	// It counts as received at from.
	from int64
}

const (
	standingFile  = "standing"
	standingBytes = 40
)

// standingNote is the standing on the disk, written in place.
type standingNote struct {
	mu   sync.Mutex
	f    *os.File
	edge uint64 // the hash of the name that the watermarks are under
	is   standing
}

func openStanding(dir, edge string) (*standingNote, error) {
	f, err := os.OpenFile(filepath.Join(dir, standingFile), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	n := &standingNote{f: f, edge: xxhash.Sum64String(edge)}
	b := make([]byte, standingBytes)
	got, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.Join(fmt.Errorf("spool: reading %s: %w", f.Name(), err), f.Close())
	}
	le := binary.LittleEndian
	if got == standingBytes && crc32.Checksum(b[:36], castagnoli) == le.Uint32(b[36:]) {
		n.is = standing{floor: int64(le.Uint64(b[16:])), from: int64(le.Uint64(b[24:]))}
		n.is.stands = le.Uint64(b) == n.edge && b[8] == 1
	}
	return n, nil
}

func (n *standingNote) get() standing {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.is
}

// set changes the standing. One that is not synced outlives the process, and a
// power failure may take it back.
func (n *standingNote) set(change func(*standing), sync bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	change(&n.is)
	b := make([]byte, standingBytes)
	le := binary.LittleEndian
	le.PutUint64(b, n.edge)
	if n.is.stands {
		b[8] = 1
	}
	le.PutUint64(b[16:], uint64(n.is.floor))
	le.PutUint64(b[24:], uint64(n.is.from))
	le.PutUint32(b[36:], crc32.Checksum(b[:36], castagnoli))
	_, err := n.f.WriteAt(b, 0)
	if err == nil && sync {
		err = n.f.Sync()
	}
	if err != nil {
		return fmt.Errorf("spool: noting what the edge has told: %w", err)
	}
	return nil
}

func (n *standingNote) close() error {
	if err := n.f.Close(); err != nil {
		return fmt.Errorf("spool: closing %s: %w", n.f.Name(), err)
	}
	return nil
}

// Announced tells whether events may go to the log: the first watermark of this
// edge stands in the control topic, or the log has refused to take one.
func (s *Spool) Announced() bool {
	select {
	case <-s.announced:
		return true
	default:
		return false
	}
}

// announce is called when the log has acknowledged a watermark of this edge. If
// none stood before, whoever read watermarks until now knew nothing of this edge,
// and may have gone as far as the clock: what was accepted so far counts as
// received now.
func (s *Spool) announce(now time.Time) error {
	if s.store.standing.get().stands {
		return nil
	}
	s.water.raise(now)
	err := s.store.standing.set(func(is *standing) {
		is.stands, is.from, is.floor = true, max(is.from, now.UnixNano()), max(is.floor, now.UnixNano())
	}, true)
	s.begin.Do(func() { close(s.announced) })
	return err
}

// resume is called instead of the first announce when a watermark of this edge has
// stood all the time since it last ran: all times are as they are.
func (s *Spool) resume() error {
	err := s.store.standing.set(func(is *standing) { is.stands = true }, true)
	s.begin.Do(func() { close(s.announced) })
	return err
}

// goUnannounced lets events go to the log though no watermark stands: it does not
// take one.
func (s *Spool) goUnannounced() { s.begin.Do(func() { close(s.announced) }) }

// notBefore is t, or the moment that is counted as t when no watermark stood
// then.
func (s *Spool) notBefore(t time.Time) time.Time {
	if from := s.store.standing.get().from; t.UnixNano() < from {
		return time.Unix(0, from)
	}
	return t
}
