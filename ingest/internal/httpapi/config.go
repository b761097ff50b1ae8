// Package httpapi is the edge's HTTP interface: its routes, what they take and
// what they answer.
package httpapi

import (
	"errors"
	"fmt"
	"time"

	"sluice/ingest/internal/admission"
	"sluice/ingest/internal/cloudevents"
	"sluice/ingest/internal/decode"
	"sluice/ingest/internal/guard"
	"sluice/ingest/internal/produce"
	"sluice/schemas/event"
)

// Config bounds what is taken.
type Config struct {
	// Event bounds each event.
	Event event.Limits
	// EventBytes is the most bytes an event's text may have. Default 1 MiB.
	EventBytes int64
	// BatchItems is the most events in a batch. Default 100,000.
	BatchItems int
	// BodyBytes is the most bytes the body of a batch may have, as sent and
	// after decoding. Default 64 MiB.
	BodyBytes int64
	// InFlightBytes bounds what all requests in flight hold together: bodies,
	// records made of them, answers. Default 512 MiB.
	InFlightBytes int64
	// Edge is the name that records carry of who took them. Default "": none.
	Edge string
	// Guard says who may send what. Default nil: everyone everything.
	Guard *guard.Guard
	// Limiter bounds how much is in work at a time. Default nil: memory alone
	// does.
	Limiter *admission.Limiter
	// SyncWait is how long an answer waits at most for its events to be stored,
	// in sync mode or as a request prefers; after it they are answered as what
	// they are by then. At least 1s. Default 5s.
	SyncWait time.Duration
}

// DefaultConfig are the limits an edge has unless it is told otherwise.
func DefaultConfig() Config {
	return Config{
		Event:         event.DefaultLimits(),
		EventBytes:    1 << 20,
		BatchItems:    100_000,
		BodyBytes:     64 << 20,
		InFlightBytes: 512 << 20,
		SyncWait:      5 * time.Second,
	}
}

// recordRoomBytes is what a record may have beyond its event's text: its key,
// its headers, the batch around it.
const recordRoomBytes = 64 << 10

// smallestBytes is what even a small batch can hold while its body moves from
// one buffer to the next.
const smallestBytes = 1 << 20

// Validate tells what is wrong: limits that contradict each other, or that are
// wider than the log's own ([event.Ceiling], [produce.BatchBytes]).
func (c Config) Validate() error {
	ceiling := event.Ceiling()
	// A body, as it moves to a larger buffer or is decoded, or the values and the
	// keys made of it, and each item's overhead.
	largest := 4*c.BodyBytes + int64(c.BatchItems)*itemOverheadBytes + smallestBytes
	switch {
	case c.Event.FieldBytes < 1 || c.Event.FieldBytes > ceiling.FieldBytes:
		return fmt.Errorf("field_bytes is %d, want 1 to %d: the log takes no more", c.Event.FieldBytes, ceiling.FieldBytes)
	case c.Event.Depth < 2 || c.Event.Depth > ceiling.Depth:
		return fmt.Errorf("depth is %d, want 2 to %d: the log takes no more", c.Event.Depth, ceiling.Depth)
	case c.Event.MaxAhead < 0 || c.Event.MaxAge < 0:
		return errors.New("max_ahead and max_age must not be negative; 0 leaves them unchecked")
	case c.EventBytes < 1 || c.EventBytes > produce.BatchBytes-recordRoomBytes:
		return fmt.Errorf("event_bytes is %d, want 1 to %d: a record of the log has room for no more", c.EventBytes, produce.BatchBytes-recordRoomBytes)
	case c.BatchItems < 1:
		return fmt.Errorf("batch_items is %d, want at least 1", c.BatchItems)
	case c.BodyBytes < c.EventBytes:
		return fmt.Errorf("body_bytes is %d, want at least event_bytes, %d", c.BodyBytes, c.EventBytes)
	case c.SyncWait < time.Second:
		return fmt.Errorf("sync_wait is %v, want at least 1s", c.SyncWait)
	case c.InFlightBytes < largest:
		return fmt.Errorf("in_flight_bytes is %d, want at least %d: what one batch of the size allowed can need", c.InFlightBytes, largest)
	}
	return nil
}

var (
	singleTypes = []string{decode.TypeJSON, cloudevents.TypeStructured}
	batchTypes  = []string{decode.TypeJSON, decode.TypeNDJSON, cloudevents.TypeBatch}
)
