// Package event is the contract for one telemetry event: what it consists of,
// what makes two of them the same, how it is written on the wire and in the
// log, and which faults a malformed one has.
//
// The package is pure: it knows no HTTP, no Kafka and no ClickHouse. The edge
// and the consumer both decode with it, so that what one accepts the other
// accepts too.
package event

import "time"

// Event is one validated telemetry event.
type Event struct {
	// Source, EventType and ActorID are the first three parts of the tuple:
	// UTF-8, without NUL, 1 to [Limits.FieldBytes] bytes.
	Source, EventType, ActorID string
	// OccurredAt is the tuple's fourth part, in UTC with nanoseconds, between
	// [Earliest] and [Latest].
	OccurredAt time.Time
	// ClientEventID is the sender's own name for the event, "" when it gave
	// none. It is no part of the event's identity.
	ClientEventID string
	// Payload is the exact text of a JSON object, as it was received. It may
	// share memory with the bytes it was decoded from.
	Payload []byte
}

// Names of an event's members, matched exactly.
const (
	MemberSource        = "source"
	MemberEventType     = "event_type"
	MemberActorID       = "actor_id"
	MemberOccurredAt    = "occurred_at"
	MemberPayload       = "payload"
	MemberClientEventID = "client_event_id"
)

// Limits bound what [Decoder.Decode] accepts.
type Limits struct {
	// FieldBytes is the most bytes that each of source, event_type, actor_id
	// and client_event_id may have after unescaping. Default 512.
	FieldBytes int
	// Depth is how deep an event may be nested: the event itself is level 1,
	// its payload level 2. Default 128.
	Depth int
	// MaxAhead is how far occurred_at may lie after the time given to Decode.
	// It is not checked when that time is zero. Default 5 minutes.
	MaxAhead time.Duration
	// MaxAge is how far occurred_at may lie before the time given to Decode;
	// zero means as old as [Earliest]. Default zero.
	MaxAge time.Duration
}

// DefaultLimits are the limits an installation has unless it is told otherwise.
func DefaultLimits() Limits {
	return Limits{FieldBytes: 512, Depth: 128, MaxAhead: 5 * time.Minute}
}

// Ceiling are the limits of the log itself: what a record may be at most to
// become a row, whatever the edge that wrote it was configured to. An edge may
// be narrower, never wider. They belong to [RuleVersion].
func Ceiling() Limits {
	return Limits{FieldBytes: 4096, Depth: 256}
}

// RuleVersion numbers the rules by which a record can become a row (this
// package's decoding under [Ceiling], the key, the payload's hash, what a batch's
// hash is made of). It is recorded with every batch, and must grow when any of them
// changes. Since 2 a batch's hash is of events' ids and payload hashes; it was of
// the records' bytes.
const RuleVersion = 2

// Earliest and Latest are the first and the last instant a DateTime64(9) of
// ClickHouse can hold
// (https://clickhouse.com/docs/sql-reference/data-types/datetime64).
var (
	Earliest = time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC)
	Latest   = time.Date(2262, 4, 11, 23, 47, 16, 0, time.UTC)
)

// AppendJSON appends e as the JSON object that is a record's value in the log:
// the members in a fixed order, occurred_at canonical, the payload as it is.
func (e *Event) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"source":`...)
	dst = appendString(dst, e.Source)
	dst = append(dst, `,"event_type":`...)
	dst = appendString(dst, e.EventType)
	dst = append(dst, `,"actor_id":`...)
	dst = appendString(dst, e.ActorID)
	dst = append(dst, `,"occurred_at":"`...)
	dst = AppendTime(dst, e.OccurredAt)
	dst = append(dst, '"')
	if e.ClientEventID != "" {
		dst = append(dst, `,"client_event_id":`...)
		dst = appendString(dst, e.ClientEventID)
	}
	dst = append(dst, `,"payload":`...)
	dst = append(dst, e.Payload...)
	return append(dst, '}')
}
