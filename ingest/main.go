// Command ingest is Sluice's edge: it takes events over HTTP and answers for
// each one once the log has acknowledged it.
//
// Exit status: 0 after an orderly stop; 1 when it could not start or had to give
// up, or when stopping left something behind; 2 when the command line or the
// configuration is wrong.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"sluice/deploy/service"
)

const (
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// After the first signal the next has its default effect: it ends the
	// process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// run runs the command that args name and returns the exit status.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	root := rootCommand(environ)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var failed *failure
	switch {
	case err == nil:
		return 0
	case errors.As(err, &failed):
		fmt.Fprintln(stderr, "ingest:", failed.err)
		return exitFailed
	}
	fmt.Fprintf(stderr, "ingest: %v\nRun \"ingest --help\" for what there is.\n", err)
	return exitUsage
}

// failure is an error of running, as opposed to one of usage.
type failure struct{ err error }

func (f *failure) Error() string { return f.err.Error() }

// rootCommand runs the service, and has the other commands below it.
func rootCommand(environ []string) *cobra.Command {
	root := &cobra.Command{
		Use:   "ingest",
		Short: "Take events over HTTP and write them to the log",
		Long: `Takes events over HTTP, validates them and writes them to the Kafka topic; each
is answered once the log has acknowledged it, or, while it does not, once the event
is safe in the spool on this machine's disk.

  POST /api/events        one event, application/json
  POST /api/events/batch  many: a JSON array, or application/x-ndjson
  GET  /healthz, /readyz  alive; able to take events
  GET  /health            how the things are that it depends on
  GET  /docs, /openapi.yaml  the contract, for people and for tools

Configuration: defaults, then the YAML file of --config, then environment
variables (kafka.brokers is SLUICE_KAFKA_BROKERS), then flags; each overrides
what comes before it. "ingest config" prints what is in force.

SIGTERM or SIGINT stops it in order: not ready, requests in flight finished,
records flushed. A second one ends it at once.
SIGHUP reads keys, schemas, certificates and ingest.mode again.

Exit status: 0 stopped in order, 1 it could not go on, 2 usage or configuration.`,
		Example:       "  ingest --kafka.brokers kafka-1:9092,kafka-2:9092 --http.address :8080 --auth.keys_file keys.yaml",
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load(cmd, environ)
			if err != nil {
				return err
			}
			again := rereading{load: func() (config, error) { return load(cmd, environ) }}
			if again.file, err = cmd.Flags().GetString("config"); err != nil {
				return err
			}
			logger, err := service.NewLogger(cmd.ErrOrStderr(), cfg.Log)
			if err != nil {
				return err
			}
			defer cfg.GC.Apply()()
			if err := serve(cmd.Context(), cfg, again, logger, nil); err != nil {
				return &failure{err}
			}
			return nil
		},
	}
	root.CompletionOptions.DisableDefaultCmd = true
	service.AddFlags(root, defaults())
	root.AddCommand(configCommand(environ), modeCommand(environ), keysCommand(environ), schemasCommand(environ), spoolCommand(environ))
	service.RefuseUnknown(root)
	return root
}
