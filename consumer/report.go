package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	page "sluice/consumer/internal/report"
	"sluice/consumer/internal/store"
	"sluice/schemas/event"
)

func reportCommand() *cobra.Command {
	var out, from, to string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "report",
		Short: "Write one HTML page of what ClickHouse holds: charts, freshness, completeness, balance",
		Long: `report writes a page for people: events over time, top sources and types,
duplicates and conflicts, freshness, completeness and the balance. It is one file
that fetches nothing and runs no script, so it can be mailed. Only ClickHouse is
asked, and nothing is changed.

--from (inclusive) and --to (exclusive) go by when events occurred, and are
widened to whole steps of the chart. Each takes an RFC 3339 time, a date in UTC,
or a time ago: 36h, 7d, 4w. Without them: the 30 days before the end of the last
hour that has an event.

Exit status: 0 written, 2 it could not be.`,
		Example: `  consumer report -o week.html --from 7d
  consumer report -o - --from 2026-01-01 --to 2026-02-01 > january.html
  consumer report --json | jq .events`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			cfg, err := load(cmd)
			if err != nil {
				return err
			}
			now := time.Now()
			in := page.Range{}
			if in.From, err = reportTime("--from", from, now); err != nil {
				return err
			}
			if in.To, err = reportTime("--to", to, now); err != nil {
				return err
			}
			st, err := store.Open(cfg.ClickHouse.DSN)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, st.Close()) }()
			r, err := page.Gather(cmd.Context(), st.Conn(), in)
			if err != nil {
				return err
			}
			write := r.WriteHTML
			if asJSON {
				write = func(w io.Writer) error { return json.NewEncoder(w).Encode(r) }
				if !cmd.Flags().Changed("output") {
					out = "-"
				}
			}
			if out == "-" {
				return write(cmd.OutOrStdout())
			}
			if err := writeWhole(out, write); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %d events from %s to %s\n", out, r.Events, r.From.Format(time.RFC3339), r.To.Format(time.RFC3339))
			return nil
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "sluice-report.html", `file to write; "-" is standard output`)
	cmd.Flags().StringVar(&from, "from", "", "first moment: a time, a date, or a time ago (default 30 days before --to)")
	cmd.Flags().StringVar(&to, "to", "", "first moment that is not in it (default the end of the last hour that has an event)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "write the figures as one line of JSON, to standard output unless -o says where")
	return cmd
}

// writeWhole writes a file beside its name first, so that a report that was
// there is not replaced by half of one.
func writeWhole(name string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), ".sluice-report-*")
	if err != nil {
		return fmt.Errorf("writing the report: %w (choose another file with -o)", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // the error that led here is the one to tell
		}
	}()
	if err := errors.Join(write(f), f.Chmod(0o644), f.Close()); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return fmt.Errorf("writing the report: %w (choose another file with -o)", err)
	}
	return nil
}

// reportTime reads a flag of time; "" is the zero time.
func reportTime(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if t, fault := event.ParseTime(text); fault == "" {
		return t, nil
	}
	if t, err := time.Parse(time.DateOnly, text); err == nil {
		return t, nil
	}
	ago, factor := text, int64(1)
	for unit, hours := range map[string]int64{"d": 24, "w": 7 * 24} {
		if number, ok := strings.CutSuffix(text, unit); ok {
			ago, factor = number+"h", hours
		}
	}
	if d, err := time.ParseDuration(ago); err == nil && d >= 0 && int64(d) < math.MaxInt64/factor {
		return now.Add(-time.Duration(int64(d) * factor)), nil
	}
	return time.Time{}, fmt.Errorf("%s %q: want a time (2026-01-02T15:04:05Z), a date (2026-01-02) or a time ago (36h, 7d, 4w)", flag, text)
}
