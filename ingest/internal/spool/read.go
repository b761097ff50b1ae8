package spool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Chunk is the next few records of the store, oldest first.
type Chunk struct {
	Records []*kgo.Record
	// Bytes are what they take in the store.
	Bytes int64

	hashes []uint32
	places []position
	seg    *segment
	end    position
}

// maxReadErrors is how often in a row a segment may fail to be read before it
// is set aside whole.
const maxReadErrors = 10

// Next returns the records that come next, at most about limit bytes of them and
// at least one; nil when there is none. The same records are returned until
// [Store.Ack] has taken them. Their memory is the caller's.
//
// Damage is stepped over: its bytes are kept in the folder "damaged", and
// counted. An error is one of reading the disk; after ten in a row the whole
// segment is set aside, so that it holds nobody up.
func (s *Store) Next(limit int64) (*Chunk, error) {
	for {
		s.mu.Lock()
		if len(s.segments) == 0 {
			s.mu.Unlock()
			return nil, nil
		}
		seg, at := s.segments[0], s.at
		end, sealed := seg.end, seg.sealed
		if at.offset >= end {
			if !sealed {
				s.mu.Unlock()
				poke(s.wake) // the writer may retire it
				return nil, nil
			}
			err := s.dropFirst()
			s.mu.Unlock()
			if err != nil {
				s.log.Warn("the spool's disk does not let go of a segment", "error", err)
			}
			continue
		}
		s.mu.Unlock()
		c, err := s.read(seg, at, end, limit)
		if err != nil {
			if s.readErrs++; s.readErrs < maxReadErrors {
				return nil, err
			}
			if err := s.setAside(seg, err); err != nil {
				return nil, err
			}
			continue
		}
		s.readErrs = 0
		if len(c.Records) > 0 {
			return c, nil
		}
		// Nothing but damage up to the end.
		s.mu.Lock()
		s.at = c.end
		s.mu.Unlock()
	}
}

// read reads from at on, not beyond end.
func (s *Store) read(seg *segment, at position, end, limit int64) (*Chunk, error) {
	f, err := s.open(seg)
	if err != nil {
		return nil, err
	}
	b := make([]byte, min(limit, end-at.offset))
	for {
		if _, err := f.ReadAt(b, at.offset); err != nil {
			return nil, fmt.Errorf("spool: reading %s: %w", seg.path, err)
		}
		c, need, err := s.take(seg, at, b, at.offset+int64(len(b)) == end)
		if need == 0 {
			return c, err
		}
		b = make([]byte, min(need, end-at.offset)) // the first frame is larger than what was read
	}
}

// take makes a chunk of the frames in b, which stand at at. need is how much
// must be read to have anything. whole tells that b ends where the segment does.
// An error is one of setting damage aside.
func (s *Store) take(seg *segment, at position, b []byte, whole bool) (c *Chunk, need int64, err error) {
	c = &Chunk{seg: seg, end: at}
	for i := 0; i < len(b); {
		body, n, err := frame(b[i:])
		var r *kgo.Record
		if err == nil {
			r, err = parseRecord(body)
		}
		switch {
		case err == nil:
			c.Records = append(c.Records, r)
			c.hashes = append(c.hashes, keyHash(r.Key))
			c.places = append(c.places, c.end)
			c.Bytes += int64(n)
			c.end.offset += int64(n)
			c.end.record++
			i += n
			continue
		case !whole && len(c.Records) > 0:
			return c, 0, nil // read again from here
		case !whole && errors.Is(err, errShort):
			return nil, max(2*int64(len(b)), int64(n)), nil
		case !whole && len(b) < frameHeadBytes+maxBodyBytes:
			return nil, max(2*int64(len(b)), 1<<20), nil // damage: find its end
		}
		next := resync(b[i:])
		if next < 0 {
			next = len(b) - i
		}
		if err := s.damage(seg, c.end, b[i:i+next]); err != nil {
			return nil, 0, err
		}
		c.end.offset += int64(next)
		i += next
	}
	return c, 0, nil
}

// open opens seg for reading, keeping the file for the next time.
func (s *Store) open(seg *segment) (*os.File, error) {
	if s.reading != nil && s.readFrom == seg.number {
		return s.reading, nil
	}
	if s.reading != nil {
		s.reading.Close()
		s.reading = nil
	}
	f, err := os.Open(seg.path)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	s.reading, s.readFrom = f, seg.number
	return f, nil
}

// damage keeps the bytes of a damaged region and counts it. When the disk takes
// no file, they wait where they are. An error means that too many do.
func (s *Store) damage(seg *segment, at position, b []byte) error {
	name := damagedName(seg, at.offset)
	if _, err := os.Stat(filepath.Join(s.cfg.Dir, damagedDir, name)); err == nil {
		return nil // met before
	}
	s.mu.Lock()
	waits := slices.ContainsFunc(s.owes, func(o owed) bool { return o.at == at })
	s.mu.Unlock()
	if waits {
		return nil
	}
	if err := s.keep(name, b); err != nil {
		if err := s.owe(owed{seg: seg, at: at, bytes: int64(len(b))}, err); err != nil {
			return err
		}
	}
	s.mu.Lock()
	s.counts.DamagedRegions++
	s.counts.DamagedBytes += int64(len(b))
	s.mu.Unlock()
	s.log.Error("a part of the spool is damaged: events that were accepted may be in it. It is kept, and passed over",
		"segment", seg.path, "offset", at.offset, "bytes", len(b), "kept_as", filepath.Join(damagedDir, name))
	return nil
}

func damagedName(seg *segment, offset int64) string {
	return fmt.Sprintf("%s-%d", filepath.Base(seg.path), offset)
}

const damagedDir = "damaged"

// keep writes b to a file of its own in the folder for what is damaged. It is
// there whole, or not at all.
func (s *Store) keep(name string, b []byte) error {
	dir, err := s.damagedFolder()
	if err == nil {
		path := filepath.Join(dir, name)
		if err = writeSynced(path, b); err == nil {
			err = s.cfg.syncDir(dir)
		}
		if err != nil {
			err = errors.Join(err, removed(path))
		}
	}
	if err != nil {
		return fmt.Errorf("spool: keeping what is damaged: %w", err)
	}
	return nil
}

// removed removes the file at path, if there is one.
func removed(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// damagedFolder makes the folder for what is damaged, and returns it.
func (s *Store) damagedFolder() (string, error) {
	dir := filepath.Join(s.cfg.Dir, damagedDir)
	err := os.Mkdir(dir, 0o755)
	switch {
	case errors.Is(err, os.ErrExist):
		return dir, nil
	case err != nil:
		return "", err
	}
	return dir, s.cfg.syncDir(s.cfg.Dir)
}

// setAside takes a segment that can't be read out of the way, whole.
func (s *Store) setAside(seg *segment, cause error) error {
	s.mu.Lock()
	sealed := seg.sealed
	s.mu.Unlock()
	if !sealed {
		return cause // the writer is at work in it
	}
	if err := s.moveAside(seg); err != nil {
		if oerr := s.owe(owed{seg: seg, at: position{segment: seg.number}, whole: true}, err); oerr != nil {
			return errors.Join(cause, oerr)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.DamagedRegions++
	s.counts.DamagedBytes += seg.size
	s.readErrs = 0
	s.log.Error("a segment of the spool can't be read: it is set aside, whole", "segment", seg.path, "records", seg.left, "moved_to", damagedDir, "error", cause)
	s.forgetFirst()
	return nil
}

// moveAside moves a segment's file to what is damaged. What of it was owed goes
// along.
func (s *Store) moveAside(seg *segment) error {
	dir, err := s.damagedFolder()
	if err != nil {
		return err
	}
	if err := os.Rename(seg.path, filepath.Join(dir, filepath.Base(seg.path))); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !seg.done { // nothing is owed of it any more
		s.owes = slices.DeleteFunc(s.owes, func(o owed) bool { return o.seg == seg })
		seg.owed = 0
	}
	return errors.Join(s.cfg.syncDir(dir), s.cfg.syncDir(s.cfg.Dir))
}

// Ack says that the log has the chunk's records, or that they are set aside: the
// store lets go of them.
func (s *Store) Ack(c *Chunk) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.segments) == 0 || s.segments[0] != c.seg {
		return errors.New("spool: the chunk is not the oldest")
	}
	s.at = c.end
	clear(s.passed)
	err := s.cursor.write(s.durable())
	c.seg.left -= len(c.Records)
	s.records -= len(c.Records)
	s.counts.Acked += int64(len(c.Records))
	for _, h := range c.hashes {
		s.keys.remove(h)
	}
	s.emptied()
	if c.seg.sealed && s.at.offset >= c.seg.end {
		err = errors.Join(err, s.dropFirst())
	}
	if s.records == 0 {
		poke(s.wake) // the writer retires the segment it has open
	}
	return err
}

// Status is the store at a moment.
type Status struct {
	Dir        string `json:"dir"`
	Edge       string `json:"edge"`
	Bytes      int64  `json:"bytes"`
	LimitBytes int64  `json:"limit_bytes"`
	Records    int    `json:"records"`
	Segments   int    `json:"segments"`
	// Oldest is the receive time of the oldest record, exact to a segment.
	Oldest *time.Time `json:"oldest,omitempty"`
	// Problem is why nothing can be appended now.
	Problem string `json:"problem,omitempty"`
	// Waiting is what must be set aside and can't be yet: the disk takes no
	// file. It waits in its segment.
	Waiting int `json:"waiting_to_be_set_aside"`
	Kept
	Counts Counts `json:"-"`
}

// Kept is what was set aside, in files that no one but an operator removes.
type Kept struct {
	DamagedFiles   int   `json:"damaged_files"`
	DamagedBytes   int64 `json:"damaged_bytes"`
	RefusedRecords int64 `json:"refused_records"`
}

// Status tells how the store is.
func (s *Store) Status() Status {
	st := Status{Dir: s.cfg.Dir, Edge: s.edge, LimitBytes: s.cfg.Bytes}
	if at := s.oldest(); !at.IsZero() {
		at = at.UTC()
		st.Oldest = &at
	}
	if err := s.Ready(); err != nil {
		st.Problem = err.Error()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Bytes, st.Records, st.Segments, st.Counts = s.used, s.records, len(s.segments), s.counts
	st.Waiting = len(s.owes)
	return st
}
