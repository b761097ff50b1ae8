package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"sluice/consumer/internal/promote"
)

func schemaCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "schema",
		Short: "Members of payloads as typed columns, by the registered JSON Schemas",
	}
	cmd.PersistentFlags().StringVar(&dir, "schemas", "", "the folder of the registered schemas, the edge's schemas.dir (default $SLUICE_SCHEMAS_DIR)")
	cmd.AddCommand(schemaListCommand(&dir), schemaPromoteCommand(&dir))
	return cmd
}

// registry opens the folder of schemas.
func registry(dir string) (*promote.Registry, error) {
	if dir = cmp.Or(dir, os.Getenv("SLUICE_SCHEMAS_DIR")); dir == "" {
		return nil, errors.New("say where the registered schemas are, as in --schemas schemas/jsonschema")
	}
	r, err := promote.Open(os.DirFS(dir))
	if err != nil {
		return nil, fmt.Errorf("the schemas in %s: %w", dir, err)
	}
	return r, nil
}

// listed is a member of a payload, and its column if it has one.
type listed struct {
	Property string `json:"property"`
	Type     string `json:"type"`
	Versions []int  `json:"versions"`
	// Column is its name, Rows those of event_log, Left those in parts that lack it.
	Column string `json:"column,omitempty"`
	Rows   uint64 `json:"rows,omitempty"`
	Left   uint64 `json:"left,omitempty"`
}

func schemaListCommand(dir *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the members that can be columns, and those that are",
		Long: `list shows each member of a payload that the registered schemas give one type, and
its column if it was promoted: filled, or how many rows lie in parts that are read by
the expression still.

Exit status: 0 listed, 2 it could not be.`,
		Example: "  consumer schema list --schemas schemas/jsonschema",
		Args:    cobra.NoArgs,
		RunE: comparing(func(cmd *cobra.Command, t *tools) error {
			r, err := registry(*dir)
			if err != nil {
				return err
			}
			table := promote.Table{Conn: t.store.Conn()}
			have, err := table.Columns(cmd.Context())
			if err != nil {
				return err
			}
			columns := map[string]string{}
			for _, e := range have {
				if member, ok := e.Promoted(); ok {
					columns[member] = e.Name
				}
			}
			var all []listed
			for _, p := range r.List() {
				l := listed{Property: p.Name(), Type: string(p.Kind), Versions: p.Versions, Column: columns[p.Name()]}
				if l.Column != "" {
					months, err := table.Months(cmd.Context(), l.Column)
					if err != nil {
						return err
					}
					l.Rows, l.Left = rowsOf(months)
				}
				all = append(all, l)
			}
			return writeListed(cmd.OutOrStdout(), all, asJSON)
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one line of JSON a member")
	return cmd
}

func rowsOf(months []promote.Month) (rows, left uint64) {
	for _, m := range months {
		rows, left = rows+m.Rows, left+m.Left
	}
	return rows, left
}

func writeListed(w io.Writer, all []listed, asJSON bool) error {
	return writeLines(w, all, asJSON, "MEMBER\tTYPE\tCOLUMN\tSTATE", func(l listed) string {
		column, state := "-", "not promoted"
		if l.Column != "" {
			column, state = l.Column, "filled"
		}
		if l.Left > 0 {
			state = fmt.Sprintf("%d rows of %d to fill", l.Left, l.Rows)
		}
		return fmt.Sprintf("%s\t%s\t%s\t%s", l.Property, l.Type, column, state)
	})
}
