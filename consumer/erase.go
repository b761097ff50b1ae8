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

	"sluice/consumer/internal/erase"
	"sluice/consumer/internal/mutant"
	"sluice/consumer/internal/replay"
	"sluice/consumer/internal/tombstone"
	"sluice/consumer/internal/verify"
	"sluice/schemas/event"
)

// erased is what erase says.
type erased struct {
	Operation uuid.UUID `json:"operation,omitzero"`
	Source    string    `json:"source,omitempty"`
	Upto      time.Time `json:"upto"`
	erase.Found
	DryRun bool `json:"dry_run"`
}

func eraseCommand() *cobra.Command {
	var whose erase.Actor
	var upto string
	var dryRun, yes, asJSON bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "erase",
		Short: "Erase an actor's events, and keep them from returning",
		Long: `erase takes an actor's events out of ClickHouse: rows, conflicts' payloads, and
whatever the journal says of their records. It writes a tombstone first, so that a
late duplicate, a replay or the log itself does not bring them back; then the fate
"erased" for each record, so that balance and verify stay right; then it deletes,
and returns when the parts are rewritten.

What occurred up to --upto is erased, by default up to five minutes from now, since
clocks may be ahead by so much. Events that the actor makes later are new ones. The
tombstone holds the actor's SHA-256, not the name.

Copies that stay: the log's, and the dead letters' topic, for as long as Kafka keeps
them; tables that "replay --into" left behind; backups.

Exit status: 0 erased, or (--dry-run) counted, 1 refused: --yes is missing, 2 it
could not be done, or not be finished: run it again, 3 another erasure or retention
runs.`,
		Example: "  consumer erase --actor user-17 --dry-run\n  consumer erase --actor user-17 --source shop --yes",
		Args:    cobra.NoArgs,
		RunE: comparing(func(cmd *cobra.Command, t *tools) error {
			if whose.ID == "" {
				return errors.New("--actor must name the actor")
			}
			var err error
			if whose.Upto, err = eraseTime(upto, time.Now()); err != nil {
				return err
			}
			return t.erase(cmd.Context(), whose, wait, dryRun, yes, asJSON, cmd.OutOrStdout())
		}),
	}
	f := cmd.Flags()
	f.StringVar(&whose.ID, "actor", "", "the actor's id, exactly as it was sent")
	f.StringVar(&whose.Source, "source", "", "only this source's events (default all)")
	f.StringVar(&upto, "upto", "", "the last moment of what is erased, by occurred_at (default five minutes from now)")
	f.DurationVar(&wait, "wait", time.Minute, "how long the consumer may take to reach the log's end first")
	f.BoolVar(&dryRun, "dry-run", false, "count, and change nothing")
	f.BoolVar(&yes, "yes", false, "do it")
	f.BoolVar(&asJSON, "json", false, "print the result as one line of JSON")
	return cmd
}

// eraseTime is the time that --upto names. It can be stored: as nanoseconds, one
// past that would count as another, centuries away.
func eraseTime(upto string, now time.Time) (time.Time, error) {
	if upto == "" {
		return now.Add(5 * time.Minute).UTC(), nil
	}
	at, err := time.Parse(time.RFC3339Nano, upto)
	switch {
	case err != nil:
		return at, fmt.Errorf("--upto %q: want a time as in 2026-01-02T03:04:05Z", upto)
	case at.Before(event.Earliest):
		return at, fmt.Errorf("--upto %s: nothing occurred before %s", upto, event.Earliest.Format(time.DateOnly))
	case at.After(event.Latest): // all there can be
		return event.Latest, nil
	}
	return at.UTC(), nil
}

func (t *tools) erase(ctx context.Context, a erase.Actor, wait time.Duration, dryRun, yes, asJSON bool, out io.Writer) error {
	conn := t.store.Conn()
	found, err := a.Count(ctx, conn)
	if err != nil {
		return err
	}
	r := erased{Source: a.Source, Upto: a.Upto, Found: found, DryRun: dryRun}
	if dryRun {
		return r.write(out, asJSON)
	}
	if !yes {
		return exitError{1, fmt.Errorf("%d rows, %d conflicts and %d other fates would be erased for good: say --yes to do it", found.Rows, found.Conflicts, found.Fates)}
	}
	r.Operation = uuid.New()
	began := time.Now()
	release, err := t.takeAlone(ctx, r.Operation)
	if err != nil {
		return err
	}
	defer release()
	if err := erase.Unexpired(ctx, conn); err != nil {
		return err
	}
	detail := func() string {
		text, _ := json.Marshal(map[string]any{ // of numbers and strings, which always encode
			"actor_sha256": fmt.Sprintf("%x", tombstone.HashOf(a.ID)), "source": a.Source, "upto": a.Upto,
			"rows": r.Rows, "conflicts": r.Conflicts, "fates": r.Fates,
		})
		return string(text)
	}
	if err := erase.Note(ctx, conn, r.Operation, "erase", "begun", who(), detail(), began); err != nil {
		return err
	}
	if err := a.Bury(ctx, conn, r.Operation); err != nil {
		return err
	}
	under, err := t.decidedBy(ctx, wait)
	if err != nil {
		return fmt.Errorf("the tombstone stands, and nothing new of the actor is stored; what is stored is not erased yet: %w", err)
	}
	var taken tombstone.Set
	taken.Erase(tombstone.HashOf(a.ID), a.Source, a.Upto)
	if _, err := t.seal(ctx, under, &taken); err != nil {
		return fmt.Errorf("not finished, run it again: %w", err)
	}
	if r.Found, err = a.Count(ctx, conn); err != nil {
		return err
	}
	if err := a.Take(ctx, conn, t.cfg.Kafka.Topic); err != nil {
		return fmt.Errorf("not finished, run it again: %w", err)
	}
	left, err := a.Count(ctx, conn)
	if err != nil {
		return err
	}
	if left != (erase.Found{}) {
		return fmt.Errorf("not finished, run it again: %d rows and %d fates came while it ran", left.Rows, left.Fates+left.Conflicts)
	}
	if err := erase.Note(ctx, conn, r.Operation, "erase", "done", who(), detail(), began); err != nil {
		return err
	}
	return r.write(out, asJSON)
}

// takeAlone claims to be the only command that takes rows away: of two at once each
// would give a row its fate, and the balance count it twice.
func (t *tools) takeAlone(ctx context.Context, run uuid.UUID) (release func(), err error) {
	release, err = replay.Take(ctx, t.cfg.Kafka.Options(t.log), t.cfg.Kafka.Control,
		replay.Lease{Kind: "erasure or retention", Run: run, By: who(), Since: time.Now().UTC()})
	if held := (replay.HeldError{}); errors.As(err, &held) {
		return nil, exitError{3, err}
	}
	return release, err
}

// decidedBy returns when whatever is read from the log from now on is decided by
// the tombstones that stand now, and all that was read before is journaled. It returns
// the batches that may have been decided before: a late INSERT of one, by a member that
// lost the partition, must be kept out.
func (t *tools) decidedBy(ctx context.Context, wait time.Duration) ([]underWay, error) {
	ranges, err := t.partitions(ctx)
	if err != nil {
		return nil, err
	}
	under, err := t.underWay(ctx, ranges)
	if err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(tombstone.MaxAge + 500*time.Millisecond):
	}
	if ranges, err = t.partitions(ctx); err != nil {
		return nil, err
	}
	begun, err := t.underWay(ctx, ranges)
	if err != nil {
		return nil, err
	}
	under = append(under, begun...)
	deadline := time.Now().Add(wait)
	if err := t.reach(ctx, ranges, wait); err != nil {
		return nil, err
	}
	if err := t.reached(ctx, ranges); err != nil {
		return nil, err
	}
	for _, u := range under {
		if mutant.On("open-intents-not-awaited") {
			break
		}
		if err := t.ended(ctx, u, deadline); err != nil {
			return nil, err
		}
	}
	return under, erase.Landed(ctx, t.store.Conn())
}

// reached tells whether the journal has got to the ends of ranges.
func (t *tools) reached(ctx context.Context, ranges []verify.Range) error {
	for _, r := range ranges {
		if r.From >= r.To {
			continue
		}
		seen, err := t.store.Seen(ctx, r.At(r.To-1))
		if err != nil {
			return err
		}
		if seen.End < r.To {
			return fmt.Errorf("partition %d is journaled up to offset %d of %d: start a consumer or wait until it has caught up, and run this again",
				r.Self.Partition, max(seen.End, 0), r.To)
		}
	}
	return nil
}

func (r erased) write(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(r)
	}
	verb := "erased"
	if r.DryRun {
		verb = "would be erased"
	}
	_, err := fmt.Fprintf(w, "%d rows, %d conflicts and %d other fates %s, up to %s\n", r.Rows, r.Conflicts, r.Fates, verb, r.Upto.Format(time.RFC3339))
	return err
}
