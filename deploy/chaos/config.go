package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/pflag"
)

// config is what a run of chaos is told.
type config struct {
	rounds    int
	time      time.Duration
	seed      uint64
	first     int
	broker    string
	protocol  string
	fresh     int
	json      bool
	keep      bool
	root, bin string
	dir       string

	consumers  int
	partitions int32
	batch      int // rows
	session    time.Duration
	window     time.Duration
	quiet      time.Duration
}

// The brokers there are.
const (
	kfakeBroker  = "kfake"
	apacheBroker = "apache"
)

// classicProtocol is the group protocol in which members assign.
const classicProtocol = "classic"

const usage = `chaos runs a broker, the ClickHouse engine, an edge and three consumers, each a
process of its own, sends events through them, and meanwhile kills and freezes
them and cuts, delays and stalls what lies between them. After each round it
reads the log again and compares all that must follow from it with ClickHouse,
by key. It stops at the first round that differs, and keeps what it ran on.

Exit status: 0 all rounds held, 1 one did not, 2 it could not be told.
`

// parse reads the command line. The environment gives ROUNDS, TIME, SEED and
// BROKER, which are also make's.
func parse(args []string) (config, error) {
	c := config{rounds: 20, broker: kfakeBroker, protocol: classicProtocol, consumers: 3, partitions: 6, batch: 100, session: 2 * time.Second, window: 2 * time.Second, quiet: 60 * time.Second, fresh: 50}
	c.seed = uint64(time.Now().UnixNano()) % 1_000_000
	timeGiven := false
	for name, set := range map[string]func(string) error{
		"ROUNDS": func(s string) (err error) { c.rounds, err = strconv.Atoi(s); return err },
		"TIME":   func(s string) (err error) { c.time, err = time.ParseDuration(s); timeGiven = true; return err },
		"SEED":   func(s string) (err error) { c.seed, err = strconv.ParseUint(s, 10, 64); return err },
		"BROKER": func(s string) error { c.broker = s; return nil },
	} {
		if text := os.Getenv(name); text != "" {
			if err := set(text); err != nil {
				return c, fmt.Errorf("%s=%q: %w", name, text, err)
			}
		}
	}
	if timeGiven && os.Getenv("ROUNDS") == "" {
		c.rounds = 0
	}
	f := pflag.NewFlagSet("chaos", pflag.ContinueOnError)
	f.Usage = func() { fmt.Fprintf(os.Stderr, "%s\n%s", usage, f.FlagUsages()) }
	f.IntVar(&c.rounds, "rounds", c.rounds, "how many rounds; 0 is as many as fit into --time (ROUNDS)")
	f.DurationVar(&c.time, "time", c.time, "begin no round after this long; 0 is no bound (TIME)")
	f.Uint64Var(&c.seed, "seed", c.seed, "repeats the schedule and the events of a run (SEED; default: another every time)")
	f.IntVar(&c.first, "first", 1, "number of the first round: the schedule of round N is the same wherever one begins")
	f.StringVar(&c.broker, "broker", c.broker, "kfake or apache (BROKER)")
	f.StringVar(&c.protocol, "protocol", c.protocol, "the group's: classic, eager or broker, as the consumer's group.protocol; in classic the first consumer is a static member")
	f.IntVar(&c.fresh, "fresh", c.fresh, "begin with empty data after so many rounds")
	f.BoolVar(&c.json, "json", false, "print the closing table as one line of JSON on standard output, all else on standard error")
	f.BoolVar(&c.keep, "keep", false, "keep data and logs also when all is well")
	f.StringVar(&c.root, "root", ".", "root of the working copy")
	f.StringVar(&c.bin, "bin", "", "directory of the binaries (default ROOT/.local/bin)")
	f.StringVar(&c.dir, "dir", "", "where data and logs go (default ROOT/.local/chaos)")
	f.DurationVar(&c.quiet, "quiet", c.quiet, "how long a round may take to be decided once everything is well again")
	f.DurationVar(&c.window, "window", c.window, "how long, in a round, things go on happening")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	return c, c.complete(f.Args())
}

func (c *config) complete(rest []string) (err error) {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("unexpected %q", rest[0])
	case c.rounds < 0 || c.time < 0 || c.rounds == 0 && c.time == 0:
		return errors.New("give ROUNDS, TIME or both, and more than 0 of it")
	case c.broker != kfakeBroker && c.broker != apacheBroker:
		return fmt.Errorf("BROKER=%s: want kfake or apache", c.broker)
	case c.fresh < 1 || c.first < 1:
		return errors.New("--fresh and --first begin at 1")
	}
	if c.root, err = filepath.Abs(c.root); err != nil {
		return err
	}
	for path, below := range map[*string]string{&c.bin: "bin", &c.dir: "chaos"} {
		if *path == "" {
			*path = filepath.Join(c.root, ".local", below)
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	return nil
}
