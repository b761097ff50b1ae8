// Package topic is the contract for the log: the topics' and the group's
// names, the headers of their records, and how a dead letter names its origin.
package topic

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// The names an installation has unless it is told otherwise.
const (
	// Events holds the events: key is the idempotency key, value the event's
	// JSON, partitioned by Kafka's default (murmur2) partitioner.
	Events = "events"
	// DeadLetters holds what cannot become a row.
	DeadLetters = "events.dlq"
	// Control is compacted and holds requests to the partitions' owners and
	// their progress.
	Control = "events.control"
	// Group is the consumer group that writes to ClickHouse.
	Group = "sluice"
)

// Headers of a record of [Events]. The consumer trusts none of them; they are
// for people and tools that look at the log.
const (
	// HeaderEventID is the event id in its usual 36 characters.
	HeaderEventID = "event-id"
	// HeaderContentHash is the payload's hash, 32 hexadecimal digits.
	HeaderContentHash = "content-hash"
	// HeaderEdge is the name of the edge that took the event.
	HeaderEdge = "edge"
	// HeaderSchema names the schema that the event was validated by.
	HeaderSchema = "schema"
	// HeaderTraceparent is the W3C Trace Context of the request.
	HeaderTraceparent = "traceparent"
	// HeaderExtension begins the header of an attribute of a CloudEvent that is no
	// member of an event: ce_NAME, as in CloudEvents' binding for Kafka.
	HeaderExtension = "ce_"
	// HeaderForwardedFrom is the [Origin] of a record that the consumer moved
	// to the partition its key belongs to.
	HeaderForwardedFrom = "forwarded-from"
	// HeaderRedrivenFrom is the [Origin] of a record that became a dead letter
	// and was put through again.
	HeaderRedrivenFrom = "redriven-from"
	// HeaderReceivedAt is when the event was received, as [TimeFormat] writes it, of
	// a record that the consumer wrote again, or that an edge held on its disk for
	// long: a log keeps records by their timestamps, so these have that of their
	// writing.
	HeaderReceivedAt = "received-at"
)

// TimeFormat is how headers tell times, which are in UTC.
const TimeFormat = "2006-01-02T15:04:05.000Z"

// Headers of a record of [DeadLetters].
const (
	// DeadReason is one of the Reason constants.
	DeadReason = "reason"
	// DeadDetail says, for a person, what was wrong.
	DeadDetail = "detail"
	// DeadTopicID, DeadPartition and DeadOffset are the origin.
	DeadTopicID   = "topic_id"
	DeadPartition = "partition"
	DeadOffset    = "offset"
	// DeadTime is the origin's timestamp, RFC 3339 with milliseconds.
	DeadTime = "time"
	// DeadKey is the origin's key, absent when it had none.
	DeadKey = "key"
)

// Reasons why a record became a dead letter.
const (
	// ReasonEmpty: the record has no value (a tombstone).
	ReasonEmpty = "empty"
	// ReasonMalformed: the value is not an event under the contract's rules.
	ReasonMalformed = "malformed"
	// ReasonRefused: ClickHouse refuses a row made of it.
	ReasonRefused = "refused"
)

// Origin is where a record stands in the log: what identifies a record, as the
// tuple identifies an event. The topic's id rather than its name, since a topic
// deleted and made again begins anew at offset 0.
type Origin struct {
	TopicID   uuid.UUID
	Partition int32
	Offset    int64
}

// String writes the origin as topic id/partition/offset.
func (o Origin) String() string {
	return o.TopicID.String() + "/" + strconv.Itoa(int(o.Partition)) + "/" + strconv.FormatInt(o.Offset, 10)
}

// ParseOrigin reads what [Origin.String] wrote.
func ParseOrigin(s string) (Origin, error) {
	parts := strings.Split(s, "/")
	if len(parts) != 3 {
		return Origin{}, fmt.Errorf("origin %q: want topic id/partition/offset", s)
	}
	id, err := uuid.Parse(parts[0])
	if err != nil {
		return Origin{}, fmt.Errorf("origin %q: %w", s, err)
	}
	partition, err := strconv.ParseInt(parts[1], 10, 32)
	if err != nil {
		return Origin{}, fmt.Errorf("origin %q: %w", s, err)
	}
	offset, err := strconv.ParseInt(parts[2], 10, 64)
	if err != nil {
		return Origin{}, fmt.Errorf("origin %q: %w", s, err)
	}
	return Origin{TopicID: id, Partition: int32(partition), Offset: offset}, nil
}
