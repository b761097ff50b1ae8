package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
)

// writeLines writes what a command lists: for machines as one line of JSON each, for
// people as a table under heading, whose columns, as those of row, lie between tabs.
func writeLines[T any](w io.Writer, all []T, asJSON bool, heading string, row func(T) string) error {
	if asJSON {
		enc := json.NewEncoder(w)
		for _, x := range all {
			if err := enc.Encode(x); err != nil {
				return err
			}
		}
		return nil
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, heading)
	for _, x := range all {
		fmt.Fprintln(table, row(x))
	}
	return table.Flush()
}
