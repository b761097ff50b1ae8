package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/spf13/cobra"

	"sluice/consumer/internal/grants"
	schema "sluice/schemas/clickhouse"
)

func grantsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "grants",
		Short: "The roles that a ClickHouse with users should have: analyst, writer, operator",
	}
	cmd.AddCommand(grantsPrintCommand(), grantsCheckCommand())
	return cmd
}

func grantsPrintCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "print",
		Short: "Print the statements that make roles, limits and rights",
		Long: `print writes the statements for an administrator to run: a settings profile with an
analyst's limits of memory, time and result, the roles sluice_analyst (reads the
views), sluice_writer (the service: inserts and reads, changes nothing) and
sluice_operator (migrate, erase, retention), and their rights. Each may be run again.
Users are yours: CREATE USER … DEFAULT ROLE sluice_analyst.

Exit status: 0 printed, 2 usage or configuration.`,
		Example: "  consumer grants print | clickhouse-client --multiquery --user admin --password …",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			database, err := databaseOf(cmd)
			if err != nil {
				return err
			}
			for _, statement := range schema.AccessStatements(database) {
				if _, err := fmt.Fprintln(cmd.OutOrStdout(), statement+";"); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func databaseOf(cmd *cobra.Command) (string, error) {
	cfg, err := load(cmd)
	if err != nil {
		return "", err
	}
	opts, err := clickhouse.ParseDSN(cfg.ClickHouse.DSN)
	if err != nil {
		return "", fmt.Errorf("clickhouse.dsn: %w", err)
	}
	if opts.Auth.Database == "" {
		return "default", nil
	}
	return opts.Auth.Database, nil
}

func grantsCheckCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Tell which roles and rights are missing, each with the statement that makes it",
		Long: `check compares the server's roles and rights with those that "grants print" makes.
It needs the right to read system.roles, system.grants and system.settings_profiles.

Exit status: 0 nothing is missing, 1 something is, 2 it could not be told; so it is
with the local engine, which has no users.`,
		Example: "  consumer grants check --json",
		Args:    cobra.NoArgs,
		RunE: comparing(func(cmd *cobra.Command, t *tools) error {
			database, err := databaseOf(cmd)
			if err != nil {
				return err
			}
			missing, err := grants.Missing(cmd.Context(), t.store.Conn(), database)
			if errors.Is(err, grants.ErrNoUsers) {
				return fmt.Errorf("could not tell: %w", err)
			}
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if asJSON {
				if missing == nil {
					missing = []string{}
				}
				err = json.NewEncoder(out).Encode(struct {
					OK      bool     `json:"ok"`
					Missing []string `json:"missing"`
				}{len(missing) == 0, missing})
			} else {
				for _, statement := range missing {
					fmt.Fprintln(out, statement+";")
				}
				if len(missing) == 0 {
					_, err = fmt.Fprintln(out, "nothing is missing")
				}
			}
			if err == nil && len(missing) > 0 {
				err = exitError{1, nil}
			}
			return err
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it as one line of JSON")
	return cmd
}
