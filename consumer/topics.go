package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/deploy/service"
)

func topicsCommand() *cobra.Command {
	topics := &cobra.Command{Use: "topics", Short: "Create, describe and grow the topics that Sluice stands on"}
	topics.AddCommand(&cobra.Command{
		Use:   "ensure",
		Short: "Create the topics that are missing; what exists is left as it is",
		Long: `ensure creates those of the topics kafka.topic, kafka.dead_letters and kafka.control
that are missing, as topics.partitions, topics.replication and topics.retention say,
and prints of each whether it was created or exists. What exists is left as it is:
"topics grow" adds partitions, and the doctor says what else is wrong.

Exit status: 0 all are there, 2 it could not be done.`,
		Example: "  consumer topics ensure --topics.partitions 12 --topics.replication 3",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load(cmd)
			if err != nil {
				return err
			}
			log, err := service.NewLogger(cmd.ErrOrStderr(), cfg.Log)
			if err != nil {
				return err
			}
			client, err := kgo.NewClient(cfg.Kafka.Options(log)...)
			if err != nil {
				return err
			}
			defer client.Close()
			return ensureTopics(cmd.Context(), kadm.NewClient(client), cfg, cmd.OutOrStdout())
		},
	})
	topics.AddCommand(topicsDescribeCommand(), topicsGrowCommand())
	return topics
}

// eventsMaxBytes holds an event of 1 MiB with its key, headers and batch frame;
// a dead letter adds headers to the largest record.
const (
	eventsMaxBytes      = 2 << 20
	deadLettersMaxBytes = 4 << 20
)

func ensureTopics(ctx context.Context, admin *kadm.Client, cfg config, w io.Writer) error {
	retention := strconv.FormatInt(cfg.Topics.Retention.Milliseconds(), 10)
	want := []struct {
		name       string
		partitions int32
		config     map[string]string
	}{
		{cfg.Kafka.Topic, cfg.Topics.Partitions, map[string]string{
			"cleanup.policy": "delete", "retention.ms": retention, "max.message.bytes": strconv.Itoa(eventsMaxBytes),
		}},
		// Dead letters are kept until somebody has dealt with them.
		{cfg.Kafka.DeadLetters, cfg.Topics.Partitions, map[string]string{
			"cleanup.policy": "delete", "retention.ms": "-1", "max.message.bytes": strconv.Itoa(deadLettersMaxBytes),
		}},
		{cfg.Kafka.Control, 1, map[string]string{"cleanup.policy": "compact"}},
	}
	for _, t := range want {
		values := map[string]*string{}
		for k, v := range t.config {
			values[k] = &v
		}
		_, err := admin.CreateTopic(ctx, t.partitions, cfg.Topics.Replication, values, t.name)
		switch {
		case errors.Is(err, kerr.TopicAlreadyExists):
			fmt.Fprintf(w, "%-16s exists\n", t.name)
		case err != nil:
			return fmt.Errorf("creating the topic %s: %w", t.name, err)
		default:
			fmt.Fprintf(w, "%-16s created, %d partitions\n", t.name, t.partitions)
		}
	}
	return awaitTopics(ctx, admin, cfg.Kafka.Topic, cfg.Kafka.DeadLetters, cfg.Kafka.Control)
}

// topicsBound is how long brokers may take to hear of a topic that was created.
const topicsBound = 30 * time.Second

// awaitTopics waits until the brokers that are asked know of topics, and of a leader for
// each of their partitions: one that was created a moment ago is not known everywhere,
// and a consumer that is started then would be told that there is none.
func awaitTopics(ctx context.Context, admin *kadm.Client, names ...string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, topicsBound, fmt.Errorf("the brokers do not know of the topics within %s", topicsBound))
	defer cancel()
	for {
		err := topicsKnown(ctx, admin, names)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func topicsKnown(ctx context.Context, admin *kadm.Client, names []string) error {
	topics, err := admin.ListTopics(ctx, names...)
	if err != nil {
		return err
	}
	for _, name := range names {
		topic, ok := topics[name]
		if !ok || len(topic.Partitions) == 0 {
			return fmt.Errorf("the topic %s is not there yet", name)
		}
		if topic.Err != nil {
			return fmt.Errorf("the topic %s: %w", name, topic.Err)
		}
		for _, p := range topic.Partitions {
			if p.Leader < 0 {
				return fmt.Errorf("partition %d of %s has no leader", p.Partition, name)
			}
		}
	}
	return nil
}
