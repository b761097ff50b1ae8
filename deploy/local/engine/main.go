// Command engine serves the ClickHouse engine, libchdb, over ClickHouse's HTTP
// protocol on this machine, for local runs and tests.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"sluice/deploy/local/engine/server"
	"sluice/deploy/local/lifeline"
	"sluice/deploy/local/lock"
)

const (
	// drainBound is how long running queries may go on after the stop.
	drainBound = 10 * time.Second
	// killBound is how long killed queries may take to end.
	killBound = 5 * time.Second
)

func main() {
	if err := command().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "engine:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var listen, library, data string
	var withStdin bool
	cmd := &cobra.Command{
		Use:           "engine",
		Short:         "Serve the ClickHouse engine over HTTP on this machine",
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var stdin io.Reader
			if withStdin {
				stdin = os.Stdin
			}
			ctx, stop := lifeline.Context(cmd.Context(), stdin, drainBound+2*killBound)
			defer stop()
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			return run(ctx, listen, library, data, cmd.OutOrStdout(), log)
		},
	}
	cmd.SetContext(context.Background())
	f := cmd.Flags()
	f.StringVar(&listen, "listen", "127.0.0.1:8123", "address to listen on")
	f.StringVar(&library, "library", "", "path of libchdb.so")
	f.StringVar(&data, "data", "", "data directory")
	f.BoolVar(&withStdin, lifeline.Flag, false, "stop when standard input ends")
	for _, name := range []string{"library", "data"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // a flag of that name stands above
		}
	}
	return cmd
}

// run serves until ctx ends, then stops in order. It prints its URL on out
// when it answers.
func run(ctx context.Context, listen, library, data string, out io.Writer, log *slog.Logger) (err error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return fmt.Errorf("cannot listen (--listen moves it): %w", err)
	}
	defer l.Close() // again after Serve, without effect
	if err := os.MkdirAll(data, 0o755); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	held, err := lock.Try(filepath.Join(data, "lock"))
	if err != nil {
		return fmt.Errorf("data directory %s is in use: stop the engine that uses it, or give this one another by --data: %w", data, err)
	}
	defer func() { err = errors.Join(err, held.Release()) }()
	begun := time.Now()
	s, err := server.Open(library, data)
	if err != nil {
		return err
	}
	log.Info("the engine is open", "version", s.Version(), "took", time.Since(begun).Round(time.Millisecond))
	fmt.Fprintf(out, "http://%s\n", l.Addr())
	return serve(ctx, l, s, log)
}

// serve answers until ctx ends; then it takes no more, lets running queries
// finish, kills those that take too long, and closes the engine.
func serve(ctx context.Context, l net.Listener, s *server.Server, log *slog.Logger) error {
	var running sync.WaitGroup
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			running.Add(1)
			defer running.Done()
			s.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: 10 * time.Second,
		MaxHeaderBytes:    16 << 20, // a query may stand in the URL
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	log.Info("stopping", "why", context.Cause(ctx))
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainBound)
	defer cancel()
	if err := srv.Shutdown(stop); err != nil {
		log.Warn("queries still run: killing them", "after", drainBound)
		_ = srv.Close() // their requests end, and with them the queries
	}
	ended := make(chan struct{})
	go func() { running.Wait(); close(ended) }()
	select {
	case <-ended:
		s.Close()
		log.Info("stopped")
		return nil
	case <-time.After(killBound):
		return errors.New("a killed query does not end: leaving without closing the engine, which its data survive")
	}
}
