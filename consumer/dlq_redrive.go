package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/deadletter"
	"sluice/consumer/internal/operations"
	"sluice/consumer/internal/replay"
	"sluice/schemas/topic"
)

// redriving is how letters are put through.
type redriving struct {
	choice      deadletter.Choice
	dryRun, yes bool
}

// redriven is what came of it: counts of letters.
type redriven struct {
	// Letters were chosen. Settled ones somebody had dealt with before, StillBad
	// ones today's rules don't take, Stored ones have their row already.
	Letters  int `json:"letters"`
	Settled  int `json:"settled"`
	StillBad int `json:"still_bad"`
	Stored   int `json:"stored"`
	// Redriven were put through, or with a dry run would be.
	Redriven int `json:"redriven"`
}

func dlqRedriveCommand() *cobra.Command {
	var c choosing
	var how redriving
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "redrive",
		Short: "Put dead letters through that today's rules take",
		Long: `redrive writes the chosen dead letters that can now become rows to the events topic
again, under their event's key; the consumer decides them like any other record, so
that each event becomes one row, whatever happens to this command on the way. What
was put through is written beside it, and no later redrive takes it again. What
today's rules don't take is left as it is, and a letter that fails again becomes a
new one.

Exit status: 0 done, or a dry run found nothing to do; 1 a dry run found letters to
put through; 2 it could not be done; 3 another redrive runs.`,
		Example: `  consumer dlq redrive --dry-run
  consumer dlq redrive --source web --since 24h --yes`,
		Args: cobra.NoArgs,
		RunE: comparing(func(cmd *cobra.Command, t *tools) error {
			var err error
			if how.choice, err = c.choice(cmd.Context(), t); err != nil {
				return err
			}
			done, err := t.redrive(cmd.Context(), how)
			var held replay.HeldError
			switch {
			case errors.As(err, &held):
				return exitError{3, err}
			case err != nil:
				return err
			}
			if err := done.write(cmd.OutOrStdout(), how.dryRun, asJSON); err != nil {
				return err
			}
			if how.dryRun && done.Redriven > 0 {
				return exitError{1, nil}
			}
			return nil
		}),
	}
	c.flags(cmd)
	cmd.Flags().BoolVar(&how.dryRun, "dry-run", false, "count and write nothing")
	cmd.Flags().BoolVar(&how.yes, "yes", false, "needed to put anything through")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the counts as one line of JSON")
	return cmd
}

func (d redriven) write(w io.Writer, dryRun, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(d)
	}
	did := "put through"
	if dryRun {
		did = "to put through"
	}
	_, err := fmt.Fprintf(w, "%d dead letters: %d %s, %d still no events, %d stored already, %d dealt with before\n", d.Letters, d.Redriven, did, d.StillBad, d.Stored, d.Settled)
	return err
}

// redriveAtOnce is how many letters are put through before it is written down.
const redriveAtOnce = 500

// redrive puts letters through. Each is produced, acknowledged, and then written
// down as redriven; killed in between, the next redrive finds its row and produces
// nothing, or produces a copy, which becomes a duplicate.
func (t *tools) redrive(ctx context.Context, how redriving) (done redriven, err error) {
	if !how.dryRun && !how.yes {
		return done, usage("redrive puts records through: say --yes, or --dry-run to see which")
	}
	op := &operations.Operation{ID: uuid.New(), Kind: operations.Redrive, State: operations.Running, Who: who()}
	audit := operations.Log{Conn: t.store.Conn()}
	if !how.dryRun {
		release, err := replay.Take(ctx, t.cfg.Kafka.Options(t.log), t.cfg.Kafka.Control, replay.Lease{Kind: "redrive", Run: op.ID, By: op.Who, Since: time.Now().UTC()})
		if err != nil {
			return done, err
		}
		defer release()
		if err := audit.Write(ctx, op); err != nil {
			return done, err
		}
		defer func() {
			op.State, op.Written = operations.Done, uint64(done.Redriven)
			op.Found = map[string]int64{"letters": int64(done.Letters), "settled": int64(done.Settled), "still_bad": int64(done.StillBad), "stored": int64(done.Stored)}
			op.Outcome = fmt.Sprintf("%d of %d dead letters put through", done.Redriven, done.Letters)
			if err != nil {
				op.State, op.Outcome = operations.Failed, err.Error()
			}
			bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			if auditErr := audit.Write(bound, op); err == nil {
				err = auditErr
			}
		}()
	}
	settled, err := deadletter.Settled(ctx, t.store.Conn())
	if err != nil {
		return done, err
	}
	var records []*batch.Record
	var origins []topic.Origin
	flush := func() error {
		err := t.putThrough(ctx, how, &done, records, origins)
		records, origins = nil, nil
		return err
	}
	err = t.letters(ctx, how.choice, func(l deadletter.Letter, r *batch.Record) error {
		done.Letters++
		if _, ok := settled[l.Origin]; ok {
			done.Settled++
			return nil
		}
		if r.Reason != "" {
			done.StillBad++
			return nil
		}
		copied := *r
		records, origins = append(records, &copied), append(origins, l.Origin)
		if len(records) < redriveAtOnce {
			return nil
		}
		return flush()
	})
	if err == nil && len(records) > 0 {
		err = flush()
	}
	return done, err
}

func (t *tools) putThrough(ctx context.Context, how redriving, done *redriven, records []*batch.Record, origins []topic.Origin) error {
	stored, err := t.store.FirstOf(ctx, records)
	if err != nil {
		return err
	}
	var send []*batch.Record
	var from []topic.Origin
	var fates []*operations.Operation
	for i, r := range records {
		if f, ok := stored[r.ID]; ok && f.Hash == r.Hash { // nothing would come of it
			done.Stored++
			fates = append(fates, deadletter.Entry(origins[i], deadletter.Redriven, who(), "its event has a row, of "+f.Origin.String()))
			continue
		}
		send, from = append(send, r), append(from, origins[i])
	}
	done.Redriven += len(send)
	if how.dryRun {
		return nil
	}
	if len(send) > 0 {
		if err := t.kafka.Redrive(ctx, send, from); err != nil {
			return fmt.Errorf("putting %d dead letters through: %w; run it again, nothing is doubled", len(send), err)
		}
	}
	for _, o := range from {
		fates = append(fates, deadletter.Entry(o, deadletter.Redriven, who(), "written to the topic "+t.cfg.Kafka.Topic+" again"))
	}
	return operations.Log{Conn: t.store.Conn()}.Write(ctx, fates...)
}

func dlqDiscardCommand() *cobra.Command {
	var c choosing
	var why string
	var yes bool
	cmd := &cobra.Command{
		Use:   "discard",
		Short: "Say of dead letters that nothing is to be done with them",
		Long: `discard writes beside the chosen dead letters that nothing is to be done with them,
and why. They stay in the topic; "dlq list" and "dlq redrive" leave them out.

Exit status: 0 done, 2 it could not be done.`,
		Example: `  consumer dlq discard --origin 0:1200 --why "a test by the team of web" --yes`,
		Args:    cobra.NoArgs,
		RunE: comparing(func(cmd *cobra.Command, t *tools) error {
			if why == "" {
				return usage("say --why")
			}
			choice, settled, err := t.chosen(cmd.Context(), c)
			if err != nil {
				return err
			}
			var fates []*operations.Operation
			err = t.letters(cmd.Context(), choice, func(l deadletter.Letter, _ *batch.Record) error {
				if _, ok := settled[l.Origin]; !ok {
					fates = append(fates, deadletter.Entry(l.Origin, deadletter.Discarded, who(), why))
				}
				return nil
			})
			if err != nil {
				return err
			}
			if !yes {
				return usage("%d dead letters would be discarded: say --yes", len(fates))
			}
			n := len(fates)
			fates = append(fates, &operations.Operation{
				ID: uuid.New(), Kind: operations.Discard, State: operations.Done, Who: who(), Detail: why, Written: uint64(n),
				Outcome: fmt.Sprintf("%d dead letters discarded: %s", n, why),
			})
			if err := (operations.Log{Conn: t.store.Conn()}).Write(cmd.Context(), fates...); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d dead letters discarded\n", n)
			return err
		}),
	}
	c.flags(cmd)
	cmd.Flags().StringVar(&why, "why", "", "the reason, for the record")
	cmd.Flags().BoolVar(&yes, "yes", false, "needed to write anything")
	return cmd
}
