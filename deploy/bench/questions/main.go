// Command questions times what analysts ask, on a table of 50 million generated
// rows, each question beside a scan of the rows that asks the same. "make
// bench-questions" is this command; what it found stands in
// deploy/docs/bench-questions.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"sluice/deploy/bench/scratch"
)

func main() {
	cfg, err := parse(os.Args[1:], os.Getenv)
	if errors.Is(err, pflag.ErrHelp) {
		return
	}
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		err = run(ctx, cfg, os.Stdout, os.Stderr)
		stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "questions:", err)
		os.Exit(1)
	}
}

// config is what a run is told.
type config struct {
	rows, runs int
	json       bool
	keep       string
	settle     time.Duration
	root       string
}

const helpText = `usage: go run ./deploy/bench/questions [flags]

Starts the ClickHouse engine ("make build engine") on an empty directory under
.local, fills the tables that Sluice has with generated rows, asks ten questions
over HTTP, and removes everything. 50 million rows need some 12 GB of disk while
parts are merged, and half an hour on two cores.

Exit status: 0 all questions were answered, and each as the scan of the rows
answers it; 1 not.

`

// parse reads the command line; the environment gives ROWS and RUNS.
func parse(args []string, getenv func(string) string) (config, error) {
	c := config{rows: 50_000_000, runs: 15}
	if err := scratch.Numbers(getenv, map[string]*int{"ROWS": &c.rows, "RUNS": &c.runs}); err != nil {
		return c, err
	}
	f := pflag.NewFlagSet("questions", pflag.ContinueOnError)
	f.Usage = func() { fmt.Fprint(os.Stderr, helpText, f.FlagUsages()) }
	f.IntVar(&c.rows, "rows", c.rows, "rows to generate (ROWS)")
	f.IntVar(&c.runs, "runs", c.runs, "how often each question is asked; the scan a third as often (RUNS)")
	f.BoolVar(&c.json, "json", false, "print one line of JSON a question on standard output, the table on standard error")
	f.StringVar(&c.keep, "keep", "", "a directory to keep the data in, and to find it in; a run that was cut short goes on from its last whole chunk")
	f.DurationVar(&c.settle, "settle", 0, "how long parts may be merged after the last row (default: they stay as they were written)")
	f.StringVar(&c.root, "root", ".", "root of the working copy")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	switch {
	case f.NArg() > 0:
		return c, fmt.Errorf("%s: there are only flags", f.Arg(0))
	case c.rows < 10_000 || c.runs < 1:
		return c, errors.New("want at least 10,000 rows and 1 run")
	}
	var err error
	c.root, err = filepath.Abs(c.root)
	return c, err
}

// bytesPerRow is what a row takes on the disk at most, while parts are merged.
const bytesPerRow = 240

func run(ctx context.Context, cfg config, out, words io.Writer) (err error) {
	dir := cfg.keep
	there := false
	began := func() string { return filepath.Join(dir, "began") }
	if dir == "" {
		parent := filepath.Join(cfg.root, ".local")
		if err := os.MkdirAll(parent, 0o755); err != nil {
			return err
		}
		if dir, err = os.MkdirTemp(parent, "bench-questions-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	} else {
		if dir, err = filepath.Abs(dir); err != nil {
			return err
		}
		_, statErr := os.Stat(filepath.Join(dir, "filled"))
		there = statErr == nil
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	// A run that was cut short left the time that its rows end at.
	left, err := os.ReadFile(began())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if !there && len(left) == 0 {
		if err := scratch.Room(dir, uint64(cfg.rows)*bytesPerRow, words); err != nil {
			return err
		}
	}
	engine, err := scratch.Start(ctx, cfg.root, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, engine.Stop()) }()
	b := bench{Client: scratch.Client{URL: engine.URL, Database: "sluice"}, cfg: cfg, words: words}
	now := time.Now().UTC().Truncate(time.Minute)
	if there {
		if left, err = os.ReadFile(filepath.Join(dir, "filled")); err != nil {
			return err
		}
	}
	if len(left) > 0 {
		if now, err = time.Parse(time.RFC3339, strings.TrimSpace(string(left))); err != nil {
			return err
		}
	}
	if !there {
		if err := os.WriteFile(began(), []byte(now.Format(time.RFC3339)), 0o644); err != nil {
			return err
		}
		if err := b.prepare(ctx, now); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "filled"), []byte(now.Format(time.RFC3339)), 0o644); err != nil {
			return err
		}
	}
	return b.measure(ctx, now, out)
}

// median of durations; they are sorted by it.
func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}
