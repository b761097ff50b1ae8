package spool

import (
	"fmt"
	"os"
	"path/filepath"
)

// recover reads the cursor and what is known of each segment.
func (s *Store) recover() error {
	var err error
	if s.edge, err = edgeName(s.cfg); err != nil {
		return err
	}
	if s.standing, err = openStanding(s.cfg.Dir, s.edge); err != nil {
		return err
	}
	if s.cursor, s.at, err = openCursor(s.cfg.Dir); err != nil {
		return err
	}
	var was synced
	var known bool
	if s.mark, was, known, err = openSynced(s.cfg.Dir); err != nil {
		return err
	}
	names, err := segmentFiles(s.cfg.Dir)
	if err != nil {
		return err
	}
	s.next = max(s.at.segment+1, was.segment)
	if was.end > 0 {
		s.next = max(s.next, was.segment+1)
	}
	for _, name := range names {
		number, _ := segmentNumber(name)
		s.next = max(s.next, number+1)
		path := filepath.Join(s.cfg.Dir, name)
		if number < s.at.segment { // the log has all of it
			if err := os.Remove(path); err != nil {
				return fmt.Errorf("spool: %w", err)
			}
			continue
		}
		seg, found, err := openSegment(path, number, func(b []byte, from int64) int64 {
			return s.mark.promised(was, known, number, b, from)
		})
		if err != nil {
			return err
		}
		if found.gone > 0 {
			s.counts.DamagedRegions++
			s.counts.DamagedBytes += found.gone
			s.log.Error("the disk has lost the end of a segment of the spool that it had synced: events that were accepted were in it",
				"segment", name, "bytes", found.gone)
		}
		s.counts.TornBytes += found.torn
		if found.torn > 0 {
			s.log.Info("the spool's last write was cut off; nobody was told that it is kept", "segment", name, "bytes", found.torn)
		}
		s.admit(seg)
	}
	if len(s.segments) > 0 && s.segments[0].number != s.at.segment {
		s.at = position{segment: s.segments[0].number}
	}
	for len(s.segments) > 0 && s.at.offset >= s.segments[0].end && s.segments[0].number == s.at.segment {
		if err := s.dropFirst(); err != nil {
			return err
		}
	}
	if len(s.segments) > 0 {
		s.more <- struct{}{}
	}
	// Of what is written from here on nothing is synced. A disk that does not
	// take the note will take no records either.
	if err := s.mark.write(s.next, 0); err != nil {
		s.log.Warn("the spool's disk takes nothing", "dir", s.cfg.Dir, "error", err)
	}
	return nil
}

// admit takes a segment found at the start, from the cursor on.
func (s *Store) admit(seg *segment) {
	from := 0
	if seg.number == s.at.segment {
		if s.at.offset > seg.end || s.at.record > seg.seen.records {
			s.at.offset, s.at.record = 0, 0 // not this file's: send all of it
		}
		from = s.at.record
	}
	for _, h := range seg.seen.hashes[from:] {
		s.keys.add(h)
	}
	seg.left -= from
	seg.seen.hashes = nil
	s.records += seg.left
	s.used += seg.size
	s.segments = append(s.segments, seg)
}

func segmentFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir) // sorted by name, and so by number
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	var names []string
	for _, e := range entries {
		if _, ok := segmentNumber(e.Name()); ok {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
