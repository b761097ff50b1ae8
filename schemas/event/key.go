package event

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

// AppendKey appends the idempotency key of e: the tuple as one string,
// source:event_type:actor_id:occurred_at, in which '%' and ':' of the first
// three are written %25 and %3A and the time is canonical. Two events have the
// same key exactly when they have the same tuple: see [ParseKey], its inverse.
func (e *Event) AppendKey(dst []byte) []byte {
	dst = appendEscaped(dst, e.Source)
	dst = append(dst, ':')
	dst = appendEscaped(dst, e.EventType)
	dst = append(dst, ':')
	dst = appendEscaped(dst, e.ActorID)
	dst = append(dst, ':')
	return AppendTime(dst, e.OccurredAt)
}

// Key is [Event.AppendKey] as a string.
func (e *Event) Key() string { return string(e.AppendKey(nil)) }

func appendEscaped(dst []byte, s string) []byte {
	from := 0 // fields are short: one loop over them is faster than two searches
	for i := range len(s) {
		switch s[i] {
		case '%':
			dst = append(append(dst, s[from:i]...), "%25"...)
		case ':':
			dst = append(append(dst, s[from:i]...), "%3A"...)
		default:
			continue
		}
		from = i + 1
	}
	return append(dst, s[from:]...)
}

// ParseKey takes a key apart again. It accepts exactly what [Event.AppendKey]
// writes, so a key that parses is the only spelling of its tuple.
func ParseKey(key string) (source, eventType, actorID string, occurredAt time.Time, err error) {
	parts := strings.SplitN(key, ":", 4)
	if len(parts) != 4 {
		return "", "", "", time.Time{}, fmt.Errorf("key %q: want source:event_type:actor_id:occurred_at", key)
	}
	for i := range 3 {
		if parts[i], err = unescape(parts[i]); err != nil {
			return "", "", "", time.Time{}, fmt.Errorf("key %q: %w", key, err)
		}
	}
	occurredAt, msg := ParseTime(parts[3])
	if msg != "" || string(AppendTime(nil, occurredAt)) != parts[3] {
		return "", "", "", time.Time{}, fmt.Errorf("key %q: the time must be UTC with nine digits, as in 2026-01-02T03:04:05.000000000Z", key)
	}
	return parts[0], parts[1], parts[2], occurredAt, nil
}

func unescape(s string) (string, error) {
	if !strings.Contains(s, "%") {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] != '%':
			b.WriteByte(s[i])
			continue
		case strings.HasPrefix(s[i:], "%25"):
			b.WriteByte('%')
		case strings.HasPrefix(s[i:], "%3A"):
			b.WriteByte(':')
		default:
			return "", fmt.Errorf("%% must be followed by 25 or 3A at byte %d of %q", i, s)
		}
		i += 2
	}
	return b.String(), nil
}

// namespace sets event ids apart from other name-based UUIDs.
var namespace = uuid.MustParse("6f0b6b0e-9f57-8c1d-a2c4-53a0d1c9e7f3")

// IDOf derives the event id from an idempotency key: a UUID of version 8 made
// of the SHA-256 of a namespace and the key, as RFC 9562, appendix B.2, shows
// it. The same event has the same id everywhere, with no lookup. Its 122 free
// bits count as certain: an equal id is an equal key.
func IDOf(key []byte) uuid.UUID {
	var buf [256]byte
	return idOf(append(append(buf[:0], namespace[:]...), key...))
}

// idOf is [IDOf] of a key with the namespace before it.
func idOf(named []byte) uuid.UUID {
	sum := sha256.Sum256(named)
	id := uuid.UUID(sum[:16])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id
}

// ID is [IDOf] of the event's key.
func (e *Event) ID() uuid.UUID {
	var buf [256]byte
	return idOf(e.AppendKey(append(buf[:0], namespace[:]...)))
}

// Namer makes the keys and ids of many events in the same memory. It is not for
// concurrent use.
type Namer struct{ named []byte }

// Name returns an event's id and its key, which stands until the next call.
func (n *Namer) Name(e *Event) (id uuid.UUID, key []byte) {
	n.named = e.AppendKey(append(n.named[:0], namespace[:]...))
	return idOf(n.named), n.named[len(namespace):]
}

// Partition is the partition a key belongs to among count of them: Kafka's
// default partitioner, toPositive(murmur2(key)) % count, as in
// org.apache.kafka.clients.producer.internals.BuiltInPartitioner, librdkafka's
// murmur2_random for keyed records, and ClickHouse's kafkaMurmurHash.
func Partition(key []byte, count int32) int32 {
	return int32(murmur2(key)&0x7fffffff) % count
}

// murmur2 is Kafka's variant: 32 bits, seed 0x9747b28c.
func murmur2(b []byte) uint32 {
	const m, r = 0x5bd1e995, 24
	h := uint32(0x9747b28c) ^ uint32(len(b))
	for len(b) >= 4 {
		k := binary.LittleEndian.Uint32(b) * m
		k = (k ^ k>>r) * m
		h = h*m ^ k
		b = b[4:]
	}
	switch len(b) {
	case 3:
		h ^= uint32(b[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(b[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(b[0])) * m
	}
	h = (h ^ h>>13) * m
	return h ^ h>>15
}
