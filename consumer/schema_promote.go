package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"sluice/consumer/internal/operations"
	"sluice/consumer/internal/promote"
	schema "sluice/schemas/clickhouse"
)

// promotion is what promote was told.
type promotion struct {
	column             promote.Column
	dir                string
	apply, dryRun, yes bool
	asJSON             bool
}

func schemaPromoteCommand(dir *string) *cobra.Command {
	var how promotion
	var column string
	cmd := &cobra.Command{
		Use:   "promote EVENT_TYPE.MEMBER",
		Short: "Make a typed column of a member of the payload",
		Long: `promote makes a column of event_log, and of the views events and events_physical,
of a member of an event type's payload: integer is Nullable(Int64), number
Nullable(Float64), boolean Nullable(Bool), string Nullable(String), an enum of strings
LowCardinality(Nullable(String)), format date-time Nullable(DateTime64(9, 'UTC')). All
versions of the type's schema must agree. What does not fit is NULL; payload and
payload_text stay.

It prints the migration, or writes it to --dir under the next number, to be built in.
--apply runs it: the column is there at once and right, read by its expression where
parts lack it; then it is filled month by month, beside live INSERTs, which name no
such column. Cut short, it goes on where it was when it is run again; run once more it
changes nothing. Building the migration in afterwards changes nothing either.

Exit status: 0 printed, written, applied, or nothing left to do, 1 refused: --yes is
missing, 2 the member is unknown or of mixed types, the name is taken, or it could
not be done, or not be finished: run it again.`,
		Example: `  consumer schema promote page_view.duration_ms --schemas schemas/jsonschema
  consumer schema promote page_view.duration_ms --dir schemas/clickhouse/migrations
  consumer schema promote page_view.duration_ms --apply --yes`,
		Args: cobra.ExactArgs(1),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return comparing(func(cmd *cobra.Command, t *tools) error {
			r, err := registry(*dir)
			if err != nil {
				return err
			}
			p, err := r.Find(args[0])
			if err != nil {
				return err
			}
			if how.column, err = promote.NewColumn(p, column); err != nil {
				return err
			}
			return t.promote(cmd.Context(), how, cmd.OutOrStdout())
		})(cmd, args)
	}
	f := cmd.Flags()
	f.StringVar(&column, "column", "", "the column's name (default the event type's and the member's, joined by _)")
	f.StringVar(&how.dir, "dir", "", "write the migration into this folder, under the next number")
	f.BoolVar(&how.apply, "apply", false, "run it, and fill the column")
	f.BoolVar(&how.dryRun, "dry-run", false, "with --apply: say what would be done, and change nothing")
	f.BoolVar(&how.yes, "yes", false, "with --apply: do it")
	f.BoolVar(&how.asJSON, "json", false, "print the result as one line of JSON")
	return cmd
}

// promoted is what promote says.
type promoted struct {
	Property  string    `json:"property"`
	Column    string    `json:"column"`
	Type      string    `json:"type"`
	File      string    `json:"file,omitempty"`
	Migration string    `json:"migration,omitempty"`
	Operation uuid.UUID `json:"operation,omitzero"`
	Applied   bool      `json:"applied"`
	DryRun    bool      `json:"dry_run,omitempty"`
	// Rows are event_log's, Left those that were or are to be filled.
	Rows   uint64          `json:"rows"`
	Left   uint64          `json:"left"`
	Months []promote.Month `json:"months,omitempty"`
}

func (t *tools) promote(ctx context.Context, how promotion, out io.Writer) error {
	c, table := how.column, promote.Table{Conn: t.store.Conn()}
	have, err := table.Columns(ctx)
	if err != nil {
		return err
	}
	there, others, err := promote.Judge(c, have)
	if err != nil {
		return err
	}
	r := promoted{Property: c.Name(), Column: c.Column, Type: c.Type(), DryRun: how.dryRun}
	text := c.Migration(others)
	switch {
	case how.dir != "":
		if r.File, err = writeMigration(how.dir, c, text); err != nil {
			return err
		}
	case !how.apply:
		r.Migration = text
	}
	if !how.apply {
		return r.write(out, how.asJSON)
	}
	if r.Months, err = table.Months(ctx, c.Column); err != nil {
		return err
	}
	r.Rows, r.Left = rowsOf(r.Months)
	if how.dryRun {
		r.Migration = text
		return r.write(out, how.asJSON)
	}
	if !how.yes {
		return exitError{1, fmt.Errorf("the column %s would be added, and %d rows of %d months written with it: say --yes to do it", c.Column, r.Left, len(r.Months))}
	}
	if t.cfg.ClickHouse.Cluster != "" {
		return errors.New("on a cluster the statements are for its administrator: print them, without --apply, and see \"consumer migrate --print\" for their form")
	}
	return t.promoteNow(ctx, table, c, r, there, how.asJSON, out)
}

// promoteNow adds and fills the column, and writes down that it was done.
func (t *tools) promoteNow(ctx context.Context, table promote.Table, c promote.Column, r promoted, there, asJSON bool, out io.Writer) (err error) {
	op := &operations.Operation{
		ID: uuid.New(), Kind: operations.Promote, State: operations.Running, Who: who(),
		Detail: r.Property + " as " + r.Column + " " + r.Type, Found: map[string]int64{"rows": int64(r.Rows), "missing": int64(r.Left)},
	}
	r.Operation = op.ID
	audit := operations.Log{Conn: t.store.Conn()}
	if err := audit.Write(ctx, op); err != nil {
		return err
	}
	var filled uint64
	defer func() {
		op.State, op.Written = operations.Done, filled
		op.Outcome = fmt.Sprintf("%d rows filled", filled)
		switch {
		case errors.Is(err, context.Canceled):
			op.State = operations.Interrupted
			op.Outcome += ", the column stands and is right; run it again to go on"
		case err != nil:
			op.State, op.Outcome = operations.Failed, err.Error()
		case there && filled == 0:
			op.Outcome = "nothing was left to do"
		}
		bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if auditErr := audit.Write(bound, op); err == nil {
			err = auditErr
		}
		if err == nil {
			err = r.write(out, asJSON)
		}
	}()
	if err := table.Add(ctx, c); err != nil {
		return err
	}
	bar := t.progress(int64(r.Rows), "fill "+c.Column)
	start := r.Rows - r.Left
	err = table.Fill(ctx, c, 200*time.Millisecond, func(rows uint64) {
		filled = max(filled, min(rows-min(rows, start), r.Left))
		bar.ChangeMax64(max(int64(r.Rows), int64(rows))) // what comes in meanwhile has the column
		bar.Set64(int64(rows))                           //nolint:errcheck // a bar that can't be drawn is no fault
	})
	bar.Finish() //nolint:errcheck // as above
	if err != nil {
		return fmt.Errorf("the column %s stands and is right; not all parts have it yet, run this again: %w", c.Column, err)
	}
	r.Applied, filled = true, r.Left // what retention took meanwhile is not missed
	r.Months, err = table.Months(ctx, c.Column)
	r.Rows, r.Left = rowsOf(r.Months)
	return err
}

func (r promoted) write(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(r)
	}
	var err error
	switch {
	case r.Applied:
		_, err = fmt.Fprintf(w, "%s is the column %s %s of event_log, events and events_physical; all %d rows have it\n", r.Property, r.Column, r.Type, r.Rows)
	case r.DryRun:
		_, err = fmt.Fprintf(w, "%s-- would be run, and %d rows of %d would be filled, month by month:\n", r.Migration, r.Left, r.Rows)
		for _, m := range r.Months {
			if m.Left > 0 && err == nil {
				_, err = fmt.Fprintf(w, "--   %s: %d rows of %d\n", m.ID, m.Left, m.Rows)
			}
		}
	case r.File != "":
		_, err = fmt.Fprintf(w, "%s: build it in and run \"consumer migrate\", or have it at once with --apply\n", r.File)
	default:
		_, err = io.WriteString(w, r.Migration)
	}
	return err
}

// writeMigration writes a migration under the number after the last of dir and of
// this program. The one that is there for the column already is left as it is.
func writeMigration(dir string, c promote.Column, text string) (string, error) {
	migrations, err := schema.Migrations()
	if err != nil {
		return "", err
	}
	last := len(migrations)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("--dir: %w", err)
	}
	name := "_promote_" + c.Column + ".sql"
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), name) && len(e.Name()) == 4+len(name) {
			return filepath.Join(dir, e.Name()), nil
		}
		var n int
		if _, err := fmt.Sscanf(e.Name(), "%04d_", &n); err == nil {
			last = max(last, n)
		}
	}
	file := filepath.Join(dir, fmt.Sprintf("%04d%s", last+1, name))
	return file, writeWhole(file, func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	})
}
