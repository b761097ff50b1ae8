package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/prometheus/procfs"
)

// column is one figure of every row: its name in JSON, what stands above it, and
// how it is printed.
type column struct{ name, head, format string }

// table is what an experiment found.
type table struct {
	name, what, command string
	broker              string
	columns             []column
	rows                [][]any
	notes               []string
}

func newTable(columns ...column) *table {
	return &table{columns: append(columns, column{"load", "load", "%.1f"})}
}

// add appends a row, and the load average to it: a figure taken on a machine that
// had something else to do is to be known as such. A nil is a figure that there
// is none of.
func (t *table) add(row ...any) {
	if len(row) != len(t.columns)-1 {
		panic(fmt.Sprintf("%d figures for %d columns", len(row), len(t.columns)-1))
	}
	t.rows = append(t.rows, append(row, load()))
}

func (t *table) note(format string, args ...any) {
	t.notes = append(t.notes, fmt.Sprintf(format, args...))
}

func (t *table) finish(e experiment, cfg config) {
	t.name, t.what, t.broker = e.name, e.what, cfg.broker
	t.command = "BROKER=" + cfg.broker + " go run ./deploy/bench" + cfg.given + " " + e.name
}

// show prints the table on out, or as JSON there and on tell for people.
func (t *table) show(asJSON bool, out, tell io.Writer) error {
	if !asJSON {
		return t.print(out)
	}
	return errors.Join(t.json(out), t.print(tell))
}

// print writes the table for people.
func (t *table) print(w io.Writer) error {
	fmt.Fprintf(w, "\n%s: %s\n%s   (%d cores, %s)\n\n", t.name, t.what, t.command, runtime.NumCPU(), time.Now().UTC().Format("2006-01-02 15:04"))
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, c := range t.columns {
		fmt.Fprint(tw, c.head, "\t")
	}
	fmt.Fprintln(tw)
	for _, row := range t.rows {
		for i, v := range row {
			if v == nil {
				fmt.Fprint(tw, "-\t")
				continue
			}
			fmt.Fprintf(tw, t.columns[i].format+"\t", readable(v))
		}
		fmt.Fprintln(tw)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, n := range t.notes {
		fmt.Fprintln(w, " ", n)
	}
	return nil
}

// readable is a figure as it is printed: durations are rounded to what they are
// worth.
func readable(v any) any {
	d, ok := v.(time.Duration)
	switch {
	case !ok:
		return v
	case d > 10*time.Second:
		return d.Round(100 * time.Millisecond)
	default:
		return d.Round(time.Millisecond)
	}
}

// json writes the table for programs: durations are in seconds.
func (t *table) json(w io.Writer) error {
	rows := make([]map[string]any, len(t.rows))
	for i, row := range t.rows {
		rows[i] = map[string]any{}
		for j, v := range row {
			if d, ok := v.(time.Duration); ok {
				v = d.Seconds()
			}
			rows[i][t.columns[j].name] = v
		}
	}
	err := json.NewEncoder(w).Encode(map[string]any{
		"experiment": t.name, "what": t.what, "command": t.command, "broker": t.broker,
		"cores": runtime.NumCPU(), "time": time.Now().UTC(), "rows": rows, "notes": strings.Join(t.notes, "\n"),
	})
	if err != nil {
		return fmt.Errorf("printing the table: %w", err)
	}
	return nil
}

// load is the load average of the last minute; nil where the system has none.
func load() any {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return nil
	}
	avg, err := fs.LoadAvg()
	if err != nil {
		return nil
	}
	return avg.Load1
}
