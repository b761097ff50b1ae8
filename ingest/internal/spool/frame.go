package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A frame is what stands in a segment file: the mark, the body's length, the
// CRC32C of length and body, the body. All numbers are little-endian.
//
// The mark holds two bytes that no UTF-8 text has, so it stands in no event: a
// reader that has lost its place finds the next frame by it, and a sender cannot
// forge one.
const (
	frameHeadBytes = 12
	// maxBodyBytes bounds a frame's body: four times the largest record the log
	// takes. A length beyond it is damage.
	maxBodyBytes = 8 << 20
)

var (
	mark       = []byte{0xFF, 'S', 'L', 0xFE}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// Kinds of frames: the first byte of the body.
const (
	kindRecord = 1
	kindFooter = 2
)

var (
	// errShort: the bytes end before the frame does.
	errShort = errors.New("the frame is cut off")
	// errDamaged: these bytes are not a frame.
	errDamaged = errors.New("the frame is damaged")
)

// beginFrame appends a frame's head; endFrame fills it in once the body stands.
func beginFrame(dst []byte) []byte {
	dst = append(dst, mark...)
	return append(dst, 0, 0, 0, 0, 0, 0, 0, 0)
}

func endFrame(dst []byte, at int) []byte {
	body := dst[at+frameHeadBytes:]
	binary.LittleEndian.PutUint32(dst[at+4:], uint32(len(body)))
	binary.LittleEndian.PutUint32(dst[at+8:], sum(dst[at+4:at+8], body))
	return dst
}

func sum(length, body []byte) uint32 {
	return crc32.Update(crc32.Checksum(length, castagnoli), castagnoli, body)
}

// appendRecord appends r's frame: key, value, headers and timestamp. A nil key
// or value is read back as an empty one.
func appendRecord(dst []byte, r *kgo.Record) []byte {
	at := len(dst)
	le := binary.LittleEndian
	dst = append(beginFrame(dst), kindRecord)
	dst = le.AppendUint64(dst, uint64(r.Timestamp.UnixNano()))
	dst = le.AppendUint32(dst, uint32(len(r.Key)))
	dst = le.AppendUint32(dst, uint32(len(r.Value)))
	dst = le.AppendUint32(dst, uint32(len(r.Headers)))
	for _, h := range r.Headers {
		dst = le.AppendUint32(dst, uint32(len(h.Key)))
		dst = le.AppendUint32(dst, uint32(len(h.Value)))
	}
	dst = append(append(dst, r.Key...), r.Value...)
	for _, h := range r.Headers {
		dst = append(append(dst, h.Key...), h.Value...)
	}
	return endFrame(dst, at)
}

// frameBytes is the length of r's frame.
func frameBytes(r *kgo.Record) int64 {
	n := frameHeadBytes + 1 + 8 + 4 + 4 + 4 + len(r.Key) + len(r.Value)
	for i := range r.Headers {
		n += 8 + len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
	return int64(n)
}

// frame returns the body of the frame that b begins with, and the frame's
// length. errShort means that b may be the beginning of one.
func frame(b []byte) (body []byte, n int, err error) {
	if len(b) < frameHeadBytes {
		if bytes.HasPrefix(mark, b[:min(len(b), len(mark))]) || bytes.HasPrefix(b, mark) {
			return nil, 0, errShort
		}
		return nil, 0, errDamaged
	}
	length := binary.LittleEndian.Uint32(b[4:])
	if !bytes.HasPrefix(b, mark) || length == 0 || length > maxBodyBytes {
		return nil, 0, errDamaged
	}
	n = frameHeadBytes + int(length)
	if len(b) < n {
		return nil, n, errShort
	}
	body = b[frameHeadBytes:n]
	if sum(b[4:8], body) != binary.LittleEndian.Uint32(b[8:]) {
		return nil, 0, errDamaged
	}
	return body, n, nil
}

// parseRecord reads a record frame's body. The record refers to body's memory.
func parseRecord(body []byte) (*kgo.Record, error) {
	const fixed = 1 + 8 + 4 + 4 + 4
	if len(body) < fixed || body[0] != kindRecord {
		return nil, errDamaged
	}
	le := binary.LittleEndian
	at := int64(le.Uint64(body[1:]))
	key, value, headers := int64(le.Uint32(body[9:])), int64(le.Uint32(body[13:])), int64(le.Uint32(body[17:]))
	lengths := body[fixed:]
	if headers*8 > int64(len(lengths)) {
		return nil, errDamaged
	}
	rest := lengths[headers*8:]
	take := func(n int64) []byte {
		out := rest[:n:n]
		rest = rest[n:]
		return out
	}
	if key+value > int64(len(rest)) {
		return nil, errDamaged
	}
	r := &kgo.Record{Timestamp: time.Unix(0, at), Key: take(key), Value: take(value)}
	if headers > 0 {
		r.Headers = make([]kgo.RecordHeader, headers)
	}
	for i := range r.Headers {
		k, v := int64(le.Uint32(lengths[i*8:])), int64(le.Uint32(lengths[i*8+4:]))
		if k+v > int64(len(rest)) {
			return nil, errDamaged
		}
		r.Headers[i] = kgo.RecordHeader{Key: string(take(k)), Value: take(v)}
	}
	if len(rest) > 0 {
		return nil, errDamaged
	}
	return r, nil
}

// resync returns where in b, behind its first byte, the next whole frame begins,
// -1 when there is none.
func resync(b []byte) int {
	for at := 1; at < len(b); at++ {
		i := bytes.Index(b[at:], mark)
		if i < 0 {
			return -1
		}
		at += i
		if _, _, err := frame(b[at:]); err == nil {
			return at
		}
	}
	return -1
}
