package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"sluice/consumer/internal/operations"
	"sluice/consumer/internal/replay"
	"sluice/schemas/topic"
)

func pauseCommand() *cobra.Command {
	var which, why string
	cmd := &cobra.Command{
		Use:   "pause --partitions 0,2 | all --why TEXT",
		Short: "Keep partitions from moving, until they are resumed",
		Long: `pause has the owners of partitions finish the batch at hand and write nothing more.
The order stands in the control topic: it outlives restarts and take-overs, and
"status", /readyz and the metric sluice_consumer_partition_paused show it with its
reason. What arrives waits in the log, for as long as the log keeps it.

Exit status: 0 ordered, 2 it could not be done.`,
		Example: `  consumer pause --partitions all --why "ClickHouse is upgraded"
  consumer resume --partitions all`,
		Args: cobra.NoArgs,
		RunE: comparing(func(cmd *cobra.Command, t *tools) error {
			if why == "" {
				return usage("say --why")
			}
			return t.order(cmd, which, operations.Pause, why, func(p int32) any {
				return replay.Pause{Partition: p, Reason: why, By: who(), At: time.Now().UTC()}
			})
		}),
	}
	cmd.Flags().StringVar(&which, "partitions", "", "partitions, separated by commas, or all")
	cmd.Flags().StringVar(&why, "why", "", "the reason, which is shown everywhere")
	return cmd
}

func resumeCommand() *cobra.Command {
	var which string
	cmd := &cobra.Command{
		Use:   "resume --partitions 0,2 | all",
		Short: "Let paused partitions move again",
		Long: `resume takes back what "consumer pause" ordered.

Exit status: 0 ordered, 2 it could not be done.`,
		Example: "  consumer resume --partitions all",
		Args:    cobra.NoArgs,
		RunE: comparing(func(cmd *cobra.Command, t *tools) error {
			return t.order(cmd, which, operations.Resume, "", func(int32) any { return nil })
		}),
	}
	cmd.Flags().StringVar(&which, "partitions", "", "partitions, separated by commas, or all")
	return cmd
}

// order writes one value a partition to the control topic, and that it was done.
func (t *tools) order(cmd *cobra.Command, which, kind, why string, value func(int32) any) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), statusBound)
	defer cancel()
	_, n, err := t.kafka.Topic(ctx)
	if err != nil {
		return err
	}
	partitions, err := chosenPartitions(which, n)
	if err != nil {
		return err
	}
	values := map[string]any{}
	for _, p := range partitions {
		values[replay.PauseKey(p)] = value(p)
	}
	if err := replay.Order(ctx, t.cfg.Kafka.Options(t.log), t.cfg.Kafka.Control, values); err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s: partitions %s\n", kind, join(partitions))
	op := operations.Operation{ID: uuid.New(), Kind: kind, State: operations.Done, Who: who(), Detail: "partitions " + join(partitions), Outcome: why}
	if err := (operations.Log{Conn: t.store.Conn()}).Write(ctx, &op); err != nil {
		return fmt.Errorf("it is ordered, but not on record: %w", err)
	}
	return nil
}

func chosenPartitions(which string, n int32) ([]int32, error) {
	var out []int32
	if which == "all" {
		for p := range n {
			out = append(out, p)
		}
		return out, nil
	}
	for text := range strings.SplitSeq(which, ",") {
		p, err := strconv.ParseInt(strings.TrimSpace(text), 10, 32)
		if err != nil || p < 0 || p >= int64(n) {
			return nil, usage("--partitions %q: want all, or some of 0 to %d, separated by commas", which, n-1)
		}
		if !slices.Contains(out, int32(p)) {
			out = append(out, int32(p))
		}
	}
	return out, nil
}

func join(partitions []int32) string {
	var out []string
	for _, p := range partitions {
		out = append(out, strconv.Itoa(int(p)))
	}
	return strings.Join(out, ",")
}

// skipping is a range that is to be passed over.
type skipping struct {
	partition int32
	from, to  int64
	why       string
	yes       bool
	wait      time.Duration
}

func skipCommand() *cobra.Command {
	var how skipping
	cmd := &cobra.Command{
		Use:   "skip --partition P --from N --to N --why TEXT --yes",
		Short: "Have a range of records passed over, as an entry of the balance",
		Long: `skip orders that the records from an offset (inclusive) to another (exclusive)
become no rows. Each gets the fate "skipped" in the journal, with the reason: the
balance counts it, nothing is silent. Only records of which nothing has become yet
can be skipped; the range must begin at the journal's end or later ("consumer lag"
shows it), and end at the log's end at the latest. If no consumer runs, the command
is the owner.

Records that Kafka can't give any more (a broken segment) are skipped unread.

Exit status: 0 done; 1 not reached within --wait, the order stands and is carried
out when the partition gets there; 2 it could not be done.`,
		Example: `  consumer skip --partition 0 --from 1200 --to 1201 --why "a record that stops the consumer, ticket 7" --yes`,
		Args:    cobra.NoArgs,
		RunE: comparing(func(cmd *cobra.Command, t *tools) error {
			n, err := t.skip(cmd.Context(), how)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "partition %d: %d records from %d to %d are skipped\n", how.partition, n, how.from, how.to)
			return err
		}),
	}
	f := cmd.Flags()
	f.Int32Var(&how.partition, "partition", -1, "the partition")
	f.Int64Var(&how.from, "from", -1, "first offset to be skipped")
	f.Int64Var(&how.to, "to", -1, "first offset not to be skipped")
	f.StringVar(&how.why, "why", "", "the reason, which stands in the journal")
	f.BoolVar(&how.yes, "yes", false, "needed: what is skipped never becomes a row")
	f.DurationVar(&how.wait, "wait", time.Minute, "how long to wait until it is done")
	return cmd
}

func (t *tools) skip(ctx context.Context, how skipping) (records uint64, err error) {
	if how.why == "" {
		return 0, usage("say --why")
	}
	ranges, err := t.partitions(ctx)
	if err != nil {
		return 0, err
	}
	if how.partition < 0 || int(how.partition) >= len(ranges) {
		return 0, usage("--partition %d: the topic has partitions 0 to %d", how.partition, len(ranges)-1)
	}
	r := ranges[how.partition]
	self := r.At(max(r.To, how.from))
	seen, err := t.store.Seen(ctx, self)
	if err != nil {
		return 0, err
	}
	begin := seen.End
	if begin < 0 {
		begin = r.From
	}
	switch {
	case how.from < begin:
		return 0, usage("--from %d: offsets before %d of partition %d are decided already; what is decided stands", how.from, begin, how.partition)
	case how.to <= how.from:
		return 0, usage("--to %d must be past --from %d", how.to, how.from)
	case how.to > r.To:
		return 0, usage("--to %d: the log of partition %d ends at offset %d; what is not there yet can't be skipped", how.to, how.partition, r.To)
	case !how.yes:
		return 0, usage("%d offsets would never become rows: say --yes", how.to-how.from)
	}
	order := replay.Skip{Run: uuid.New(), TopicID: self.TopicID, Partition: how.partition, From: how.from, To: how.to, Reason: how.why, By: who(), At: time.Now().UTC()}
	op := &operations.Operation{
		ID: order.Run, Kind: operations.Skip, State: operations.Running, Who: order.By, Detail: how.why,
		From: map[int32]int64{how.partition: how.from}, To: map[int32]int64{how.partition: how.to},
	}
	audit := operations.Log{Conn: t.store.Conn()}
	if err := audit.Write(ctx, op); err != nil {
		return 0, err
	}
	opts := t.cfg.Kafka.Options(t.log)
	if err := replay.Order(ctx, opts, t.cfg.Kafka.Control, map[string]any{replay.SkipKey(order.Run): order}); err != nil {
		return 0, err
	}
	owning, done, err := t.owned(ctx)
	if err != nil {
		return 0, err
	}
	bound, cancel := context.WithTimeout(owning, how.wait)
	defer cancel()
	err = done(t.awaitJournal(bound, self, how.to))
	if errors.Is(err, context.DeadlineExceeded) {
		return 0, exitError{1, fmt.Errorf("partition %d has not come to offset %d within %s; the order stands, and \"consumer status\" shows what holds it up", how.partition, how.to, how.wait)}
	}
	if err != nil {
		return 0, err
	}
	if err := replay.Order(ctx, opts, t.cfg.Kafka.Control, map[string]any{replay.SkipKey(order.Run): nil}); err != nil {
		return 0, err
	}
	if err := t.store.Conn().QueryRow(ctx, `SELECT sum(records) FROM journal FINAL WHERE topic_id = ? AND partition = ? AND entry = 'fate' AND fate = 'skipped' AND offset >= ? AND last_offset < ?`,
		self.TopicID, self.Partition, how.from, how.to).Scan(&records); err != nil {
		return 0, fmt.Errorf("counting what was skipped: %w", err)
	}
	op.State, op.Written, op.Outcome = operations.Done, records, fmt.Sprintf("partition %d: %d records skipped from %d to %d: %s", how.partition, records, how.from, how.to, how.why)
	return records, audit.Write(ctx, op)
}

// awaitJournal waits until everything before end is journaled.
func (t *tools) awaitJournal(ctx context.Context, self topic.Origin, end int64) error {
	for {
		seen, err := t.store.Seen(ctx, self)
		if err == nil && seen.End >= end {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}
