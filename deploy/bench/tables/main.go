// Command tables measures what the tables of analysts were chosen by: what each
// projection costs an INSERT, what the codecs save, what FINAL costs, and how far
// the sketches of actors err. "make bench-tables" is this command; what it found
// stands in deploy/docs/bench-questions.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
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
	status := 2
	if err == nil {
		status = 1
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		err = run(ctx, cfg, os.Stdout, os.Stderr)
		stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tables:", err)
		os.Exit(status)
	}
}

// config is what a run is told.
type config struct {
	rows, batch, runs, trials int
	// actors are the sizes of sets that sketches are tried on.
	actors []int
	// events is a file of events; empty is the demo's.
	events string
	json   bool
	root   string
}

const helpText = `usage: go run ./deploy/bench/tables [flags]

Starts the ClickHouse engine ("make build engine") on an empty directory under
.local, fills copies of event_log with real events at generated times, measures, and
removes everything. No broker is asked. 2 million rows need up to 3 GB of disk, and
four minutes on two cores.

The events are the demo's, of one repository and 23 authors, made 16 repositories and
50 times as many authors; or those of a file, as they are.

Exit status: 0 all was measured, 1 it was not, or two forms of a question answered
differently, 2 the command line was wrong.

  ROWS=500000 make bench-tables
  go run ./deploy/bench/tables --events git-events.ndjson.gz --json

`

// parse reads the command line; the environment gives ROWS, RUNS and EVENTS.
func parse(args []string, getenv func(string) string) (config, error) {
	c := config{rows: 2_000_000, batch: 50_000, runs: 9, trials: 20, actors: []int{1_000, 10_000, 100_000, 1_000_000}, events: getenv("EVENTS")}
	if err := scratch.Numbers(getenv, map[string]*int{"ROWS": &c.rows, "RUNS": &c.runs}); err != nil {
		return c, err
	}
	f := pflag.NewFlagSet("tables", pflag.ContinueOnError)
	f.Usage = func() { fmt.Fprint(os.Stderr, helpText, f.FlagUsages()) }
	f.IntVar(&c.rows, "rows", c.rows, "rows of each table (ROWS)")
	f.IntVar(&c.batch, "batch", c.batch, "rows of an INSERT; the default is a consumer's largest")
	f.IntVar(&c.runs, "runs", c.runs, "how often each question is asked with FINAL and without (RUNS)")
	f.IntVar(&c.trials, "trials", c.trials, "how many sets of actors of each size the sketches are tried on")
	f.StringVar(&c.events, "events", c.events, "events to take, NDJSON in gzip (EVENTS; default the demo's)")
	f.BoolVar(&c.json, "json", false, "print one line of JSON a figure on standard output, the tables on standard error")
	f.StringVar(&c.root, "root", ".", "root of the working copy")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	switch {
	case f.NArg() > 0:
		return c, fmt.Errorf("%s: there are only flags", f.Arg(0))
	case c.rows < 1_000 || c.batch < 100 || c.runs < 1 || c.trials < 1:
		return c, errors.New("want at least 1,000 rows, 100 in a batch, 1 run and 1 trial")
	}
	var err error
	c.root, err = filepath.Abs(c.root)
	return c, err
}

// bytesPerRow is what the tables of a run take on the disk at most, a row of each
// counted once, while parts are merged.
const bytesPerRow = 1500

func run(ctx context.Context, cfg config, out, words io.Writer) (err error) {
	parent := filepath.Join(cfg.root, ".local")
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(parent, "bench-tables-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := scratch.Room(dir, uint64(cfg.rows)*bytesPerRow, words); err != nil {
		return err
	}
	engine, err := scratch.Start(ctx, cfg.root, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, engine.Stop()) }()
	b := bench{cfg: cfg, url: engine.URL, words: words, began: time.Now(), cpu: func() (time.Duration, error) { return scratch.CPU(engine.PID) }}
	return b.measure(ctx, out)
}

// bench is one run.
type bench struct {
	cfg   config
	url   string
	words io.Writer
	began time.Time
	// cpu is what the engine has taken so far.
	cpu func() (time.Duration, error)
	// rows is how many there are, once they are made.
	rows int
}

// in asks one database.
func (b *bench) in(database string) scratch.Client {
	return scratch.Client{URL: b.url, Database: database}
}

// say tells how far the run is.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.words, "%5.0f s  %s\n", time.Since(b.began).Seconds(), fmt.Sprintf(format, args...))
}

// measure makes the rows and all tables of figures.
func (b *bench) measure(ctx context.Context, out io.Writer) error {
	if err := b.source(ctx); err != nil {
		return fmt.Errorf("making the rows: %w", err)
	}
	var all []*table
	var wrong error
	for _, part := range []func(context.Context) (*table, error){b.sketches, b.inserts, b.final, b.merges, b.codecs} {
		t, err := part(ctx)
		if t == nil {
			return err
		}
		wrong = errors.Join(wrong, err)
		all = append(all, t)
	}
	for _, t := range all {
		if err := t.show(b.cfg.json, out, b.words); err != nil {
			return err
		}
	}
	return wrong
}
