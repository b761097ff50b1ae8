package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
)

// column is one figure of every row: its name in JSON, what stands above it, and
// how it is printed.
type column struct{ name, head, format string }

// table is what was found.
type table struct {
	name, what string
	columns    []column
	rows       [][]any
}

func (t *table) add(row ...any) { t.rows = append(t.rows, row) }

// show prints the table on out, or as JSON there and on words for people.
func (t *table) show(asJSON bool, out, words io.Writer) error {
	if !asJSON {
		return t.print(out)
	}
	for _, row := range t.rows {
		line := map[string]any{"kind": t.name}
		for i, v := range row {
			line[t.columns[i].name] = v
		}
		if err := json.NewEncoder(out).Encode(line); err != nil {
			return err
		}
	}
	return t.print(words)
}

func (t *table) print(w io.Writer) error {
	fmt.Fprintf(w, "\n%s: %s\n\n", t.name, t.what)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, c := range t.columns {
		fmt.Fprint(tw, c.head, "\t")
	}
	fmt.Fprintln(tw)
	for _, row := range t.rows {
		for i, v := range row {
			fmt.Fprintf(tw, t.columns[i].format+"\t", v)
		}
		fmt.Fprintln(tw)
	}
	return tw.Flush()
}
