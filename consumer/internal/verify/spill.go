package verify

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/google/uuid"

	"sluice/schemas/event"
)

// member is one record of a key, as the key's judgement needs it.
type member struct {
	id     uuid.UUID
	hash   event.Hash
	offset int64
	first  int64
	actual state
	sees   sees
	told   bool
}

const (
	memberBytes = 56 // in memory
	memberSize  = 51 // in a file
	maxSplits   = 512
)

// splits hold the members of a partition's keys in temporary files, all members
// of a key in the same one.
type splits struct {
	files   []*os.File
	writers []*bufio.Writer
	counts  []int
	buffer  [memberSize]byte
}

// newSplits makes as many splits as it takes for one of records members to fit
// into memory bytes. A key is a hash: what is in one varies little, unless one
// event was sent very often.
func newSplits(dir string, records, memory int64) (*splits, error) {
	n := int(min(max(records*memberBytes*5/4/max(memory, 1)+1, 1), maxSplits))
	s := &splits{counts: make([]int, n)}
	size := int(min(max(memory/8/int64(n), 512), 64<<10))
	for range n {
		f, err := unnamedFile(dir)
		if err != nil {
			s.close()
			return nil, err
		}
		s.files = append(s.files, f)
		s.writers = append(s.writers, bufio.NewWriterSize(f, size))
	}
	return s, nil
}

// unnamedFile opens a temporary file that has no name any more: it is gone with
// the process, even if that is killed.
func unnamedFile(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "sluice-verify-*")
	if err != nil {
		return nil, fmt.Errorf("a temporary file (--temp-dir chooses where): %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("a temporary file: %w", err), f.Close())
	}
	return f, nil
}

func (s *splits) add(f *fact) error {
	i := int(binary.BigEndian.Uint16(f.id[:])) * len(s.files) >> 16
	b := s.buffer[:]
	copy(b, f.id[:])
	copy(b[16:], f.hash[:])
	binary.LittleEndian.PutUint64(b[32:], uint64(f.offset))
	binary.LittleEndian.PutUint64(b[40:], uint64(f.first))
	b[48], b[49], b[50] = byte(f.actual), byte(f.sees), 0
	if f.told {
		b[50] = 1
	}
	s.counts[i]++
	if _, err := s.writers[i].Write(b); err != nil {
		return fmt.Errorf("writing to a temporary file: %w", err)
	}
	return nil
}

// load appends a split's members to into.
func (s *splits) load(i int, into []member) ([]member, error) {
	if err := s.writers[i].Flush(); err != nil {
		return nil, fmt.Errorf("writing to a temporary file: %w", err)
	}
	in := bufio.NewReaderSize(io.NewSectionReader(s.files[i], 0, int64(s.counts[i])*memberSize), 64<<10)
	b := s.buffer[:]
	for range s.counts[i] {
		if _, err := io.ReadFull(in, b); err != nil {
			return nil, fmt.Errorf("reading a temporary file: %w", err)
		}
		into = append(into, member{
			id: uuid.UUID(b[:16]), hash: event.Hash(b[16:32]),
			offset: int64(binary.LittleEndian.Uint64(b[32:])), first: int64(binary.LittleEndian.Uint64(b[40:])),
			actual: state(b[48]), sees: sees(b[49]), told: b[50] == 1,
		})
	}
	return into, nil
}

// largest is the number of members of the largest split.
func (s *splits) largest() int {
	n := 0
	for _, c := range s.counts {
		n = max(n, c)
	}
	return n
}

func (s *splits) close() {
	for _, f := range s.files {
		f.Close() // it has no name and is of no use any more
	}
}

// note is a finding before it is told: the key is not known any more.
type note struct {
	offset       int64
	code         code
	want, actual state
}

const noteSize = 11

// runs holds notes in a temporary file, made when there are any: each run is in
// offset order.
type runs struct {
	dir  string
	file *os.File
	ends []int64 // of the runs, in notes
}

func (r *runs) add(notes []note) error {
	if len(notes) == 0 {
		return nil
	}
	if r.file == nil {
		f, err := unnamedFile(r.dir)
		if err != nil {
			return err
		}
		r.file = f
	}
	out := bufio.NewWriterSize(r.file, 64<<10)
	var b [noteSize]byte
	for _, n := range notes {
		binary.LittleEndian.PutUint64(b[:], uint64(n.offset))
		b[8], b[9], b[10] = byte(n.code), byte(n.want), byte(n.actual)
		out.Write(b[:]) //nolint:errcheck // Flush tells
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("writing to a temporary file: %w", err)
	}
	var end int64
	if len(r.ends) > 0 {
		end = r.ends[len(r.ends)-1]
	}
	r.ends = append(r.ends, end+int64(len(notes)))
	return nil
}

func (r *runs) close() {
	if r.file != nil {
		r.file.Close() // as above
	}
}

// run reads one run.
type run struct {
	in   *bufio.Reader
	next note
}

// open opens the runs, each at its first note.
func (r *runs) open() ([]*run, error) {
	var out []*run
	var start int64
	for _, end := range r.ends {
		x := &run{in: bufio.NewReaderSize(io.NewSectionReader(r.file, start*noteSize, (end-start)*noteSize), 4<<10)}
		if _, err := x.advance(); err != nil {
			return nil, err
		}
		out = append(out, x)
		start = end
	}
	return out, nil
}

// advance reads the next note; false: there is none.
func (r *run) advance() (bool, error) {
	var b [noteSize]byte
	if _, err := io.ReadFull(r.in, b[:]); errors.Is(err, io.EOF) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("reading a temporary file: %w", err)
	}
	r.next = note{int64(binary.LittleEndian.Uint64(b[:])), code(b[8]), state(b[9]), state(b[10])}
	return true, nil
}
