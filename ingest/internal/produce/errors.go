package produce

import (
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/ingest/internal/delivery"
)

// reason is the closed set of labels that failures are counted by.
func reason(err error) string {
	switch {
	case errors.Is(err, delivery.ErrFull):
		return "buffer_full"
	case errors.Is(err, delivery.ErrAway):
		return "away"
	case errors.Is(err, delivery.ErrStopped), errors.Is(err, kgo.ErrClientClosed):
		return "stopped"
	case errors.Is(err, delivery.ErrNoAck), errors.Is(err, kgo.ErrRecordTimeout), errors.Is(err, kerr.RequestTimedOut):
		return "timeout"
	case delivery.Permanent(err):
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
