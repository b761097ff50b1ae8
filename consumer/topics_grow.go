package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"sluice/consumer/internal/operations"
	"sluice/consumer/internal/replay"
)

func topicsDescribeCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "describe",
		Short: "Show the topics: partitions, replicas, what they hold, how long they keep it",
		Long: `describe shows the topics that Sluice stands on, and for the events topic by how many
partitions each partition's owner decides (its barrier in the journal): after the
topic has grown, all must say the new count.

Exit status: 0 shown, 1 a topic is missing, 2 it could not be told.`,
		Example: "  consumer topics describe",
		Args:    cobra.NoArgs,
		RunE: comparing(func(cmd *cobra.Command, t *tools) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), statusBound)
			defer cancel()
			all, err := t.describe(ctx)
			if err != nil {
				return err
			}
			if err := writeTopics(cmd.OutOrStdout(), all, asJSON); err != nil {
				return err
			}
			if slices.ContainsFunc(all, func(x topicLine) bool { return x.Missing }) {
				return exitError{1, fmt.Errorf("a topic is missing: \"consumer topics ensure\" creates it")}
			}
			return nil
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one line of JSON for each topic")
	return cmd
}

// topicLine is one topic's.
type topicLine struct {
	Topic      string    `json:"topic"`
	ID         uuid.UUID `json:"id"`
	Missing    bool      `json:"missing,omitempty"`
	Partitions int       `json:"partitions"`
	Replicas   int       `json:"replicas"`
	// Offsets is the sum over partitions of what lies between start and end.
	Offsets   int64  `json:"offsets"`
	Cleanup   string `json:"cleanup_policy"`
	Retention string `json:"retention_ms"`
	// Barriers are, by partition, the counts that owners decide by; of the events
	// topic only.
	Barriers map[int32]int32 `json:"barriers,omitempty"`
}

func (t *tools) describe(ctx context.Context) ([]topicLine, error) {
	admin := t.kafka.Admin()
	names := []string{t.cfg.Kafka.Topic, t.cfg.Kafka.DeadLetters, t.cfg.Kafka.Control}
	topics, err := admin.ListTopics(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("the topics: %w", err)
	}
	configs, err := admin.DescribeTopicConfigs(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("the topics' configurations: %w", err)
	}
	var out []topicLine
	for _, name := range names {
		x := topicLine{Topic: name}
		d, ok := topics[name]
		if !ok || d.Err != nil {
			x.Missing = true
			out = append(out, x)
			continue
		}
		x.ID, x.Partitions, x.Replicas = uuid.UUID(d.ID), len(d.Partitions), d.Partitions.NumReplicas()
		starts, err1 := admin.ListStartOffsets(ctx, name)
		ends, err2 := admin.ListEndOffsets(ctx, name)
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("where the topic %s begins and ends: %w", name, firstError(err1, err2))
		}
		for p, end := range ends[name] {
			if start, ok := starts.Lookup(name, p); ok && end.Err == nil && start.Err == nil {
				x.Offsets += end.Offset - start.Offset
			}
		}
		if c, err := configs.On(name, nil); err == nil && c.Err == nil {
			for _, v := range c.Configs {
				switch v.Key {
				case "cleanup.policy":
					x.Cleanup = v.MaybeValue()
				case "retention.ms":
					x.Retention = v.MaybeValue()
				}
			}
		}
		if name == t.cfg.Kafka.Topic {
			if x.Barriers, err = t.store.Barriers(ctx, x.ID); err != nil {
				return nil, err
			}
		}
		out = append(out, x)
	}
	return out, nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func writeTopics(w io.Writer, all []topicLine, asJSON bool) error {
	err := writeLines(w, all, asJSON, "TOPIC\tID\tPARTITIONS\tREPLICAS\tOFFSETS\tCLEANUP\tKEEPS", func(x topicLine) string {
		if x.Missing {
			return x.Topic + "\tmissing"
		}
		keeps := x.Retention
		if ms, err := strconv.ParseInt(x.Retention, 10, 64); err == nil && ms >= 0 {
			keeps = (time.Duration(ms) * time.Millisecond).String()
		} else if ms < 0 {
			keeps = "for ever"
		}
		return fmt.Sprintf("%s\t%s\t%d\t%d\t%d\t%s\t%s", x.Topic, x.ID, x.Partitions, x.Replicas, x.Offsets, x.Cleanup, keeps)
	})
	if err != nil || asJSON {
		return err
	}
	for _, x := range all {
		if behind := x.behind(x.Partitions); len(x.Barriers) > 0 && len(behind) > 0 {
			fmt.Fprintf(w, "partitions %s of %s do not decide by %d partitions yet\n", join(behind), x.Topic, x.Partitions)
		}
	}
	return nil
}

// behind are the partitions whose owners have not said that they decide by n.
func (x topicLine) behind(n int) []int32 {
	var out []int32
	for p := range int32(n) {
		if x.Barriers[p] < int32(n) {
			out = append(out, p)
		}
	}
	return out
}

// growing is how a topic grows.
type growing struct {
	to   int
	yes  bool
	wait time.Duration
}

func topicsGrowCommand() *cobra.Command {
	var how growing
	cmd := &cobra.Command{
		Use:   "grow --to N --yes",
		Short: "Add partitions to the events topic, in the order that keeps every event one row",
		Long: `grow adds partitions to the events topic while producers and consumers run. Keys move
when partitions are added; what lies in the wrong partition then is forwarded by its
owner. The steps:

  1  every partition has an owner that moves, and none is paused: a partition that
     stands still would hold all others up
  2  the partitions are added
  3  every owner journals that it decides by the new count, and decides nothing
     before all older ones have: progress is shown
  4  the balance adds up

Partitions can't be taken away again. Interrupted after step 2 it loses nothing: the
owners finish step 3 by themselves, and grow with the same count waits for them.

Exit status: 0 done; 1 not all owners decide by the new count within --wait, who
does not is named, and they go on; 2 it could not be done.`,
		Example: "  consumer topics grow --to 12 --yes",
		Args:    cobra.NoArgs,
		RunE: comparing(func(cmd *cobra.Command, t *tools) error {
			return t.grow(cmd.Context(), how, cmd.OutOrStdout())
		}),
	}
	cmd.Flags().IntVar(&how.to, "to", 0, "how many partitions the topic is to have")
	cmd.Flags().BoolVar(&how.yes, "yes", false, "needed: partitions can't be taken away again")
	cmd.Flags().DurationVar(&how.wait, "wait", 2*time.Minute, "how long to wait for the owners")
	return cmd
}

func (t *tools) grow(ctx context.Context, how growing, w io.Writer) error {
	id, now, err := t.kafka.Topic(ctx)
	if err != nil {
		return err
	}
	switch {
	case how.to < int(now):
		return usage("--to %d: the topic %s has %d partitions, and none can be taken away", how.to, t.cfg.Kafka.Topic, now)
	case how.to > 10_000:
		return usage("--to %d: no topic needs so many partitions", how.to)
	case !how.yes:
		return usage("the topic %s would grow from %d to %d partitions for good: say --yes", t.cfg.Kafka.Topic, now, how.to)
	}
	op := &operations.Operation{
		ID: uuid.New(), Kind: operations.GrowTopic, State: operations.Running, Who: who(),
		Detail: fmt.Sprintf("%s from %d to %d partitions", t.cfg.Kafka.Topic, now, how.to),
	}
	audit := operations.Log{Conn: t.store.Conn()}
	if err := t.mayGrow(ctx, how.to > int(now)); err != nil {
		return err
	}
	if err := audit.Write(ctx, op); err != nil {
		return err
	}
	fmt.Fprintf(w, "1  every partition has an owner and none is paused\n")
	err = t.addPartitions(ctx, id, int(now), how, w)
	op.State, op.Outcome = operations.Done, op.Detail
	if err != nil {
		op.State, op.Outcome = operations.Failed, err.Error()
	}
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return firstError(err, audit.Write(bound, op))
}

// mayGrow checks that no partition stands still. Once the partitions are there,
// adding is false: the new ones may not have owners yet, and are waited for.
func (t *tools) mayGrow(ctx context.Context, adding bool) error {
	ctx, cancel := context.WithTimeout(ctx, statusBound)
	defer cancel()
	s := status{Topic: t.cfg.Kafka.Topic, Group: t.cfg.Group.ID}
	if err := s.askKafka(ctx, t); err != nil {
		return err
	}
	if len(s.Members) == 0 {
		return fmt.Errorf("no consumer runs: start it first, so that the owners can agree on the new count")
	}
	for _, l := range s.Partitions {
		if l.State == "unowned" && adding {
			return fmt.Errorf("partition %d has no owner; wait until the group is whole (\"consumer status\")", l.Partition)
		}
	}
	orders, err := replay.Look(ctx, t.cfg.Kafka.Options(t.log), t.cfg.Kafka.Control)
	if err != nil {
		return err
	}
	for p, pause := range orders.Pauses {
		return fmt.Errorf("partition %d is %s; resume it first: until its owner agrees, all others would wait", p, pause)
	}
	return nil
}

func (t *tools) addPartitions(ctx context.Context, id uuid.UUID, now int, how growing, w io.Writer) error {
	if how.to > now {
		res, err := t.kafka.Admin().UpdatePartitions(ctx, how.to, t.cfg.Kafka.Topic)
		if err == nil {
			err = res.Error()
		}
		if err != nil {
			return fmt.Errorf("adding partitions to %s: %w", t.cfg.Kafka.Topic, err)
		}
	}
	fmt.Fprintf(w, "2  the topic has %d partitions\n", how.to)
	bar := t.progress(int64(how.to), "owners that agree")
	bound, cancel := context.WithTimeout(ctx, how.wait)
	defer cancel()
	agreed := 0
	for {
		barriers, err := t.store.Barriers(bound, id)
		behind := topicLine{Barriers: barriers}.behind(how.to)
		if err == nil {
			bar.Set(how.to - len(behind)) //nolint:errcheck // a bar that can't be drawn is no fault
			if n := how.to - len(behind); n > agreed && !t.terminal() {
				fmt.Fprintf(w, "3  %d of %d owners decide by %d partitions\n", n, how.to, how.to)
				agreed = n
			}
			if len(behind) == 0 {
				break
			}
		}
		select {
		case <-bound.Done():
			if ctx.Err() != nil {
				return fmt.Errorf("interrupted: the owners go on by themselves; the same command waits for them: %w", ctx.Err())
			}
			return exitError{1, fmt.Errorf("after %s partitions %s do not decide by %d partitions yet; \"consumer status\" shows what holds them up, and the same command waits for them", how.wait, join(behind), how.to)}
		case <-time.After(200 * time.Millisecond):
		}
	}
	bar.Finish() //nolint:errcheck // as above
	var difference uint64
	if err := t.store.Conn().QueryRow(ctx, "SELECT toUInt64(sum(abs(difference))) FROM balance WHERE topic_id = ?", id).Scan(&difference); err != nil {
		return fmt.Errorf("the balance: %w", err)
	}
	if difference != 0 {
		return exitError{1, fmt.Errorf("the balance differs by %d; \"consumer verify\" says which keys", difference)}
	}
	fmt.Fprintf(w, "4  the balance adds up\n")
	return nil
}
