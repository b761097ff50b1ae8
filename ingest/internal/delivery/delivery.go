// Package delivery is what the parts of the edge hand to each other: an event on
// its way to the log, and what became of it. A chain of Logs stands between the
// HTTP interface and Kafka; each passes on what it does not settle itself.
package delivery

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/schemas/event"
)

// Status is what the edge can promise of an event it has accepted.
type Status uint8

const (
	// Queued: the log has acknowledged the record; its partition and offset
	// are set.
	Queued Status = iota
	// Spooled: the record is on this edge's disk and goes to the log later;
	// its partition and offset mean nothing.
	Spooled
	// Stored: the record is in the log and its fate is decided; what there is
	// of it can be queried.
	Stored
)

// String is the status as answers have it.
func (s Status) String() string {
	switch s {
	case Spooled:
		return "spooled"
	case Stored:
		return "stored"
	}
	return "queued"
}

// Delivery is one event on its way to the log, and what became of it. The sender
// sets Record, ID and Hash; [Log.Send] the rest.
type Delivery struct {
	// Record is what is written. A Log may set its partition and offset, move
	// its timestamp to a later moment before it is sent, and changes nothing
	// else.
	Record kgo.Record
	// ID is the event id: equal ids are equal keys.
	ID uuid.UUID
	// Hash is the payload's: equal hashes are equal payloads.
	Hash event.Hash

	// Err is why the event was not accepted; nil when it was, and then Status
	// tells what is promised. Whatever Err is, the record may be in the log.
	Err    error
	Status Status
	// Repeat: the log is known to hold an earlier record of the same key and
	// payload, so this one was not written. The record's partition and offset
	// are the earlier one's.
	Repeat bool
	// Conflict: the log is known to hold an earlier record of the same key and
	// another payload. This one was written all the same.
	Conflict bool
}

// Log takes deliveries. Implementations are safe for concurrent use.
type Log interface {
	// Send writes the records of ds, in order, waits until it is known what
	// became of each, and says so in each Delivery. ctx bounds the wait, not
	// the writing: a record once sent is tried on, whoever leaves. Deliveries
	// must not be in another Send at the same time.
	//
	// It returns whether the deliveries are settled. When they are not, someone
	// still refers to the memory of their records, which must be left alone for
	// good; what is said of each stands and may be read.
	Send(ctx context.Context, ds []*Delivery) (settled bool)
}

// Why a record was not accepted. Only [ErrNoAck], and what the log itself
// answered, leave open whether it was written.
var (
	// ErrFull: the bound on what is held was reached.
	ErrFull = errors.New("the room for records that are not acknowledged is full")
	// ErrSpoolFull: the log does not take it now, and the spool has no room.
	ErrSpoolFull = errors.New("the spool is full")
	// ErrAway: the log is known to be out of reach.
	ErrAway = errors.New("the log cannot be reached")
	// ErrStopped: the edge is stopping.
	ErrStopped = errors.New("the edge is stopping")
	// ErrNoAck: the wait ended before the acknowledgement.
	ErrNoAck = errors.New("no acknowledgement in time")
)

// LaterError is an error of which it is known when another try makes sense. It
// overrides what a problem's Retry-After says by default.
type LaterError struct {
	Err   error
	After time.Duration // rounded up to whole seconds, at least one
}

func (e *LaterError) Error() string { return fmt.Sprintf("%v; try again in %v", e.Err, e.After) }

// Unwrap returns the error itself.
func (e *LaterError) Unwrap() error { return e.Err }

// Permanent tells whether err means that the log will never take this record,
// so that sending it again is of no use. There is one such case: it is too
// large. Everything else is the state of the log, of its access rules or of
// ourselves, which can change:
//
//   - timeouts, lost connections, unknown topics, missing leaders or replicas;
//   - refused authorization, which an operator grants;
//   - INVALID_RECORD and CORRUPT_MESSAGE, which speak of the batch as we built
//     it or as it arrived, and of a topic's rules, not of what the event says.
func Permanent(err error) bool {
	return errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge)
}

// Fail says of every delivery that it was not accepted because of err.
func Fail(ds []*Delivery, err error) {
	for _, d := range ds {
		d.Err = err
	}
}
