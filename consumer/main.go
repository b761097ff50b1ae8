// Command consumer reads events from the log, decides once what becomes of
// each, and writes the rows to ClickHouse. With no command it runs the service;
// its commands are the operators' tools.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"sluice/deploy/service"
)

// exitError carries the exit status of what a command did or found, with or
// without a message. Any other error is one of usage, configuration or a thing
// that could not be done, and exits with 2.
type exitError struct {
	status int
	err    error
}

func (e exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e exitError) Unwrap() error { return e.err }

func main() {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // the terminal is closed; nohup wants it ignored
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	err := command().ExecuteContext(ctx)
	stop()
	if err == nil {
		return
	}
	status := 2 // usage and configuration; what a command found is its own to say
	var exit exitError
	if errors.As(err, &exit) {
		status = exit.status
	}
	if err.Error() != "" {
		fmt.Fprintln(os.Stderr, "consumer:", err)
	}
	os.Exit(status)
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "consumer",
		Short: "Write the log's events to ClickHouse, each exactly once",
		Long: `Without a command, consumer runs the service: it joins the consumer group,
decides once what becomes of each record, and writes rows and journal to
ClickHouse until it is told to stop (SIGINT or SIGTERM).

Every key of the configuration ("consumer config" prints them) can be set in a
YAML file (--config), by an environment variable (kafka.brokers is
SLUICE_KAFKA_BROKERS), or by a flag (--kafka.brokers); the later wins.

Exit status: 0 stopped in order, 1 the service could not go on, 2 usage,
configuration, or a command that could not be carried out.`,
		Example:       "  consumer --config consumer.yaml\n  consumer status",
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load(cmd)
			if err != nil {
				return err
			}
			if err := run(cmd.Context(), cfg); err != nil {
				return exitError{1, err}
			}
			return nil
		},
	}
	service.AddFlags(root, defaults())
	root.AddCommand(configCommand(), migrateCommand(), topicsCommand(), verifyCommand(), replayCommand(), doctorCommand(), statusCommand(), edgesCommand())
	root.AddCommand(reportCommand())
	root.AddCommand(dlqCommand(), lagCommand(), receiptCommand(), pauseCommand(), resumeCommand(), skipCommand(), offsetsCommand())
	root.AddCommand(eraseCommand(), retentionCommand(), grantsCommand(), schemaCommand())
	service.RefuseUnknown(root)
	return root
}

func configCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "config",
		Short: "Print the configuration in force as YAML, secrets masked",
		Long: `config prints the configuration that the service would run with, given the same file,
environment and flags, as YAML that --config reads again. Secrets are masked.

Exit status: 0 printed, 2 it is not valid.`,
		Example: "  consumer config --group.id sluice > consumer.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load(cmd)
			if err != nil {
				return err
			}
			return service.Print(cmd.OutOrStdout(), cfg)
		},
	}
}
