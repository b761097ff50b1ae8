package spool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// owed is what must go aside and could not yet, because the disk took no file:
// a record that the log refuses, or a damaged region. It stays where it is, in
// its segment, and holds up nothing else: the drain goes on, and makes the room
// that is missing. Only the segment's file and the cursor on the disk wait for
// it, so that a crash finds it again.
type owed struct {
	seg   *segment
	at    position
	bytes int64
	// reason is why the log refuses the record; empty of a damaged region.
	reason string
	// whole: the segment can't be read, and goes aside as a file.
	whole bool
}

// maxOwed bounds the list. Past it the drain waits with what it can't set aside.
const maxOwed = 1 << 16

// owe notes that o must go aside, and why that could not be now. An error means
// that there is no room for the note.
func (s *Store) owe(o owed, cause error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.owes) >= maxOwed {
		return fmt.Errorf("%d others wait to be set aside: %w", len(s.owes), cause)
	}
	if len(s.owes) == 0 {
		s.log.Error("something in the spool must be set aside, and its disk takes no file: it waits where it is, and what is behind it goes on; tried again every second",
			"segment", o.seg.path, "offset", o.at.offset, "dir", s.cfg.Dir, "error", cause)
	}
	if o.whole { // all else of it goes along
		s.owes = slices.DeleteFunc(s.owes, func(x owed) bool { return x.seg == o.seg })
		o.seg.owed = 0
	}
	s.owes = append(s.owes, o)
	o.seg.owed++
	return nil
}

// durable is the position that a crash may find: before all that is owed.
func (s *Store) durable() position {
	if len(s.owes) > 0 {
		return s.owes[0].at
	}
	return s.at
}

// settle sets aside what could not be before, oldest first, as far as the disk
// takes it.
func (s *Store) settle() error {
	for {
		s.mu.Lock()
		if len(s.owes) == 0 {
			s.mu.Unlock()
			return nil
		}
		o := s.owes[0]
		s.mu.Unlock()
		if err := s.pay(o); err != nil {
			return err
		}
		s.mu.Lock()
		// The reader may have set the whole segment aside meanwhile.
		if len(s.owes) > 0 && s.owes[0].at == o.at {
			s.owes = slices.Delete(s.owes, 0, 1)
			o.seg.owed--
		}
		err := s.cursor.write(s.durable())
		if o.seg.done && o.seg.owed == 0 {
			s.used -= o.seg.size
			if rerr := os.Remove(o.seg.path); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
				s.used += o.seg.size
				err = errors.Join(err, rerr)
			}
		}
		left := len(s.owes)
		s.mu.Unlock()
		if left == 0 {
			s.log.Info("what the spool had to set aside is set aside", "dir", s.cfg.Dir)
		}
		if err != nil { // a convenience, as everywhere else: a crash sends again
			s.log.Warn("the spool could not note what it has set aside", "error", err)
		}
	}
}

// pay sets one thing aside.
func (s *Store) pay(o owed) error {
	if o.whole {
		return s.moveAside(o.seg)
	}
	b := make([]byte, o.bytes)
	f, err := os.Open(o.seg.path)
	if err == nil {
		_, err = f.ReadAt(b, o.at.offset)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("spool: reading what must be set aside: %w", err)
	}
	if o.reason == "" {
		return s.keep(damagedName(o.seg, o.at.offset), b)
	}
	body, _, err := frame(b)
	if err == nil {
		r, perr := parseRecord(body)
		if err = perr; err == nil {
			return s.refuse(r, o.reason)
		}
	}
	return s.keep(damagedName(o.seg, o.at.offset), b) // it has been damaged since
}

// tend mends, every second until ctx ends, what can come back by itself: a disk
// that failed, and what could not be set aside.
func (s *Store) tend(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.mu.Lock()
		broken, owes := s.broken != nil, len(s.owes)
		s.mu.Unlock()
		if broken {
			s.probeDisk()
		}
		if owes == 0 {
			said = ""
			continue
		}
		if err := s.settle(); err != nil && err.Error() != said {
			said = err.Error()
			s.log.Warn("what the spool must set aside still waits", "waiting", owes, "error", err)
		}
	}
}
