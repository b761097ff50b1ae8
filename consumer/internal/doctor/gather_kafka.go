package doctor

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"sluice/consumer/internal/intent"
)

// GatherKafka asks the cluster about the topics, brokers and group of s. It
// returns when all is known or ctx ends.
func GatherKafka(ctx context.Context, admin *kadm.Client, s Setup) Kafka {
	k := Kafka{Topics: map[string]Known[Topic]{}, Configs: map[string]Known[map[string]string]{}, Brokers: map[int32]Known[map[string]string]{}}
	if err := gatherKafka(ctx, admin, s, &k); err != nil {
		return Kafka{Away: err}
	}
	return k
}

// denied is err if the cluster's answer is that it does not tell us, which
// asking again won't change; else nil.
func denied(err error) error {
	var ke *kerr.Error
	if errors.As(err, &ke) && !ke.Retriable {
		return fmt.Errorf("Kafka says %s: %s", ke.Message, ke.Description)
	}
	return nil
}

func gatherKafka(ctx context.Context, admin *kadm.Client, s Setup, k *Kafka) error {
	meta, err := admin.Metadata(ctx, s.Topic, s.DeadLetters, s.Control)
	if err != nil {
		return fmt.Errorf("the topics: %w", err)
	}
	var there []string
	for name, t := range meta.Topics {
		switch {
		case errors.Is(t.Err, kerr.UnknownTopicOrPartition):
			continue
		case t.Err != nil && denied(t.Err) == nil:
			return fmt.Errorf("the topic %s: %w", name, t.Err)
		case t.Err != nil:
			k.Topics[name] = Known[Topic]{Err: denied(t.Err)}
		default:
			topic := Topic{ID: uuid.UUID(t.ID), Partitions: int32(len(t.Partitions))}
			for _, p := range t.Partitions {
				if topic.Replicas == 0 || len(p.Replicas) < topic.Replicas {
					topic.Replicas = len(p.Replicas)
				}
			}
			k.Topics[name] = Known[Topic]{Value: topic}
		}
		there = append(there, name)
	}
	if err := topicConfigs(ctx, admin, there, k); err != nil {
		return err
	}
	if err := brokerConfigs(ctx, admin, meta.Brokers.NodeIDs(), k); err != nil {
		return err
	}
	if err := groups(ctx, admin, k); err != nil {
		return err
	}
	return commits(ctx, admin, s, k)
}

func groups(ctx context.Context, admin *kadm.Client, k *Kafka) error {
	all, err := admin.ListGroups(ctx)
	switch {
	case err != nil && denied(err) != nil:
		k.Groups.Err = denied(err)
		return nil //nolint:nilerr // that they are hidden is the fact
	case err != nil:
		return fmt.Errorf("the groups: %w", err)
	}
	for _, g := range all.Sorted() {
		if g.State != "Empty" && g.State != "Dead" {
			k.Groups.Value = append(k.Groups.Value, g.Group)
		}
	}
	return nil
}

func topicConfigs(ctx context.Context, admin *kadm.Client, topics []string, k *Kafka) error {
	if len(topics) == 0 {
		return nil // asked for none, all would be described
	}
	all, err := admin.DescribeTopicConfigs(ctx, topics...)
	if err != nil && denied(err) == nil {
		return fmt.Errorf("the topics' configurations: %w", err)
	}
	for _, t := range topics {
		k.Configs[t] = Known[map[string]string]{Err: errors.Join(errors.New("the brokers do not describe the topic"), err)}
	}
	for _, c := range all {
		values, err := configOf(c)
		if err != nil {
			return fmt.Errorf("the configuration of the topic %s: %w", c.Name, err)
		}
		k.Configs[c.Name] = values
	}
	return nil
}

func brokerConfigs(ctx context.Context, admin *kadm.Client, ids []int32, k *Kafka) error {
	for _, id := range ids {
		k.Brokers[id] = Known[map[string]string]{Err: fmt.Errorf("broker %d does not describe itself", id)}
		all, err := admin.DescribeBrokerConfigs(ctx, id)
		switch {
		case err != nil && denied(err) != nil:
			k.Brokers[id] = Known[map[string]string]{Err: denied(err)}
			continue
		case err != nil && ctx.Err() == nil:
			// One broker that is down is no reason to doubt the others.
			k.Brokers[id] = Known[map[string]string]{Err: fmt.Errorf("broker %d does not answer: %w", id, err)}
			continue
		case err != nil:
			return fmt.Errorf("the configuration of broker %d: %w", id, err)
		}
		for _, c := range all {
			if c.Name != strconv.Itoa(int(id)) {
				continue
			}
			values, err := configOf(c)
			if err != nil {
				return fmt.Errorf("the configuration of broker %d: %w", id, err)
			}
			k.Brokers[id] = values
		}
	}
	return nil
}

func configOf(c kadm.ResourceConfig) (Known[map[string]string], error) {
	if c.Err != nil {
		if why := denied(c.Err); why != nil {
			return Known[map[string]string]{Err: why}, nil //nolint:nilerr // that it is hidden is the fact
		}
		return Known[map[string]string]{}, c.Err
	}
	values := map[string]string{}
	for _, v := range c.Configs {
		if v.Value != nil {
			values[v.Key] = *v.Value
		}
	}
	return Known[map[string]string]{Value: values}, nil
}

func commits(ctx context.Context, admin *kadm.Client, s Setup, k *Kafka) error {
	offsets, err := admin.FetchOffsets(ctx, s.Group)
	switch {
	case errors.Is(err, kerr.GroupIDNotFound):
		return nil // no group, no commit
	case err != nil && denied(err) != nil:
		k.Commits.Err = denied(err)
		return nil //nolint:nilerr // that they are hidden is the fact
	case err != nil:
		return fmt.Errorf("the commits of the group %s: %w", s.Group, err)
	}
	for p, o := range offsets[s.Topic] {
		in, ours, err := intent.Parse(o.Metadata)
		if o.Err != nil || err != nil || !ours {
			continue // the owner, and "consumer status", say what they make of it
		}
		k.Commits.Value = append(k.Commits.Value, Commit{Partition: p, TopicID: in.TopicID, Partitions: in.Partitions})
	}
	return nil
}
