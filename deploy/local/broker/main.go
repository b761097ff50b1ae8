// Command broker is one broker that speaks Kafka's protocol and keeps its log
// on disk, for local runs on this machine: franz-go's kfake in a process of its
// own. It creates no topics by itself.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kfake"

	"sluice/deploy/local/lifeline"
	"sluice/deploy/local/lock"
)

// stopBound is how long saving the state may take after the stop. What was
// acknowledged is on disk before.
const stopBound = 10 * time.Second

func main() {
	if err := command().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "broker:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var port int
	var data, advertise string
	var syncWrites, withStdin bool
	cmd := &cobra.Command{
		Use:           "broker",
		Short:         "Run one Kafka-protocol broker on this machine, its log on disk",
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var stdin io.Reader
			if withStdin {
				stdin = os.Stdin
			}
			ctx, stop := lifeline.Context(cmd.Context(), stdin, stopBound)
			defer stop()
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			return run(ctx, port, advertise, data, syncWrites, cmd.OutOrStdout(), log)
		},
	}
	cmd.SetContext(context.Background())
	f := cmd.Flags()
	f.IntVar(&port, "port", 9092, "port to listen on, on 127.0.0.1; 0 is a free one")
	f.StringVar(&advertise, "advertise", "", "host:port that clients are told to connect to, for a proxy in between (default: the port)")
	f.StringVar(&data, "data", "", "data directory")
	f.BoolVar(&syncWrites, "sync-writes", false, "fsync every batch before it is acknowledged; without, what was acknowledged outlives the process, but not a power failure")
	f.BoolVar(&withStdin, lifeline.Flag, false, "stop when standard input ends")
	if err := cmd.MarkFlagRequired("data"); err != nil {
		panic(err) // the flag stands above
	}
	return cmd
}

// run serves until ctx ends, then saves its state. It prints the address that
// clients are told on out when it answers.
func run(ctx context.Context, port int, advertise, data string, syncWrites bool, out io.Writer, log *slog.Logger) (err error) {
	told, err := advertised(advertise)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(data, 0o755); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	held, err := lock.Try(filepath.Join(data, "lock"))
	if err != nil {
		return fmt.Errorf("data directory %s is in use: stop the broker that uses it, or give this one another by --data: %w", data, err)
	}
	defer func() { err = errors.Join(err, held.Release()) }()
	opts := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.ListenFn(func(network, _ string) (net.Listener, error) {
			l, err := (&net.ListenConfig{}).Listen(ctx, network, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
			if err == nil && told != nil {
				l = elsewhere{l, told}
			}
			return l, err
		}),
		kfake.DataDir(filepath.Join(data, "kafka")),
		kfake.WithLogger(logger{log}),
	}
	if syncWrites {
		opts = append(opts, kfake.SyncWrites())
	}
	begun := time.Now()
	c, err := kfake.NewCluster(opts...)
	if err != nil {
		return fmt.Errorf("cannot start (--port moves it): %w", err)
	}
	log.Info("the broker is open", "sync_writes", syncWrites, "took", time.Since(begun).Round(time.Millisecond))
	fmt.Fprintln(out, c.ListenAddrs()[0])
	<-ctx.Done()
	log.Info("stopping", "why", context.Cause(ctx))
	c.Close()
	log.Info("stopped")
	return nil
}

// advertised reads the address to be told to clients; nil is the listener's own.
func advertised(hostPort string) (net.Addr, error) {
	if hostPort == "" {
		return nil, nil
	}
	a, err := netip.ParseAddrPort(hostPort)
	if err != nil {
		return nil, fmt.Errorf("--advertise %q: want an address and a port, as in 127.0.0.1:9093: %w", hostPort, err)
	}
	return net.TCPAddrFromAddrPort(a), nil
}

// elsewhere is a listener that says it listens at told. kfake tells clients what
// its listener says.
type elsewhere struct {
	net.Listener
	told net.Addr
}

func (l elsewhere) Addr() net.Addr { return l.told }

// logger passes kfake's warnings and errors on; what it says of each request
// is left out.
type logger struct{ log *slog.Logger }

func (l logger) Logf(level kfake.LogLevel, format string, args ...any) {
	switch level {
	case kfake.LogLevelError:
		l.log.Error(fmt.Sprintf(format, args...))
	case kfake.LogLevelWarn:
		l.log.Warn(fmt.Sprintf(format, args...))
	}
}
