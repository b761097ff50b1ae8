package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"sluice/consumer/internal/migrate"
	schema "sluice/schemas/clickhouse"
)

func migrateCommand() *cobra.Command {
	var show bool
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Bring ClickHouse's schema to the version this program knows",
		Long: `migrate creates the database that clickhouse.dsn names if it is missing, and
applies what is missing of the schema. Run again it changes nothing; a run that
was cut short is finished by the next. A schema newer than this program is
refused.

With clickhouse.cluster set, tables are Replicated… on each shard, with Distributed
ones over them under the same names, sharded by the event's key. That form is
checked by ClickHouse's parser and has not been run on a cluster: look at it first
(--print).

Exit status: 0 the schema is at this program's version, 2 it is not.`,
		Example: "  consumer migrate\n  consumer migrate --print --clickhouse.cluster main",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load(cmd)
			if err != nil {
				return err
			}
			if show {
				return printMigrations(cmd.OutOrStdout(), cfg.ClickHouse.Cluster)
			}
			return migrate.UpOn(cmd.Context(), cfg.ClickHouse.DSN, cfg.ClickHouse.Cluster, func(line string) {
				fmt.Fprintln(cmd.OutOrStdout(), line)
			})
		},
	}
	cmd.Flags().BoolVar(&show, "print", false, "print all statements, and run none")
	return cmd
}

func printMigrations(w io.Writer, cluster string) error {
	migrations, err := schema.Migrations()
	if err != nil {
		return err
	}
	for _, m := range migrations {
		fmt.Fprintf(w, "-- %04d %s\n", m.Version, m.Name)
		for _, s := range m.Statements {
			forms := []string{s}
			if cluster != "" {
				if forms, err = schema.Cluster(s, cluster); err != nil {
					return err
				}
			}
			for _, form := range forms {
				fmt.Fprintf(w, "%s;\n\n", form)
			}
		}
	}
	return nil
}
