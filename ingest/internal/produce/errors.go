package produce

import (
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Why records were not sent at all.
var (
	// ErrFull means that the bound on what is held was reached.
	ErrFull = errors.New("the buffer of unacknowledged records is full")
	// ErrAway means that the log is known to be out of reach.
	ErrAway = errors.New("the log cannot be reached")
	// ErrStopped means that the producer is stopping or has stopped.
	ErrStopped = errors.New("the producer has stopped")
)

// ErrNoAck means that the wait ended before the acknowledgement. The record may
// be written yet.
var ErrNoAck = errors.New("no acknowledgement in time")

// Failure is returned when not every record was acknowledged.
type Failure struct {
	// Errs has one error for each record, in their order; nil means that this
	// one was acknowledged. Any other may be in the log or not.
	Errs []error
	// Settled tells that the fate of every record is known, so that nothing
	// refers to their memory any more. Otherwise it must be left alone.
	Settled bool
}

func (f *Failure) Error() string {
	failed, first := 0, error(nil)
	for _, err := range f.Errs {
		if err != nil {
			if failed++; first == nil {
				first = err
			}
		}
	}
	return fmt.Sprintf("%d of %d records were not acknowledged, the first: %v", failed, len(f.Errs), first)
}

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

// reason is the closed set of labels that failures are counted by.
func reason(err error) string {
	switch {
	case errors.Is(err, ErrFull):
		return "buffer_full"
	case errors.Is(err, ErrAway):
		return "away"
	case errors.Is(err, ErrStopped), errors.Is(err, kgo.ErrClientClosed):
		return "stopped"
	case errors.Is(err, ErrNoAck), errors.Is(err, kgo.ErrRecordTimeout), errors.Is(err, kerr.RequestTimedOut):
		return "timeout"
	case Permanent(err):
		return "too_large"
	case errors.Is(err, kerr.NotEnoughReplicas), errors.Is(err, kerr.NotEnoughReplicasAfterAppend):
		return "replicas"
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID):
		return "no_topic"
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed):
		return "not_allowed"
	}
	return "other"
}

var reasons = []string{
	"buffer_full", "away", "stopped", "timeout", "too_large", "replicas", "no_topic", "not_allowed", "other",
}
