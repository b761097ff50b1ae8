package main

import (
	"github.com/spf13/cobra"

	"sluice/deploy/service"
)

// configCommand prints the configuration.
func configCommand(environ []string) *cobra.Command {
	return &cobra.Command{
		Use:   "config",
		Short: "Print the configuration in force as YAML, secrets masked",
		Long: `Prints the configuration that "ingest" would run with, given the same file,
environment and flags, as YAML that --config reads again. Secrets are masked.

Exit status: 0 printed, 2 it is not valid.`,
		Example: "  ingest config > edge.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load(cmd, environ)
			if err != nil {
				return err
			}
			if err := service.Print(cmd.OutOrStdout(), cfg); err != nil {
				return &failure{err}
			}
			return nil
		},
	}
}
