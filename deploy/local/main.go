// Command supervisor runs all of Sluice on this machine: a Kafka-protocol
// broker, the ClickHouse engine, ingest and consumer, each a process of its
// own. "make run" is this command.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"sluice/deploy/local/apache"
	"sluice/deploy/local/engine/install"
	"sluice/deploy/local/supervise"
)

func main() {
	root, err := command()
	if err == nil {
		err = root.ExecuteContext(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "supervisor:", err)
		os.Exit(1)
	}
}

func command() (*cobra.Command, error) {
	var cfg config
	root := &cobra.Command{
		Use:   "supervisor",
		Short: "Run all of Sluice on this machine",
		Long: `Without a command, supervisor installs what is missing, starts a
Kafka-protocol broker, ClickHouse, the edge and the consumer, says on standard
output when events can be posted, and stops everything in order on Ctrl-C.`,
		Args:              cobra.NoArgs,
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: func(*cobra.Command, []string) error { return cfg.complete() },
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runStack(cmd.Context(), cfg, cmd.OutOrStdout())
		},
	}
	if err := cfg.addFlags(root.PersistentFlags()); err != nil {
		return nil, err
	}
	root.AddCommand(
		&cobra.Command{
			Use: "run", Short: "The same as no command", Args: cobra.NoArgs, RunE: root.RunE,
		},
		&cobra.Command{
			Use: "install", Short: "Install the ClickHouse engine if it is missing, and check it", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
				defer stop()
				_, err := install.Ensure(ctx, install.Dir(cfg.root), os.Stderr)
				return err
			},
		},
		&cobra.Command{
			Use: "install-kafka", Short: "Install Apache Kafka if it is missing (needs Java and Maven)", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
				defer stop()
				_, err := apache.Ensure(ctx, apache.Dir(cfg.root), os.Stderr)
				return err
			},
		},
		&cobra.Command{
			Use: "check", Short: "Check that the ports are free", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return checkPorts(cmd.Context(), cfg.ports()) },
		},
		&cobra.Command{
			Use: "idle", Short: "Fail if sluice runs on the data directory", Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error {
				l, err := lockData(cfg.data)
				if err != nil {
					return err
				}
				return l.Release()
			},
		},
		envCommand(&cfg),
	)
	return root, nil
}

func prepareApache(ctx context.Context, cfg config) (*apache.Cluster, error) {
	library, err := apache.Ensure(ctx, apache.Dir(cfg.root), os.Stderr)
	if err != nil {
		return nil, err
	}
	c, err := apache.New(apache.Config{
		Library: library, Dir: cfg.apacheDir(),
		Ports: []int{cfg.kafka.number}, SyncWrites: cfg.syncWrites,
	})
	if err != nil {
		return nil, err
	}
	return c, c.Prepare(ctx)
}

func envCommand(cfg *config) *cobra.Command {
	return &cobra.Command{
		Use: "env [consumer|ingest]", Short: "Print the environment that aims a service's commands at the local stack (default: consumer)",
		Args: cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs), ValidArgs: []string{"consumer", "ingest"},
		RunE: func(cmd *cobra.Command, args []string) error {
			env := append(cfg.consumerEnv(), "SLUICE_HTTP_ADDRESS="+cfg.http.address())
			about := "# For the consumer's commands, and what both services share. The services'\n" +
				"# admin addresses have one name: \"make ingest ARGS=…\" sets the edge's.\n"
			if len(args) == 1 && args[0] == "ingest" {
				env, about = cfg.ingestEnv(), "# For the edge's commands.\n"
			}
			fmt.Fprint(cmd.OutOrStdout(), about)
			return printEnv(cmd.OutOrStdout(), env)
		},
	}
}

func printEnv(w io.Writer, env []string) error {
	for _, kv := range env {
		if _, err := fmt.Fprintln(w, "export", kv); err != nil {
			return err
		}
	}
	return nil
}

// nameWidth is the longest name that stands before a line of the log.
const nameWidth = len("consumer")

func runStack(ctx context.Context, cfg config, ready io.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	hurry := make(chan struct{})
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	go func() {
		<-signals
		cancel(errSignal)
		<-signals
		close(hurry)
	}()
	out := supervise.NewOutput(os.Stderr, nameWidth, term.IsTerminal(int(os.Stderr.Fd())))
	s := &stack{
		cfg: cfg, out: out, ready: ready, hurry: hurry, backoff: supervise.DefaultBackoff(),
		log: slog.New(slog.NewTextHandler(out.Named("sluice"), nil)),
		library: func(ctx context.Context) (string, error) {
			return install.Ensure(ctx, install.Dir(cfg.root), os.Stderr)
		},
		apache: func(ctx context.Context) (*apache.Cluster, error) { return prepareApache(ctx, cfg) },
	}
	if err := s.run(ctx); err != nil && !errors.Is(err, errSignal) {
		return err
	}
	s.log.Info("stopped")
	return nil
}
