package spool

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"

	"sluice/deploy/local/lock"
	"sluice/ingest/internal/delivery"
)

var (
	// ErrFull means that the bound on the spool's bytes, or the disk, is full.
	ErrFull = delivery.ErrSpoolFull
	// ErrDisk means that the spool's disk does not take what is written.
	ErrDisk = errors.New("the spool cannot be written")
	// ErrClosed means that the store is closed.
	ErrClosed = errors.New("the spool is closed")
)

// Store is a queue of records in a folder. It is safe for concurrent use, but
// for [Store.Next] and what belongs to it: they have one reader.
type Store struct {
	cfg  Config
	log  *slog.Logger
	lock *lock.Lock
	edge string

	more  chan struct{} // has a value when records may have come
	wake  chan struct{} // has a value when the writer has something to do
	ended chan struct{} // closed when the writer has ended
	now   func() time.Time
	// synced is told how long each sync took; set before the first Append.
	synced func(time.Duration)

	mu       sync.Mutex
	segments []*segment // oldest first
	at       position   // what lies before it, the log has
	next     uint64     // the next segment's number
	used     int64      // bytes of the segments, and of what waits to be written
	records  int        // not acknowledged
	keys     keys
	waiting  []*write
	held     int // records enqueued and not on the disk yet
	closed   bool
	broken   error // why the last write failed; nil after one that did not
	counts   Counts

	cursor *cursor
	owes   []owed // what could not be set aside yet, oldest first

	// The writer's own.
	active   *segment
	out      file
	unsynced []*write
	mark     *syncedMark

	standing *standingNote

	// The reader's own.
	reading  *os.File
	readFrom uint64
	readErrs int
	passed   map[int64]bool // offsets in the oldest segment, set aside and not acknowledged

	lines sync.Mutex // the file of refused records
}

// Counts are what happened since the store was opened. Damage met again, when
// a region is read again, counts again.
type Counts struct {
	Appended, Acked, Syncs, DiskErrors, Full int64
	DamagedRegions, DamagedBytes, TornBytes  int64
	Aside                                    int64
}

// Open takes the folder, making it if need be, and learns what stands in it. A
// folder that another process has is a [*lock.HeldError].
func Open(cfg Config, log *slog.Logger) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.complete()
	if err := makeFolder(cfg.Dir, cfg.syncDir); err != nil {
		return nil, fmt.Errorf("spool: %w: give another folder by spool.dir", err)
	}
	held, err := lock.Try(filepath.Join(cfg.Dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("spool %s: %w", cfg.Dir, err)
	}
	s := &Store{
		cfg: cfg, log: log, lock: held, now: time.Now, synced: func(time.Duration) {},
		more: make(chan struct{}, 1), wake: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	if err := s.recover(); err != nil {
		return nil, errors.Join(err, s.closeFiles(), held.Release())
	}
	// The files made by now outlive a power failure.
	if err := cfg.syncDir(cfg.Dir); err != nil {
		return nil, errors.Join(fmt.Errorf("spool: %w", err), s.closeFiles(), held.Release())
	}
	go s.write()
	return s, nil
}

func (s *Store) closeFiles() error {
	var errs []error
	if s.cursor != nil {
		errs = append(errs, s.cursor.close(!s.cfg.noSync))
	}
	if s.mark != nil {
		errs = append(errs, s.mark.close())
	}
	if s.standing != nil {
		errs = append(errs, s.standing.close())
	}
	return errors.Join(errs...)
}

// dropFirst removes the oldest segment, which the log has; mu is held, or nobody
// else is there. It leaves the queue even if the disk keeps the file: nothing
// behind it may wait for that. Then its bytes still count, and the next start
// removes it, since the cursor is past it. One of which something is still to be
// set aside stays until it is.
func (s *Store) dropFirst() error {
	seg := s.segments[0]
	if seg.owed > 0 {
		s.forgetFirst()
		return nil
	}
	err := os.Remove(seg.path)
	s.forgetFirst()
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.used += seg.size
		return fmt.Errorf("spool: a segment that the log has stays until the next start: %w", err)
	}
	return nil
}

// forgetFirst takes the oldest segment out of the queue.
func (s *Store) forgetFirst() {
	seg := s.segments[0]
	s.segments = s.segments[1:]
	if seg.done = true; seg.owed == 0 {
		s.used -= seg.size
	}
	s.records -= seg.left // damage that no one could read
	s.at = position{segment: seg.number + 1}
	if len(s.segments) > 0 {
		s.at = position{segment: s.segments[0].number}
	}
	s.emptied()
}

// emptied forgets the keys when nothing is left of them.
func (s *Store) emptied() {
	if s.records == 0 && s.held == 0 {
		s.keys.reset()
	}
}

// Edge is the name of this edge, which stays with the folder.
func (s *Store) Edge() string { return s.edge }

// behind gives errBehind to the deliveries of which older records of the same
// key, or of one that can't be told from it, are in the spool, and returns how
// many those are.
func (s *Store) behind(ds []*delivery.Delivery) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys.counters == nil {
		return 0
	}
	n := 0
	for _, d := range ds {
		d.Err = nil
		if s.keys.has(keyHash(d.Record.Key)) {
			d.Err = errBehind
			n++
		}
	}
	return n
}

// empty tells whether nothing is in the spool or on its way there.
func (s *Store) empty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.records == 0 && s.held == 0
}

// untilRoom is how many bytes must be drained until a segment is removed.
func (s *Store) untilRoom() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.segments) == 0 {
		return 0
	}
	return s.segments[0].end - s.at.offset
}

// oldest is the time of the oldest record not acknowledged, at the latest; zero
// when there is none. It is exact to a segment.
func (s *Store) oldest() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := int64(math.MaxInt64)
	for _, seg := range s.segments {
		if seg.left > 0 {
			at = min(at, seg.seen.minTime)
		}
	}
	if at == math.MaxInt64 {
		return time.Time{}
	}
	return time.Unix(0, at)
}

// Ready tells why nothing can be appended now; nil when it can.
func (s *Store) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return ErrClosed
	case s.broken != nil:
		return s.broken
	case s.used >= s.cfg.Bytes:
		return ErrFull
	}
	return nil
}

// Close ends the writer, and gives the folder back. What is in it stays.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	poke(s.wake)
	<-s.ended
	var err error
	if s.reading != nil {
		err = s.reading.Close()
	}
	if len(s.owes) > 0 {
		s.log.Warn("not all that must be set aside is: it stays in its segments, and the next start sends these again", "waiting", len(s.owes), "dir", s.cfg.Dir)
	}
	return errors.Join(err, s.closeFiles(), s.lock.Release())
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
