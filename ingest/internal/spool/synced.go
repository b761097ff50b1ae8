package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
)

// synced is up to where the segment that is written to has been synced: whoever
// posted what stands before it may have been told so, and nobody was told of
// what stands behind it. It is noted after each sync and before the answers, and
// not synced itself, so that a group costs one sync: what a killed process noted
// stands, what a machine noted before it lost its power may be older.
type synced struct {
	segment uint64
	end     int64
	// boot names the run of the machine that noted it; empty when it is not
	// known.
	boot string
}

const (
	syncedFile  = "synced"
	syncedBytes = 64
	bootBytes   = 36
)

// syncedMark is the note on the disk.
type syncedMark struct {
	f    *os.File
	boot string
}

// openSynced opens the note, and reads what it says; ok is false when that can't
// be known.
func openSynced(dir string) (m *syncedMark, was synced, ok bool, err error) {
	f, err := os.OpenFile(filepath.Join(dir, syncedFile), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, was, false, fmt.Errorf("spool: %w", err)
	}
	b := make([]byte, syncedBytes)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, was, false, errors.Join(fmt.Errorf("spool: reading %s: %w", f.Name(), err), f.Close())
	}
	le := binary.LittleEndian
	if n == syncedBytes && crc32.Checksum(b[:60], castagnoli) == le.Uint32(b[60:]) {
		was = synced{le.Uint64(b), int64(le.Uint64(b[8:])), string(bytes.TrimRight(b[16:16+bootBytes], "\x00"))}
		ok = true
	}
	return &syncedMark{f, thisBoot()}, was, ok, nil
}

// thisBoot names the run of the machine; it is another after every boot.
func thisBoot() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if b = bytes.TrimSpace(b); err != nil || len(b) > bootBytes {
		return ""
	}
	return string(b)
}

func (m *syncedMark) write(segment uint64, end int64) error {
	b := make([]byte, syncedBytes)
	le := binary.LittleEndian
	le.PutUint64(b, segment)
	le.PutUint64(b[8:], uint64(end))
	copy(b[16:16+bootBytes], m.boot)
	le.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
	if _, err := m.f.WriteAt(b, 0); err != nil {
		return fmt.Errorf("noting what is synced: %w", err)
	}
	return nil
}

func (m *syncedMark) close() error {
	if err := m.f.Close(); err != nil {
		return fmt.Errorf("spool: closing %s: %w", m.f.Name(), err)
	}
	return nil
}

// promised tells up to where in a segment's bytes b someone may have been told
// that they are kept, when they hold no frame from from on. It may lie beyond
// b's end: then the disk has lost what it had synced. Where it can't be told, all
// of b counts.
func (m *syncedMark) promised(was synced, known bool, number uint64, b []byte, from int64) int64 {
	all := int64(len(b))
	if body, _, err := frame(b[from:]); err == nil && body[0] == kindFooter {
		return from // a footer whose trailer is cut off or damaged
	}
	if bytes.HasSuffix(b, seal) { // sealed: the trailer says where the records end
		if end := int64(binary.LittleEndian.Uint64(b[all-trailerBytes:])); end >= from && end < all {
			return end
		}
		return all
	}
	switch {
	case !known || number < was.segment:
		return all
	case was.boot == "" || was.boot != m.boot: // the note may be older than the last sync
		return max(all, was.endOf(number))
	}
	return max(from, was.endOf(number))
}

// endOf is the end that was noted of a segment that is the noted one or newer.
func (s synced) endOf(number uint64) int64 {
	if number > s.segment {
		return 0
	}
	return s.end
}
