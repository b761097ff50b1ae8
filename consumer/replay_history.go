package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/consumer/internal/operations"
	"sluice/consumer/internal/replay"
)

func replayHistoryCommand() *cobra.Command {
	var asJSON bool
	var limit int
	var kinds []string
	cmd := &cobra.Command{
		Use:   "history",
		Short: "Show who replayed what, and all else that was done to the topic by hand",
		Long: `history shows the table operations, newest first: replays and re-reads, redrives,
skips, pauses, offsets set. What other tools did to the group's offsets is written
there by the consumer when it comes upon it.

State "running" of a command that has not been heard of for a while is shown as
"ended without a word": it was killed, and nothing that it had begun is lost.

Exit status: 0 shown, 2 ClickHouse or Kafka did not answer.`,
		Example: "  consumer replay history --kinds replay,re-read --json",
		Args:    cobra.NoArgs,
		RunE: comparing(func(cmd *cobra.Command, t *tools) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), statusBound)
			defer cancel()
			all, err := operations.Log{Conn: t.store.Conn()}.List(ctx, limit, kinds...)
			if err != nil {
				return err
			}
			if err := t.markGone(ctx, all); err != nil {
				return err
			}
			return writeHistory(cmd.OutOrStdout(), all, asJSON)
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one line of JSON for each operation")
	cmd.Flags().IntVar(&limit, "limit", 20, "how many to show")
	cmd.Flags().StringSliceVar(&kinds, "kinds", nil, "only these kinds, as they are shown")
	return cmd
}

const endedSilently = "ended without a word"

// markGone changes the state of what runs no longer.
func (t *tools) markGone(ctx context.Context, all []operations.Operation) error {
	if !slices.ContainsFunc(all, func(o operations.Operation) bool { return o.State == operations.Running }) {
		return nil
	}
	orders, err := replay.Look(ctx, t.cfg.Kafka.Options(t.log), t.cfg.Kafka.Control)
	if err != nil {
		return err
	}
	for i := range all {
		if all[i].State == operations.Running && !slices.ContainsFunc(orders.Leases, func(l replay.Lease) bool {
			return l.Run == all[i].ID && l.Stands(time.Now())
		}) {
			all[i].State = endedSilently
		}
	}
	return nil
}

func writeHistory(w io.Writer, all []operations.Operation, asJSON bool) error {
	return writeLines(w, all, asJSON, "STARTED\tKIND\tSTATE\tWHO\tFROM\tTO\tWRITTEN\tOUTCOME", func(o operations.Operation) string {
		outcome := o.Outcome
		if outcome == "" {
			outcome = o.Detail
		}
		return fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s", o.Started.UTC().Format(time.RFC3339), o.Kind, o.State, o.Who, offsetsText(o.From), offsetsText(o.To), o.Written, outcome)
	})
}

func offsetsText(m map[int32]int64) string {
	var out []string
	for p, o := range m {
		out = append(out, fmt.Sprintf("%d:%d", p, o))
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}
