package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"sluice/consumer/internal/kafka"
	"sluice/consumer/internal/store"
	"sluice/consumer/internal/verify"
	"sluice/deploy/service"
	"sluice/schemas/topic"
)

// report is what verify says, in the form that --json fixes.
type report struct {
	OK           bool `json:"ok"`
	Records      int  `json:"records"`
	Rows         int  `json:"rows"`
	Duplicates   int  `json:"duplicates"`
	Conflicts    int  `json:"conflicts"`
	DeadLettered int  `json:"dead_lettered"`
	Forwarded    int  `json:"forwarded"`
	Missing      int  `json:"missing"`
	Extra        int  `json:"extra"`
	Different    int  `json:"different"`
	Unverifiable int  `json:"unverifiable"`
	RollupsEqual bool `json:"rollups_equal"`
}

func verifyCommand() *cobra.Command {
	var asJSON bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Read the log again and compare it with ClickHouse, record by record",
		Long: `verify reads the topic from its start to where it ends now, decides by the
rule what should have become of each record, and compares that with ClickHouse.

Exit status: 0 all is as it should be, 1 it is not, 2 it could not be told.`,
		Args: cobra.NoArgs,
		RunE: comparing(func(cmd *cobra.Command, t *tools) error {
			r, err := t.verify(cmd.Context(), wait)
			if err != nil {
				return fmt.Errorf("could not tell: %w", err)
			}
			if err := r.write(cmd.OutOrStdout(), asJSON); err != nil {
				return err
			}
			if !r.OK {
				return exitError{1, nil}
			}
			return nil
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as one line of JSON")
	cmd.Flags().DurationVar(&wait, "wait", 10*time.Second, "how long the consumer may take to reach the log's end first")
	return cmd
}

func (r report) write(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(r)
	}
	verdict := "ok: ClickHouse holds what the log says, no more and no less"
	if !r.OK {
		verdict = "NOT OK: ClickHouse differs from the log"
	}
	_, err := fmt.Fprintf(w, `%s

records in the log  %9d
  rows              %9d
  duplicates        %9d
  conflicts         %9d
  dead letters      %9d
  forwarded         %9d
missing             %9d
extra               %9d
different           %9d
unverifiable        %9d
rollups equal       %9t
`, verdict, r.Records, r.Rows, r.Duplicates, r.Conflicts, r.DeadLettered, r.Forwarded,
		r.Missing, r.Extra, r.Different, r.Unverifiable, r.RollupsEqual)
	return err
}

// tools is what the commands that compare need.
type tools struct {
	cfg   config
	log   *slog.Logger
	kafka *kafka.Log
	store *store.Store
	err   io.Writer
}

// comparing makes the body of a command out of run, to which it gives the
// tools. An error exits with 2 (it could not be told, or done) unless it brings
// a status of its own.
func comparing(run func(cmd *cobra.Command, t *tools) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		cfg, err := load(cmd)
		if err != nil {
			return exitError{2, err}
		}
		t, err := openTools(cmd, cfg)
		if err != nil {
			return exitError{2, err}
		}
		defer t.close()
		err = run(cmd, t)
		if exit := (exitError{}); err == nil || errors.As(err, &exit) {
			return err
		}
		return exitError{2, err}
	}
}

func openTools(cmd *cobra.Command, cfg config) (*tools, error) {
	if cfg.Log.Level == "info" {
		cfg.Log.Level = "error" // commands speak for themselves
	}
	log, err := service.NewLogger(cmd.ErrOrStderr(), cfg.Log)
	if err != nil {
		return nil, err
	}
	k, err := kafka.New(cfg.Kafka.Options(log), kafka.Names{Topic: cfg.Kafka.Topic, DeadLetters: cfg.Kafka.DeadLetters, Group: cfg.Group.ID})
	if err != nil {
		return nil, err
	}
	st, err := store.Open(cfg.ClickHouse.DSN)
	if err != nil {
		k.Close()
		return nil, err
	}
	return &tools{cfg, log, k, st, cmd.ErrOrStderr()}, nil
}

func (t *tools) close() {
	t.kafka.Close()
	t.store.Close() //nolint:errcheck // nothing was left to be written
}

// partitions are the topic's, with the bounds of the log as they are now.
func (t *tools) partitions(ctx context.Context) ([]verify.Range, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second) // a broker that is away must not hang a command
	defer cancel()
	id, count, err := t.kafka.Topic(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]verify.Range, count)
	for p := range count {
		out[p] = verify.Range{Self: topic.Origin{TopicID: id, Partition: p}, Partitions: count}
		if out[p].From, out[p].To, err = t.kafka.Bounds(ctx, p); err != nil {
			return nil, err
		}
	}
	return out, nil
}

const findingsShown = 100

func (t *tools) verify(ctx context.Context, wait time.Duration) (report, error) {
	ranges, err := t.partitions(ctx)
	if err != nil {
		return report{}, err
	}
	if err := t.reach(ctx, ranges, wait); err != nil {
		return report{}, err
	}
	var total verify.Counts
	shown := 0
	found := func(f verify.Finding) {
		if shown++; shown <= findingsShown {
			fmt.Fprintf(t.err, "partition %d offset %d %s: %s\n", f.Origin.Partition, f.Origin.Offset, f.Key, f.What)
		}
	}
	bar := t.bar(ranges, "verify")
	starts := map[int32]int64{}
	var id uuid.UUID
	for _, r := range ranges {
		last := r.From
		counts, err := verify.Partition(ctx, t.kafka, t.store, r, true, found, func(next int64) {
			bar.Add64(next - last) //nolint:errcheck // a bar that can't be drawn is no fault
			last = next
		})
		if err != nil {
			return report{}, fmt.Errorf("partition %d: %w", r.Self.Partition, err)
		}
		total.Add(counts)
		starts[r.Self.Partition], id = r.From, r.Self.TopicID
	}
	bar.Finish() //nolint:errcheck // as above
	if shown > findingsShown {
		fmt.Fprintf(t.err, "and %d more\n", shown-findingsShown)
	}
	totals, err := t.store.Totals(ctx, id, starts)
	if err != nil {
		return report{}, err
	}
	r := report{
		Records: total.Records, Rows: total.Rows, Duplicates: total.Duplicates, Conflicts: total.Conflicts,
		DeadLettered: total.DeadLettered, Forwarded: total.Forwarded,
		Missing: total.Missing, Different: total.Different,
		Extra:        max(total.Extra, int(totals.Rows-totals.Keys)),
		Unverifiable: int(totals.Unverifiable),
		RollupsEqual: totals.PerMinute == totals.Rows && totals.PerHour == totals.Rows,
	}
	r.OK = r.Missing == 0 && r.Extra == 0 && r.Different == 0 && r.RollupsEqual
	return r, nil
}

// reach waits until the journal has reached the end of every range, for at most
// wait: what is undecided by then counts as missing.
func (t *tools) reach(ctx context.Context, ranges []verify.Range, wait time.Duration) error {
	deadline := time.Now().Add(wait)
	for _, r := range ranges {
		for r.From < r.To {
			seen, err := t.store.Seen(ctx, r.Self)
			if err != nil {
				return err
			}
			if seen.End >= r.To || time.Now().After(deadline) {
				break
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	return nil
}

// bar is a progress bar over ranges, drawn only on a terminal.
func (t *tools) bar(ranges []verify.Range, what string) *progressbar.ProgressBar {
	var n int64
	for _, r := range ranges {
		n += r.To - r.From
	}
	file, ok := t.err.(*os.File)
	visible := ok && term.IsTerminal(int(file.Fd()))
	return progressbar.NewOptions64(n,
		progressbar.OptionSetDescription(what), progressbar.OptionSetWriter(t.err),
		progressbar.OptionSetVisibility(visible), progressbar.OptionShowCount(), progressbar.OptionShowIts(),
		progressbar.OptionSetItsString("records"), progressbar.OptionClearOnFinish())
}
