package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"

	"sluice/consumer/internal/operations"
	"sluice/schemas/topic"
)

func offsetsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "offsets",
		Short: "Show the group's offsets and what they mean, or set them",
		Long: `The consumer goes by its journal in ClickHouse, not by the group's offsets: set
back, they make it read again, which writes only what is missing; set forward, they
are not followed.`,
	}
	cmd.AddCommand(offsetsShowCommand(), offsetsSetCommand())
	return cmd
}

func offsetsShowCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show each partition's committed offset, whose it is, and what the next owner does",
		Long: `show lists, for every partition, where the log begins and ends, where the journal
ends, the group's offset and whose it is (as in "consumer status"), and what an
owner that starts now would do.

Exit status: 0 shown, 2 it could not be told.`,
		Example: "  consumer offsets show",
		Args:    cobra.NoArgs,
		RunE: comparing(func(cmd *cobra.Command, t *tools) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), statusBound)
			defer cancel()
			all, err := t.offsets(ctx)
			if err != nil {
				return err
			}
			return writeOffsets(cmd.OutOrStdout(), all, asJSON)
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one line of JSON for each partition")
	return cmd
}

// offsetLine is one partition's.
type offsetLine struct {
	Partition  int32  `json:"partition"`
	LogStart   int64  `json:"log_start"`
	LogEnd     int64  `json:"log_end"`
	JournalEnd int64  `json:"journal_end"` // -1: nothing is journaled
	Commit     int64  `json:"commit"`      // -1: none
	CommitIs   string `json:"commit_is"`
	Next       string `json:"next"`

	metadata string
	members  int
}

func (t *tools) offsets(ctx context.Context) ([]offsetLine, error) {
	s := status{Topic: t.cfg.Kafka.Topic, Group: t.cfg.Group.ID}
	if err := s.askKafka(ctx, t); err != nil {
		return nil, err
	}
	commits, err := t.kafka.Admin().FetchOffsets(ctx, s.Group)
	if err != nil {
		commits = nil // no group: askKafka has told any other error
	}
	var out []offsetLine
	for _, l := range s.Partitions {
		x := offsetLine{Partition: l.Partition, Commit: -1, CommitIs: l.CommitIs, members: len(s.Members)}
		if l.LogStart == nil || l.LogEnd == nil {
			return nil, fmt.Errorf("the broker does not say where partition %d begins and ends", l.Partition)
		}
		x.LogStart, x.LogEnd = *l.LogStart, *l.LogEnd
		if l.Commit != nil {
			x.Commit = *l.Commit
		}
		if o, ok := commits.Lookup(s.Topic, l.Partition); ok {
			x.metadata = o.Metadata
		}
		seen, err := t.store.Seen(ctx, topic.Origin{TopicID: s.TopicID, Partition: l.Partition})
		if err != nil {
			return nil, err
		}
		x.JournalEnd = seen.End
		x.Next = x.next()
		out = append(out, x)
	}
	return out, nil
}

// next says what an owner does that starts now.
func (x offsetLine) next() string {
	end := x.JournalEnd
	switch {
	case end < 0:
		return fmt.Sprintf("begins at the log's start, %d", x.LogStart)
	case end < x.LogStart:
		return fmt.Sprintf("journals offsets %d to %d as lost: the log no longer has them", end, x.LogStart-1)
	case x.CommitIs == "foreign" && x.Commit < end:
		return fmt.Sprintf("reads %d to %d again, writes what is missing, and goes on from %d", max(x.Commit, x.LogStart), end-1, end)
	case x.CommitIs == "foreign" && x.Commit > end:
		return fmt.Sprintf("does not follow the jump to %d, and goes on from %d; \"consumer skip\" passes over records", x.Commit, end)
	}
	return fmt.Sprintf("goes on from %d", end)
}

func writeOffsets(w io.Writer, all []offsetLine, asJSON bool) error {
	return writeLines(w, all, asJSON, "PARTITION\tLOG START\tLOG END\tJOURNAL END\tCOMMIT\tWHOSE\tTHE NEXT OWNER", func(x offsetLine) string {
		return fmt.Sprintf("%d\t%d\t%d\t%d\t%d\t%s\t%s", x.Partition, x.LogStart, x.LogEnd, x.JournalEnd, x.Commit, x.CommitIs, x.Next)
	})
}

func offsetsSetCommand() *cobra.Command {
	var to, undo string
	var yes bool
	cmd := &cobra.Command{
		Use:   "set --to 0:1200,1:900 | earliest --yes",
		Short: "Set the group's offsets back, so that the consumer reads again from there",
		Long: `set sets the group's offsets while no consumer runs, within what the log has and the
journal covers. The next owner reads again from there and writes only what
ClickHouse lacks. While a consumer runs "consumer replay" does the same, without a
stop. Offsets past the journal's end are refused: they would not be followed.

What stood before is kept: --undo RUN (the id that set prints) puts it back, as long
as no consumer has run meanwhile.

Exit status: 0 done, 2 it could not be done.`,
		Example: `  consumer offsets set --to 0:1200 --yes
  consumer offsets set --undo 0190b3c4-0000-7000-8000-000000000000 --yes`,
		Args: cobra.NoArgs,
		RunE: comparing(func(cmd *cobra.Command, t *tools) error {
			if (to == "") == (undo == "") {
				return usage("say --to or --undo")
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), statusBound)
			defer cancel()
			if undo != "" {
				return t.undoOffsets(ctx, undo, yes, cmd.OutOrStdout())
			}
			return t.setOffsets(ctx, to, yes, cmd.OutOrStdout())
		}),
	}
	cmd.Flags().StringVar(&to, "to", "", "partition:offset,… or earliest")
	cmd.Flags().StringVar(&undo, "undo", "", "the run to be undone")
	cmd.Flags().BoolVar(&yes, "yes", false, "needed to set anything")
	return cmd
}

// before is what stood in the group, as an operation's detail keeps it.
type before struct {
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	Metadata  string `json:"metadata"`
}

func (t *tools) setOffsets(ctx context.Context, to string, yes bool, w io.Writer) error {
	all, err := t.offsets(ctx)
	if err != nil {
		return err
	}
	if all[0].members > 0 {
		return fmt.Errorf("%d consumers run: stop them first, or use \"consumer replay\", which needs no stop", all[0].members)
	}
	var want map[int32]int64
	if to == "earliest" {
		want = map[int32]int64{}
		for _, x := range all {
			want[x.Partition] = x.LogStart
		}
	} else if want, err = pairs("--to", to, len(all)); err != nil {
		return err
	}
	op := &operations.Operation{ID: uuid.New(), Kind: operations.SetOffsets, State: operations.Done, Who: who(), From: map[int32]int64{}, To: map[int32]int64{}}
	var kept []before
	set := kadm.Offsets{}
	for _, x := range all {
		o, named := want[x.Partition]
		switch {
		case !named:
			continue
		case o < x.LogStart:
			return usage("%d:%d: the log of partition %d begins at offset %d", x.Partition, o, x.Partition, x.LogStart)
		case o > max(x.JournalEnd, x.LogStart):
			return usage("%d:%d lies past the journal's end %d and would not be followed; \"consumer skip\" passes over records", x.Partition, o, x.JournalEnd)
		}
		kept = append(kept, before{x.Partition, x.Commit, x.metadata})
		op.From[x.Partition], op.To[x.Partition] = x.Commit, o
		set.Add(kadm.Offset{Topic: t.cfg.Kafka.Topic, Partition: x.Partition, At: o, LeaderEpoch: -1})
	}
	if !yes {
		return usage("the group's offsets would be set to %s: say --yes", offsetsText(op.To))
	}
	text, err := json.Marshal(kept)
	if err != nil {
		return err
	}
	op.Detail, op.Outcome = string(text), "set to "+offsetsText(op.To)
	return t.commitOffsets(ctx, op, set, w)
}

// commitOffsets writes what is about to be set to the table first: what stood
// before must be known, whatever comes.
func (t *tools) commitOffsets(ctx context.Context, op *operations.Operation, set kadm.Offsets, w io.Writer) error {
	audit := operations.Log{Conn: t.store.Conn()}
	if err := audit.Write(ctx, op); err != nil {
		return err
	}
	res, err := t.kafka.Admin().CommitOffsets(ctx, t.cfg.Group.ID, set)
	if err == nil {
		err = res.Error()
	}
	if err != nil {
		op.State, op.Outcome = operations.Failed, err.Error()
		audit.Write(ctx, op) //nolint:errcheck // the first error says more
		return fmt.Errorf("setting the group's offsets: %w", err)
	}
	_, err = fmt.Fprintf(w, "%s: %s; undo with: consumer offsets set --undo %s --yes\n", op.Kind, op.Outcome, op.ID)
	return err
}

func (t *tools) undoOffsets(ctx context.Context, run string, yes bool, w io.Writer) error {
	id, err := uuid.Parse(run)
	if err != nil {
		return usage("--undo %q: want the id of a run, as \"consumer replay history --json\" shows it", run)
	}
	done, ok, err := operations.Log{Conn: t.store.Conn()}.Get(ctx, id)
	if err != nil {
		return err
	}
	if !ok || done.Kind != operations.SetOffsets {
		return usage("--undo %s: offsets were set by no such run", run)
	}
	var kept []before
	if err := json.Unmarshal([]byte(done.Detail), &kept); err != nil {
		return fmt.Errorf("what stood before run %s can't be read: %w", run, err)
	}
	all, err := t.offsets(ctx)
	if err != nil {
		return err
	}
	set := kadm.Offsets{}
	op := &operations.Operation{ID: uuid.New(), Kind: operations.SetOffsets, State: operations.Done, Who: who(), From: map[int32]int64{}, To: map[int32]int64{}}
	var now []before
	for _, k := range kept {
		i := slices.IndexFunc(all, func(x offsetLine) bool { return x.Partition == k.Partition })
		if i < 0 || all[i].Commit != done.To[k.Partition] || all[i].CommitIs != "foreign" || all[i].members > 0 {
			return fmt.Errorf("partition %d: the group's offset is no longer what run %s set; a consumer has gone on since, and nothing is left to be undone", k.Partition, run)
		}
		if k.Offset < 0 {
			return fmt.Errorf("partition %d had no offset before run %s; delete the group to undo it", k.Partition, run)
		}
		now = append(now, before{k.Partition, all[i].Commit, all[i].metadata})
		op.From[k.Partition], op.To[k.Partition] = all[i].Commit, k.Offset
		set.Add(kadm.Offset{Topic: t.cfg.Kafka.Topic, Partition: k.Partition, At: k.Offset, LeaderEpoch: -1, Metadata: k.Metadata})
	}
	if !yes {
		return usage("the group's offsets would be set back to %s: say --yes", offsetsText(op.To))
	}
	text, err := json.Marshal(now)
	if err != nil {
		return err
	}
	op.Detail, op.Outcome = string(text), "undid run "+run+" of "+done.Started.UTC().Format(time.RFC3339)
	return t.commitOffsets(ctx, op, set, w)
}
