// Command bench measures Sluice as it runs: broker, ClickHouse engine, edge and
// consumers, each a process of its own, with this process as the load and the
// observer. "make bench-system" is this command; what it found stands in
// deploy/docs/bench.md.
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

	"sluice/deploy/local/engine/install"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == witnessName {
		if err := witness(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	cfg, err := parse(os.Args[1:], os.Getenv)
	if errors.Is(err, pflag.ErrHelp) {
		return
	}
	if err == nil {
		ctx, cancel := context.WithCancelCause(context.Background())
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
		go func() { <-signals; cancel(errors.New("stopped by a signal")) }()
		err = run(ctx, cfg, os.Stdout, os.Stderr)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// config is what a run is told.
type config struct {
	experiments []string
	broker      string
	scale       float64
	json        bool
	profile     string
	plot        string
	root, bin   string
	env         []string
	given       string // flags that change what is measured, as they were given

	partitions, members, rates []int // of the experiment inserts
	protocols                  []string
	kills                      int
	factors                    []float64 // of the experiment admission
	forms                      []string
	edgeEnv                    []string // of the edge
	split                      bool
	nice                       int
}

// The brokers there are.
const (
	kfakeBroker  = "kfake"
	apacheBroker = "apache"
)

const helpText = `usage: go run ./deploy/bench [flags] [experiment…]

Each experiment starts the programs in .local/bin ("make build") anew on empty
data and free ports of 127.0.0.1, and removes all of it afterwards. With no
experiment named, all of them run.

`

// parse reads the command line; the environment gives BROKER.
func parse(args []string, getenv func(string) string) (config, error) {
	c := config{broker: kfakeBroker}
	if b := getenv("BROKER"); b != "" {
		c.broker = b
	}
	f := pflag.NewFlagSet("bench", pflag.ContinueOnError)
	f.Usage = func() {
		fmt.Fprint(os.Stderr, helpText)
		for _, e := range experiments() {
			fmt.Fprintf(os.Stderr, "  %-10s %s\n", e.name, e.what)
		}
		fmt.Fprintf(os.Stderr, "\n%s", f.FlagUsages())
	}
	f.StringVar(&c.broker, "broker", c.broker, "kfake or apache (BROKER)")
	f.Float64Var(&c.scale, "scale", 1, "times every duration and number of records: 0.05 is a quick look and measures nothing")
	f.BoolVar(&c.json, "json", false, "print one line of JSON an experiment on standard output, the tables on standard error")
	f.StringVar(&c.plot, "plot", "", "admission: directory for the plot, admission.svg")
	f.StringVar(&c.profile, "profile", "", "directory for CPU profiles: of the edge from posts and admission (of its heap, too), of the consumer from experiments that have a busy one")
	f.StringVar(&c.root, "root", ".", "root of the working copy")
	f.StringVar(&c.bin, "bin", "", "directory of the binaries (default ROOT/.local/bin)")
	f.StringArrayVar(&c.env, "env", nil, "NAME=value for the consumers, to try a setting: SLUICE_BATCH_AGE=50ms")
	f.IntSliceVar(&c.partitions, "partitions", []int{1, 12, 96}, "inserts: partitions of the topic")
	f.IntSliceVar(&c.members, "members", []int{1, 3}, "inserts: consumers")
	f.IntSliceVar(&c.rates, "rates", []int{100, 10_000, 0}, "inserts: records a second; 0 is as many as are taken")
	f.StringSliceVar(&c.protocols, "protocols", []string{"classic", "broker"}, "takeover: group protocols")
	f.IntVar(&c.kills, "kills", 5, "takeover: how often one is killed in each protocol")
	f.Float64SliceVar(&c.factors, "factors", []float64{0.1, 0.2, 0.5, 0.8, 1, 1.5, 2, 3, 5, 10}, "admission: what is offered, in multiples of what a closed loop gets through")
	f.StringSliceVar(&c.forms, "forms", []string{"posts", "batches", "bare"}, "admission: what is posted; bare is posts to a handler with nothing of ours")
	f.StringArrayVar(&c.edgeEnv, "edge-env", nil, "NAME=value for the edge, to try a setting: SLUICE_ADMISSION_SLACK=10ms")
	f.BoolVar(&c.split, "split", false, "admission: the load on the last processor alone, all else on the others")
	f.IntVar(&c.nice, "nice", 0, "admission: niceness of the load")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	c.experiments = f.Args()
	f.Visit(func(g *pflag.Flag) {
		switch g.Name {
		case "json", "plot", "profile", "root", "bin", "broker":
		case "env":
			for _, kv := range c.env {
				c.given += " --env " + kv
			}
		case "edge-env":
			for _, kv := range c.edgeEnv {
				c.given += " --edge-env " + kv
			}
		default:
			c.given += " --" + g.Name + " " + strings.Trim(g.Value.String(), "[]")
		}
	})
	return c, c.complete()
}

func (c *config) complete() (err error) {
	switch {
	case c.broker != kfakeBroker && c.broker != apacheBroker:
		return fmt.Errorf("BROKER=%s: want kfake or apache", c.broker)
	case c.scale <= 0:
		return errors.New("--scale must be positive")
	case c.kills < 1:
		return errors.New("--kills must be at least 1")
	}
	var names []string
	for _, e := range experiments() {
		names = append(names, e.name)
	}
	for _, name := range c.experiments {
		if !slices.Contains(names, name) {
			return fmt.Errorf("there is no experiment %q: there are %s", name, strings.Join(names, ", "))
		}
	}
	if (c.split || c.nice != 0) && !slices.Equal(c.experiments, []string{"admission"}) {
		return errors.New("--split and --nice are for the experiment admission alone")
	}
	if len(c.experiments) == 0 {
		c.experiments = names
	}
	if c.root, err = filepath.Abs(c.root); err != nil {
		return err
	}
	if c.bin == "" {
		c.bin = filepath.Join(c.root, ".local", "bin")
	}
	c.bin, err = filepath.Abs(c.bin)
	return err
}

// count scales a number of records, and lasting a duration.
func (c config) count(n int) int { return max(1, int(float64(n)*c.scale)) }

func (c config) lasting(d time.Duration) time.Duration { return time.Duration(float64(d) * c.scale) }

// experiment is one question, answered by one table.
type experiment struct {
	name, what string
	// run may return a table that is not complete beside an error.
	run func(ctx context.Context, b *bench) (*table, error)
}

func experiments() []experiment {
	return []experiment{
		{"posts", "single posts, 32 clients in a closed loop, beside what the edge stands on and replaces", posts},
		{"steady", "single posts, 1,000 a second in an open loop", steady},
		{"admission", "single posts and batches at a tenth to ten times of what the edge takes, in an open loop", admission},
		{"inserts", "INSERTs a second, parts and freshness by partitions, consumers and rate", inserts},
		{"freshness", "from a POST to the query that sees its row, at 1,000 posts a second", freshness},
		{"backlog", "2 million records waiting: rate, memory, and a live partition meanwhile", backlog},
		{"takeover", "kill -9 of one of three consumers: when its partitions move again", takeover},
		{"replay", "consumer replay beside the live consumer: a diff, everything missing, memory by size, posts meanwhile", replay},
		{"verify", "consumer verify of 10 million records: time and memory", verify},
		{"backfill", "events of ten years in any order, half of them stored already", backfill},
	}
}

// bench is what the experiments of one run have in common.
type bench struct {
	cfg     config
	library string // the engine's
	bin     string // this run's copy of the programs
	dir     string
	sample  *sample
	tell    *os.File // what goes on
}

// run does the experiments, one after the other, and prints their tables.
func run(ctx context.Context, cfg config, out io.Writer, tell *os.File) (err error) {
	b := &bench{cfg: cfg, tell: tell}
	if b.library, err = install.Ensure(ctx, install.Dir(cfg.root), tell); err != nil {
		return err
	}
	if b.sample, err = readSample(); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "sluice-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	// What is measured stays as it is now, whatever is built meanwhile.
	b.bin = filepath.Join(b.dir, "bin")
	if err := os.CopyFS(b.bin, programs{cfg.bin}); err != nil {
		return fmt.Errorf("%w: run \"make build\" first", err)
	}
	for _, e := range experiments() {
		if !slices.Contains(cfg.experiments, e.name) {
			continue
		}
		t, err := e.run(ctx, b)
		if t != nil { // what was found before an error is shown, too
			t.finish(e, cfg)
			err = errors.Join(err, t.show(cfg.json, out, tell))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
	}
	return nil
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.tell, time.Now().Format("15:04:05 ")+format+"\n", args...)
}
