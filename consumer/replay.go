package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"sluice/consumer/internal/replay"
	"sluice/consumer/internal/verify"
)

// replayed is what a replay found and did in one partition.
type replayed struct {
	Partition int32 `json:"partition"`
	From      int64 `json:"from"`
	To        int64 `json:"to"`
	Records   int   `json:"records"`
	Present   int   `json:"present"`
	Missing   int   `json:"missing"`
	Different int   `json:"different"`
	Written   int   `json:"written"`
}

func replayCommand() *cobra.Command {
	var from string
	var dryRun, asJSON bool
	cmd := &cobra.Command{
		Use:   "replay --from 0:1200,1:900 | earliest",
		Short: "Read the topic again from an offset; only what ClickHouse lacks is written",
		Long: `replay asks the owners of the partitions to read the topic again, from the
offsets given (inclusive) to where the journal ends. What is decided stands:
a row that is there is not written again. It is safe at any time, and may be
interrupted: the owners finish what they were asked.

If no consumer runs, the command joins the group and is the owner itself.

--from takes partition:offset pairs, or "earliest" for all that the log has.

Exit status: 0 done, 1 a dry run found something missing or different,
2 it could not be done.`,
		Args: cobra.NoArgs,
		RunE: comparing(func(cmd *cobra.Command, t *tools) error {
			results, err := t.replay(cmd.Context(), from, dryRun)
			if err != nil {
				return err
			}
			if err := writeReplayed(cmd.OutOrStdout(), results, dryRun, asJSON); err != nil {
				return err
			}
			if dryRun {
				for _, r := range results {
					if r.Missing+r.Different > 0 {
						return exitError{1, nil}
					}
				}
			}
			return nil
		}),
	}
	cmd.Flags().StringVar(&from, "from", "", "partition:offset,… or earliest")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "compare and write nothing")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one line of JSON for each partition")
	cmd.MarkFlagRequired("from") //nolint:errcheck // the flag exists, two lines up
	return cmd
}

func (t *tools) replay(ctx context.Context, from string, dryRun bool) ([]replayed, error) {
	ranges, err := t.partitions(ctx)
	if err != nil {
		return nil, err
	}
	ranges, err = startAt(ranges, from)
	if err != nil {
		return nil, err
	}
	for i := range ranges {
		seen, err := t.store.Seen(ctx, ranges[i].At(max(ranges[i].To-1, 0)))
		if err != nil {
			return nil, err
		}
		// Beyond the journal's end everything is being written anyway.
		ranges[i].To = max(min(ranges[i].To, seen.End), ranges[i].From)
	}
	if dryRun {
		return t.compareOnly(ctx, ranges)
	}
	return t.ask(ctx, ranges)
}

// startAt cuts the topic's ranges to those that --from names.
func startAt(all []verify.Range, from string) ([]verify.Range, error) {
	if from == "earliest" {
		return all, nil
	}
	var out []verify.Range
	named := map[int64]bool{}
	for part := range strings.SplitSeq(from, ",") {
		p, o, ok := strings.Cut(strings.TrimSpace(part), ":")
		number, err1 := strconv.ParseInt(p, 10, 32)
		offset, err2 := strconv.ParseInt(o, 10, 64)
		switch {
		case !ok || err1 != nil || err2 != nil || offset < 0:
			return nil, fmt.Errorf("--from %q: want partition:offset, as in 0:1200,1:900, or earliest", part)
		case number < 0 || number >= int64(len(all)):
			return nil, fmt.Errorf("--from %q: the topic has partitions 0 to %d", part, len(all)-1)
		case named[number]:
			return nil, fmt.Errorf("--from names partition %d twice", number)
		}
		named[number] = true
		r := all[number]
		if offset < r.From {
			return nil, fmt.Errorf("--from %q: the log of partition %d begins at offset %d; what came before is no longer in Kafka", part, number, r.From)
		}
		if offset > r.To {
			return nil, fmt.Errorf("--from %q: the log of partition %d ends at offset %d", part, number, r.To)
		}
		r.From = offset
		out = append(out, r)
	}
	return out, nil
}

func (t *tools) compareOnly(ctx context.Context, ranges []verify.Range) ([]replayed, error) {
	var out []replayed
	bar := t.bar(ranges, "compare")
	for _, r := range ranges {
		last := r.From
		counts, err := verify.Partition(ctx, t.kafka, t.store, r, false, func(verify.Finding) {}, func(next int64) {
			bar.Add64(next - last) //nolint:errcheck // a bar that can't be drawn is no fault
			last = next
		})
		if err != nil {
			return nil, fmt.Errorf("partition %d: %w", r.Self.Partition, err)
		}
		out = append(out, replayed{
			Partition: r.Self.Partition, From: r.From, To: r.To, Records: counts.Records,
			Present: counts.Records - counts.Missing - counts.Different, Missing: counts.Missing, Different: counts.Different,
		})
	}
	bar.Finish() //nolint:errcheck // as above
	return out, nil
}

// ask has the owners do it; if there are none, it becomes the owner.
func (t *tools) ask(ctx context.Context, ranges []verify.Range) ([]replayed, error) {
	var s status
	s.Topic, s.Group = t.cfg.Kafka.Topic, t.cfg.Group.ID
	if _, err := s.askGroup(ctx, t.kafka.Admin()); err != nil {
		return nil, fmt.Errorf("looking for the partitions' owners: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	owning := make(chan error, 1)
	if len(s.Members) == 0 {
		fmt.Fprintln(t.err, "no consumer runs: joining the group to do it here")
		go func() {
			err := consume(ctx, t.cfg, t.log, unregistered())
			if err != nil {
				cancel()
			}
			owning <- err
		}()
	} else {
		owning <- nil
	}
	run, by := uuid.New(), who()
	var requests []replay.Request
	at := map[int32]replay.Progress{}
	for _, r := range ranges {
		if r.From < r.To {
			requests = append(requests, replay.Request{Run: run, TopicID: r.Self.TopicID, Partition: r.Self.Partition, From: r.From, To: r.To, By: by, At: time.Now().UTC()})
		}
		at[r.Self.Partition] = replay.Progress{Next: r.From, To: r.To}
	}
	bar := t.bar(ranges, "replay")
	totals := map[int32]replayed{}
	err := replay.Ask(ctx, t.cfg.Kafka.Options(t.log), t.cfg.Kafka.Control, requests, func(p replay.Progress) {
		if p.Error != "" {
			fmt.Fprintf(t.err, "partition %d: %s; it recovers and goes on\n", p.Partition, p.Error)
			return
		}
		bar.Add64(p.Next - at[p.Partition].Next) //nolint:errcheck // as above
		at[p.Partition] = p
		totals[p.Partition] = replayed{Records: p.Records, Written: p.Written + p.Journaled, Missing: p.Written + p.Journaled, Present: p.Records - p.Written - p.Journaled}
	})
	bar.Finish() //nolint:errcheck // as above
	cancel()
	if ownErr := <-owning; err == nil || ownErr != nil {
		err = errors.Join(ownErr, dropCanceled(err))
	}
	if err != nil {
		return nil, err
	}
	var out []replayed
	for _, r := range ranges {
		x := totals[r.Self.Partition]
		x.Partition, x.From, x.To = r.Self.Partition, r.From, r.To
		out = append(out, x)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Partition < out[j].Partition })
	return out, nil
}

func dropCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// who names the person at the keyboard, for the record of the run.
func who() string {
	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	return name + "@" + hostname()
}

func hostname() string {
	host, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return host
}

func writeReplayed(w io.Writer, results []replayed, dryRun, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(w)
		for _, r := range results {
			if err := enc.Encode(r); err != nil {
				return err
			}
		}
		return nil
	}
	last := "written"
	if dryRun {
		last = "different"
	}
	fmt.Fprintf(w, "partition       from         to    records    present    missing  %9s\n", last)
	for _, r := range results {
		n := r.Written
		if dryRun {
			n = r.Different
		}
		if _, err := fmt.Fprintf(w, "%9d %10d %10d %10d %10d %10d %10d\n", r.Partition, r.From, r.To, r.Records, r.Present, r.Missing, n); err != nil {
			return err
		}
	}
	return nil
}
