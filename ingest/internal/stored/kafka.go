package stored

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/schemas/commit"
)

// Kafka is the group's commits as the brokers hold them.
type Kafka struct {
	admin        *kadm.Client
	group, topic string
}

// NewKafka returns the commits of group for topic, asked for through client.
func NewKafka(client *kgo.Client, group, topic string) *Kafka {
	return &Kafka{admin: kadm.NewClient(client), group: group, topic: topic}
}

// Look is [Source]'s.
func (k *Kafka) Look(ctx context.Context) (map[int32]Commit, error) {
	topics, err := k.admin.ListTopics(ctx, k.topic)
	if err != nil {
		return nil, fmt.Errorf("asking for the topic %s: %w", k.topic, err)
	}
	detail := topics[k.topic]
	if detail.Err != nil {
		return nil, fmt.Errorf("the topic %s: %w", k.topic, detail.Err)
	}
	offsets, err := k.admin.FetchOffsets(ctx, k.group)
	switch {
	case errors.Is(err, kerr.GroupIDNotFound): // no consumer has run yet
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("asking for the offsets of the group %s: %w", k.group, err)
	}
	return ofTopic(offsets[k.topic], uuid.UUID(detail.ID)), nil
}

func ofTopic(offsets map[int32]kadm.OffsetResponse, topic uuid.UUID) map[int32]Commit {
	out := make(map[int32]Commit, len(offsets))
	for partition, o := range offsets {
		if mark, ours := commit.Parse(o.Metadata); o.Err == nil && ours && mark.Topic == topic {
			out[partition] = Commit{Mark: mark, Next: o.At}
		}
	}
	return out
}
