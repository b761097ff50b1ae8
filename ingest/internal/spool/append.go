package spool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// writeBytes is about how much one write holds; more records are several.
const writeBytes = 1 << 20

// write is some records on their way to the disk, their frames ready.
type write struct {
	frames []byte
	seen   summary
	done   chan error // has room for the only value
}

var frames = sync.Pool{New: func() any { return &write{done: make(chan error, 1)} }}

// Append puts records behind all others, and returns once they are safe on the
// disk: after one fsync, which it shares with all who wait. The records' memory
// is the caller's again.
//
// An error is [ErrFull], [ErrDisk], [ErrClosed] or ctx's; some of the records may
// be in the spool all the same, as if the caller had not been told. A disk that
// does not answer for five seconds is one that fails.
func (s *Store) Append(ctx context.Context, records []*kgo.Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeoutCause(ctx, diskPatience, errDiskSilent)
	defer cancel()
	var all []*write
	for len(records) > 0 {
		w, _ := frames.Get().(*write)
		w.frames, w.seen = w.frames[:0], summary{minTime: newSummary().minTime, hashes: w.seen.hashes[:0]}
		for len(records) > 0 && (len(w.frames) == 0 || int64(len(w.frames))+frameBytes(records[0]) <= writeBytes) {
			w.frames = appendRecord(w.frames, records[0])
			w.seen.add(keyHash(records[0].Key), records[0].Timestamp.UnixNano())
			records = records[1:]
		}
		all = append(all, w)
	}
	if err := s.enqueue(all); err != nil {
		return err
	}
	var err error
	for _, w := range all {
		select {
		case werr := <-w.done:
			err = errors.Join(err, werr)
			if cap(w.frames) <= 2*writeBytes {
				frames.Put(w)
			}
		case <-bounded.Done():
			return context.Cause(bounded)
		}
	}
	return err
}

// diskPatience is how long a post waits for the disk.
const diskPatience = 5 * time.Second

var errDiskSilent = fmt.Errorf("%w: no answer within %v", ErrDisk, diskPatience)

// enqueue hands writes to the writer, all or none. From here on their keys count
// as spooled.
func (s *Store) enqueue(all []*write) error {
	size, records := int64(0), 0
	for _, w := range all {
		size += int64(len(w.frames))
		records += w.seen.records
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	// A footer's bytes are reckoned with the records it lists.
	if s.used+size+int64(4*records) > s.cfg.Bytes {
		s.counts.Full++
		return fmt.Errorf("%w: %d of %d bytes are used", ErrFull, s.used, s.cfg.Bytes)
	}
	s.used += size
	s.held += records
	for _, w := range all {
		for _, h := range w.seen.hashes {
			s.keys.add(h)
		}
	}
	s.waiting = append(s.waiting, all...)
	poke(s.wake)
	return nil
}

// write is the writer: it takes what waits, writes it, syncs once, and tells
// those who wait.
func (s *Store) write() {
	defer close(s.ended)
	for range s.wake {
		s.mu.Lock()
		group, closed := s.waiting, s.closed
		s.waiting = nil
		s.mu.Unlock()
		for _, w := range group {
			if err := s.put(w); err != nil {
				s.unsynced = append(s.unsynced, w)
				s.abandon(err)
			}
		}
		s.flush()
		if closed {
			s.sealActive()
			return
		}
		s.retire()
	}
}

// put writes w's frames to the active segment, beginning a new one when that
// has its size.
func (s *Store) put(w *write) error {
	if s.active != nil && s.active.size > 0 && s.active.size+int64(len(w.frames)) > s.cfg.SegmentBytes {
		s.flush()
		s.sealActive()
	}
	if s.active == nil {
		if err := s.begin(); err != nil {
			return err
		}
	}
	n, err := s.out.Write(w.frames)
	s.active.size += int64(n)
	if err != nil {
		return err
	}
	s.unsynced = append(s.unsynced, w)
	return nil
}

// begin makes the next segment.
func (s *Store) begin() error {
	s.mu.Lock()
	number := s.next
	s.next++
	s.mu.Unlock()
	path := filepath.Join(s.cfg.Dir, segmentName(number))
	out, err := s.cfg.open(path)
	if err != nil {
		return err
	}
	if err := s.cfg.syncDir(s.cfg.Dir); err != nil {
		return errors.Join(err, out.Close(), os.Remove(path))
	}
	s.out, s.active = out, &segment{number: number, path: path, seen: newSummary()}
	s.mu.Lock()
	s.segments = append(s.segments, s.active)
	if len(s.segments) == 1 {
		s.at = position{segment: number}
	}
	s.mu.Unlock()
	return nil
}

// flush syncs what was written, and tells those whose records it holds.
func (s *Store) flush() {
	if len(s.unsynced) == 0 {
		return
	}
	begin := time.Now()
	err := s.out.Sync()
	if err == nil {
		err = s.mark.write(s.active.number, s.active.size)
	}
	if err != nil {
		s.abandon(err)
		return
	}
	s.synced(time.Since(begin))
	s.mu.Lock()
	seg := s.active
	seg.end = seg.size
	for _, w := range s.unsynced {
		seg.seen.records += w.seen.records
		seg.left += w.seen.records
		seg.seen.minTime = min(seg.seen.minTime, w.seen.minTime)
		seg.seen.hashes = append(seg.seen.hashes, w.seen.hashes...)
		s.records += w.seen.records
		s.held -= w.seen.records
		s.counts.Appended += int64(w.seen.records)
	}
	s.counts.Syncs++
	s.broken = nil
	s.mu.Unlock()
	poke(s.more)
	s.answer(nil)
}

func (s *Store) answer(err error) {
	for _, w := range s.unsynced {
		w.done <- err
	}
	s.unsynced = s.unsynced[:0]
}

// abandon gives up what was written since the last sync, and the segment with
// it: after a failed write or sync no one knows what the disk holds of it. What
// was synced before stands. The next write begins a new segment.
func (s *Store) abandon(cause error) {
	cause = diskError(cause)
	if s.active != nil {
		err := errors.Join(s.out.Truncate(s.active.end), s.out.Sync())
		if err != nil {
			s.log.Warn("the end of a spool's segment could not be cut; what stands there may be sent, though its senders were told it was not taken", "segment", s.active.path, "error", err)
		}
		if err := s.out.Close(); err != nil {
			s.log.Warn("closing a spool's segment", "segment", s.active.path, "error", err)
		}
	}
	s.mu.Lock()
	first := s.broken == nil
	s.broken = cause
	s.counts.DiskErrors++
	for _, w := range s.unsynced {
		s.used -= int64(len(w.frames))
		s.held -= w.seen.records
		for _, h := range w.seen.hashes {
			s.keys.remove(h)
		}
	}
	if s.active != nil {
		s.active.size = s.active.end
		s.active.seen.hashes = nil
		s.active.sealed = true
		if s.active.end == 0 { // nothing in it
			_ = os.Remove(s.active.path) // at worst it is an empty file, which the next start passes
			s.segments = slices.DeleteFunc(s.segments, func(x *segment) bool { return x == s.active })
		}
	}
	s.active, s.out = nil, nil
	s.emptied()
	s.mu.Unlock()
	if first {
		s.log.Error("the spool's disk does not take what is written; events are refused while the log does not take them either", "dir", s.cfg.Dir, "error", cause)
	}
	s.answer(cause)
}

// sealActive closes the active segment, with a footer so that the next start
// need not read it whole. The footer is a convenience: an error costs that only.
func (s *Store) sealActive() {
	if s.active == nil {
		return
	}
	footer := appendFooter(nil, s.active.seen, s.active.end)
	n, err := s.out.Write(footer)
	if err == nil {
		err = s.out.Sync()
	}
	if err != nil {
		n = 0
		err = errors.Join(err, s.out.Truncate(s.active.end))
	}
	if err := errors.Join(err, s.out.Close()); err != nil {
		s.log.Warn("a segment of the spool has no footer; the next start reads it whole", "segment", s.active.path, "error", err)
	}
	s.mu.Lock()
	s.active.size += int64(n)
	s.used += int64(n)
	s.active.seen.hashes = nil
	s.active.sealed = true
	s.mu.Unlock()
	s.active, s.out = nil, nil
	poke(s.more) // the reader may be at its end
}

// retire removes the active segment when the log has all of it.
func (s *Store) retire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active == nil || s.active.end == 0 || len(s.segments) != 1 || s.at.segment != s.active.number || s.at.offset < s.active.end {
		return
	}
	if err := s.out.Close(); err != nil {
		s.log.Warn("closing a spool's segment", "segment", s.active.path, "error", err)
	}
	s.active, s.out = nil, nil
	if err := s.dropFirst(); err != nil {
		s.log.Warn("the spool's disk does not let go of a segment", "error", err)
	}
}
