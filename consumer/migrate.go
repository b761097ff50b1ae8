package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"sluice/consumer/internal/migrate"
)

func migrateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "migrate",
		Short: "Bring ClickHouse's schema to the version this program knows",
		Long: `migrate creates the database that clickhouse.dsn names if it is missing, and
applies what is missing of the schema. Run again it changes nothing; a run that
was cut short is finished by the next. A schema newer than this program is
refused.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load(cmd)
			if err != nil {
				return err
			}
			return migrate.Up(cmd.Context(), cfg.ClickHouse.DSN, func(line string) {
				fmt.Fprintln(cmd.OutOrStdout(), line)
			})
		},
	}
}
