package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"
)

const (
	segmentSuffix = ".seg"
	// trailerBytes end a sealed segment: where its footer begins, and the seal.
	trailerBytes = 16
)

var seal = []byte("SLSEAL1\n")

// segment is one file of frames. What stands in it is known without reading it
// whole: from its footer once it is sealed, from having written it before.
type segment struct {
	number uint64
	path   string
	end    int64 // of the frames that are safe on the disk
	size   int64 // of the file
	seen   summary
	left   int  // records that the log has not acknowledged
	sealed bool // nothing more is written to it
	owed   int  // what of it must go aside and has not yet
	done   bool // out of the queue; only what is owed keeps the file
}

// summary is what a segment's footer says.
type summary struct {
	records int
	minTime int64    // the oldest record's, Unix nanoseconds
	hashes  []uint32 // of the records' keys, in their order; nil when not kept
}

func newSummary() summary { return summary{minTime: math.MaxInt64} }

func (s *summary) add(hash uint32, at int64) {
	s.records++
	s.hashes = append(s.hashes, hash)
	s.minTime = min(s.minTime, at)
}

// keyHash is what a key is remembered by.
func keyHash(key []byte) uint32 { return uint32(xxhash.Sum64(key)) }

func segmentName(number uint64) string { return fmt.Sprintf("%016x%s", number, segmentSuffix) }

func segmentNumber(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(digits) != 16 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 16, 64)
	return n, err == nil
}

// appendFooter appends the footer frame and the trailer of a segment whose
// frames end at end.
func appendFooter(dst []byte, s summary, end int64) []byte {
	le := binary.LittleEndian
	at := len(dst)
	dst = append(beginFrame(dst), kindFooter)
	dst = le.AppendUint32(dst, uint32(s.records))
	dst = le.AppendUint64(dst, uint64(s.minTime))
	for _, h := range s.hashes {
		dst = le.AppendUint32(dst, h)
	}
	dst = endFrame(dst, at)
	return append(le.AppendUint64(dst, uint64(end)), seal...)
}

func parseFooter(body []byte) (summary, bool) {
	const fixed = 1 + 4 + 8
	if len(body) < fixed || body[0] != kindFooter {
		return summary{}, false
	}
	le := binary.LittleEndian
	s := summary{records: int(le.Uint32(body[1:])), minTime: int64(le.Uint64(body[5:]))}
	rest := body[fixed:]
	if len(rest) != 4*s.records {
		return summary{}, false
	}
	s.hashes = make([]uint32, s.records)
	for i := range s.hashes {
		s.hashes[i] = le.Uint32(rest[4*i:])
	}
	return s, true
}

// readFooter reads a sealed segment's footer; ok is false when the segment is
// not sealed or its end is damaged.
func readFooter(f io.ReaderAt, size int64) (s summary, end int64, ok bool) {
	trailer := make([]byte, trailerBytes)
	if size < trailerBytes {
		return s, 0, false
	}
	if _, err := f.ReadAt(trailer, size-trailerBytes); err != nil || !bytes.Equal(trailer[8:], seal) {
		return s, 0, false
	}
	end = int64(binary.LittleEndian.Uint64(trailer))
	length := size - trailerBytes - end
	if end < 0 || length < frameHeadBytes || length > frameHeadBytes+maxBodyBytes {
		return s, 0, false
	}
	b := make([]byte, length)
	if _, err := f.ReadAt(b, end); err != nil {
		return s, 0, false
	}
	body, n, err := frame(b)
	if err != nil || int64(n) != length {
		return s, 0, false
	}
	s, ok = parseFooter(body)
	return s, end, ok
}

// scanned is what reading a whole segment found.
type scanned struct {
	summary
	end  int64 // behind the last whole frame, or what was promised behind it
	torn int64 // bytes behind it that are no frame: a write that was cut off
	gone int64 // bytes that were synced, and that the file has no more
}

// scan reads a segment that has no footer: one that was being written when the
// process ended, or one whose footer is damaged. It is read whole; a segment is
// a few megabytes.
func scan(b []byte) scanned {
	s := scanned{summary: newSummary()}
	at := 0
	for at < len(b) {
		body, n, err := frame(b[at:])
		if err == nil && body[0] == kindFooter {
			break
		}
		if err == nil {
			if r, rerr := parseRecord(body); rerr == nil {
				s.add(keyHash(r.Key), r.Timestamp.UnixNano())
			}
			at += n
			s.end = int64(at)
			continue
		}
		next := resync(b[at:])
		if next < 0 {
			break
		}
		at += next
	}
	s.torn = int64(len(b)) - s.end
	return s
}

// openSegment learns what stands in the segment at path, and cuts its end behind
// what anyone can have been told is kept, as promised tells of the segment's bytes
// and of where its last frame ends. What is promised and is no frame stays, as
// damage that the reader will meet.
func openSegment(path string, number uint64, promised func(b []byte, from int64) int64) (*segment, scanned, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, scanned{}, fmt.Errorf("spool: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, scanned{}, fmt.Errorf("spool: %w", err)
	}
	seg := &segment{number: number, path: path, size: info.Size(), sealed: true}
	if s, end, ok := readFooter(f, info.Size()); ok {
		seg.seen, seg.end, seg.left = s, end, s.records
		return seg, scanned{summary: s, end: end}, nil
	}
	b := make([]byte, info.Size())
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, scanned{}, fmt.Errorf("spool: reading %s: %w", path, err)
	}
	s := scan(b)
	whole := int64(len(b))
	told := promised(b, s.end)
	s.gone = max(0, told-whole)
	s.end = max(s.end, min(told, whole))
	s.torn = whole - s.end
	seg.seen, seg.end, seg.left, seg.size = s.summary, s.end, s.records, s.end
	if s.torn > 0 {
		if err := f.Truncate(s.end); err != nil {
			return nil, s, fmt.Errorf("spool: cutting the torn tail of %s: %w", path, err)
		}
	}
	return seg, s, nil
}
