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

	"sluice/consumer/internal/balance"
	"sluice/consumer/internal/erase"
	"sluice/consumer/internal/tombstone"
	"sluice/schemas/event"
)

// expired is what retention says.
type expired struct {
	Operation uuid.UUID     `json:"operation,omitzero"`
	Before    time.Time     `json:"before"`
	Rows      uint64        `json:"rows"`
	Months    []erase.Taken `json:"months"`
	// Missing is how many records have neither row nor fate; 0 where the watermark
	// stands already.
	Missing uint64 `json:"missing"`
	DryRun  bool   `json:"dry_run"`
}

// retaining is what retention is to do.
type retaining struct {
	month time.Time // what occurred before it is to go
	wait  time.Duration
	dryRun, yes, asJSON,
	despiteMissing bool
}

func retentionCommand() *cobra.Command {
	var before string
	var olderThan time.Duration
	var how retaining
	cmd := &cobra.Command{
		Use:   "retention",
		Short: "Drop the months before a time, and keep them from returning",
		Long: `retention drops whole months of event_log that ended before a time: --before names
it, --older-than counts back from now, and with neither retention.keep of the
configuration does. A watermark is written first, so that whatever occurred before
it and comes later gets the fate "expired"; then what each partition of the log had
is counted in the journal, so that balance and verify stay right; then the month is
dropped. Conflicts' payloads of the time go with it.

Rows that were lost can't come back once they have expired, and the balance would lack
them for good. So where it lacks any, and more is to expire than has already, nothing is
done until a replay has brought them back, or --despite-missing is said.

Let it run from a timer, as in cron: run again for the same time it does what is left
to do. Before more is to expire, one that was cut short must be finished so.

Exit status: 0 dropped, nothing to drop, or (--dry-run) listed, 1 refused: --yes is
missing, or rows are, 2 it could not be done, or not be finished: run it again, 3
another erasure or retention runs.`,
		Example: "  consumer retention --older-than 9600h --dry-run\n  consumer retention --before 2026-01-01T00:00:00Z --yes",
		Args:    cobra.NoArgs,
		RunE: comparing(func(cmd *cobra.Command, t *tools) error {
			at, err := retentionTime(before, olderThan, t.cfg.Retention.Keep, time.Now())
			if err != nil {
				return err
			}
			how.month = erase.Month(at)
			return t.retain(cmd.Context(), how, cmd.OutOrStdout())
		}),
	}
	f := cmd.Flags()
	f.StringVar(&before, "before", "", "drop the months that ended by this time, as in 2026-01-01T00:00:00Z")
	f.DurationVar(&olderThan, "older-than", 0, "drop the months that ended this long ago, as in 9600h")
	f.DurationVar(&how.wait, "wait", time.Minute, "how long the consumer may take to reach the log's end first")
	f.BoolVar(&how.dryRun, "dry-run", false, "list the months, and change nothing")
	f.BoolVar(&how.yes, "yes", false, "do it")
	f.BoolVar(&how.despiteMissing, "despite-missing", false, "do it though records have neither row nor fate: what of them expires is lost")
	f.BoolVar(&how.asJSON, "json", false, "print the result as one line of JSON")
	return cmd
}

// retentionTime is the time that flags or the configuration name.
func retentionTime(before string, olderThan, keep time.Duration, now time.Time) (time.Time, error) {
	switch {
	case before != "" && olderThan != 0:
		return time.Time{}, errors.New("--before and --older-than exclude each other")
	case before != "":
		at, err := time.Parse(time.RFC3339Nano, before)
		if err != nil {
			return at, fmt.Errorf("--before %q: want a time as in 2026-01-01T00:00:00Z", before)
		}
		if at.After(now) {
			return at, fmt.Errorf("--before %s lies in the future: that would take what is yet to come", before)
		}
		if at.Before(event.Earliest) { // as nanoseconds it would be another time, centuries ahead
			return at, fmt.Errorf("--before %s: nothing occurred before %s", before, event.Earliest.Format(time.DateOnly))
		}
		return at, nil
	case olderThan == 0:
		olderThan = keep
	}
	if olderThan <= 0 {
		return time.Time{}, errors.New("name a time by --before or --older-than, or set retention.keep")
	}
	at := now.Add(-olderThan)
	if at.Before(event.Earliest) {
		at = event.Earliest // nothing is that old
	}
	return at, nil
}

func (t *tools) retain(ctx context.Context, how retaining, out io.Writer) error {
	conn, month := t.store.Conn(), how.month
	months, err := erase.Before(ctx, conn, month)
	if err != nil {
		return err
	}
	r := expired{Before: month, Months: []erase.Taken{}, DryRun: how.dryRun}
	r.add(months)
	if how.dryRun {
		if r.Missing, err = t.missing(ctx, month); err != nil {
			return err
		}
		return r.write(out, how.asJSON)
	}
	if !how.yes {
		return exitError{1, fmt.Errorf("%d rows of %d months before %s would be dropped for good: say --yes to do it", r.Rows, len(r.Months), month.Format(time.DateOnly))}
	}
	r.Operation = uuid.New()
	began := time.Now()
	release, err := t.takeAlone(ctx, r.Operation)
	if err != nil {
		return err
	}
	defer release()
	if r.Missing, err = t.missing(ctx, month); err != nil {
		return err
	}
	if r.Missing > 0 && !how.despiteMissing {
		return exitError{1, fmt.Errorf("nothing is done: %s", r.lacks())}
	}
	note := func(state string) error {
		text, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("noting the retention: %w", err)
		}
		return erase.Note(ctx, conn, r.Operation, "retention", state, who(), string(text), began)
	}
	if err := note("begun"); err != nil {
		return err
	}
	if err := erase.Watermark(ctx, conn, month, r.Operation); err != nil {
		return err
	}
	under, err := t.decidedBy(ctx, how.wait)
	if err != nil {
		return fmt.Errorf("the watermark stands, and nothing from before it is stored any more; nothing is dropped yet: %w", err)
	}
	if months, err = erase.Before(ctx, conn, month); err != nil {
		return err
	}
	r.Rows, r.Months = 0, []erase.Taken{}
	r.add(months)
	for _, m := range months {
		if err := m.Drop(ctx, conn, t.cfg.Kafka.Topic); err != nil {
			return fmt.Errorf("not finished, run it again: %w", err)
		}
	}
	// After the drop, which makes the table forget the month's tokens.
	if sealed, err := t.seal(ctx, under, &tombstone.Set{Before: month}); err != nil {
		return fmt.Errorf("not finished, run it again: %w", err)
	} else if sealed > 0 {
		if err := erase.Late(ctx, conn, month); err != nil {
			return fmt.Errorf("not finished, run it again: %w", err)
		}
	}
	if err := erase.Scrub(ctx, conn, month); err != nil {
		return fmt.Errorf("not finished, run it again: %w", err)
	}
	if err := note("done"); err != nil {
		return err
	}
	return r.write(out, how.asJSON)
}

// missing is how many records have neither row nor fate, of which a watermark at month
// would have some never come back. What has expired already never does. It is an error
// that an earlier retention was cut short: what that had counted and not dropped the
// sheet has twice, and would make up for what is missing.
func (t *tools) missing(ctx context.Context, month time.Time) (uint64, error) {
	set, err := tombstone.Read(ctx, t.store.Conn())
	if err != nil || !month.After(set.Before) {
		return 0, err
	}
	if err := erase.Unexpired(ctx, t.store.Conn()); err != nil {
		return 0, err
	}
	return balance.Missing(ctx, t.store.Conn())
}

// lacks says what is missing and what to do about it.
func (r expired) lacks() string {
	return fmt.Sprintf("%d records have neither row nor fate (view balance), since rows were lost; those from before %s could not come back any more."+
		" Bring them back first (consumer replay --from earliest --yes), or say --despite-missing if Kafka no longer has them", r.Missing, r.Before.Format(time.DateOnly))
}

func (r *expired) add(months []erase.Taken) {
	for _, m := range months {
		r.Rows += m.Rows
		r.Months = append(r.Months, m)
	}
}

func (r expired) write(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(r)
	}
	verb := "dropped"
	if r.DryRun {
		verb = "would be dropped"
	}
	for _, m := range r.Months {
		fmt.Fprintf(w, "%d  %d rows\n", m.Month, m.Rows)
	}
	if r.DryRun && r.Missing > 0 {
		fmt.Fprintf(w, "refused as it is: %s\n", r.lacks())
	}
	_, err := fmt.Fprintf(w, "%d rows of %d months %s, before %s\n", r.Rows, len(r.Months), verb, r.Before.Format(time.DateOnly))
	return err
}
