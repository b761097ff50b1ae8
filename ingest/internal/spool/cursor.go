package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
)

// position is a place in the spool: what lies before it, the log has.
type position struct {
	segment uint64
	offset  int64
	record  int // how many records of the segment lie before it
}

const cursorBytes = 32

// cursor is the position on the disk, written in place. One that cannot be read
// (a power failure tore it) is as good as none: what is there is sent again.
type cursor struct{ f *os.File }

func openCursor(dir string) (*cursor, position, error) {
	f, err := os.OpenFile(filepath.Join(dir, "cursor"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, position{}, fmt.Errorf("spool: %w", err)
	}
	p, err := readCursor(f)
	if err != nil {
		return nil, position{}, errors.Join(fmt.Errorf("spool: reading the cursor: %w", err), f.Close())
	}
	return &cursor{f}, p, nil
}

func readCursor(f io.ReaderAt) (position, error) {
	b := make([]byte, cursorBytes)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return position{}, err
	}
	le := binary.LittleEndian
	if n < cursorBytes || crc32.Checksum(b[:28], castagnoli) != le.Uint32(b[28:]) {
		return position{}, nil
	}
	return position{le.Uint64(b), int64(le.Uint64(b[8:])), int(le.Uint64(b[16:]))}, nil
}

// write notes p. It outlives the process; a power failure may take it back,
// and then records are sent again.
func (c *cursor) write(p position) error {
	b := make([]byte, cursorBytes)
	le := binary.LittleEndian
	le.PutUint64(b, p.segment)
	le.PutUint64(b[8:], uint64(p.offset))
	le.PutUint64(b[16:], uint64(p.record))
	le.PutUint32(b[28:], crc32.Checksum(b[:28], castagnoli))
	if _, err := c.f.WriteAt(b, 0); err != nil {
		return fmt.Errorf("spool: writing the cursor: %w", err)
	}
	return nil
}

func (c *cursor) close(sync bool) error {
	var err error
	if sync {
		err = c.f.Sync()
	}
	if err = errors.Join(err, c.f.Close()); err != nil {
		return fmt.Errorf("spool: writing the cursor: %w", err)
	}
	return nil
}

// peekCursor reads the cursor of a folder that another may have.
func peekCursor(dir string) (position, error) {
	f, err := os.Open(filepath.Join(dir, "cursor"))
	if errors.Is(err, os.ErrNotExist) {
		return position{}, nil
	}
	if err != nil {
		return position{}, fmt.Errorf("spool: %w", err)
	}
	defer f.Close()
	return readCursor(f)
}
