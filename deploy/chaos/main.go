// Command chaos runs all of Sluice as real processes, breaks them and what lies
// between them in every way a seed tells, and after each round compares what
// ClickHouse holds with what the log says, by key. "make chaos" is this command.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"sluice/deploy/chaos/internal/load"
	"sluice/deploy/chaos/internal/oracle"
	"sluice/deploy/chaos/internal/plan"
	"sluice/deploy/local/engine/install"
	"sluice/deploy/local/supervise"
)

// Exit statuses.
const (
	exitFailed  = 1 // a round did not hold
	exitUnknown = 2 // it could not be told
)

// errStopped is why a run ends when it was told to.
var errStopped = errors.New("stopped by a signal")

func main() {
	cfg, err := parse(os.Args[1:])
	if errors.Is(err, pflag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(exitUnknown)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() { <-signals; cancel(errStopped) }()
	out := io.Writer(os.Stdout)
	if cfg.json {
		out = os.Stderr
	}
	os.Exit(run(ctx, cfg, out, os.Stdout))
}

// run does all rounds and prints the closing table. It returns the exit status.
func run(ctx context.Context, cfg config, out, result io.Writer) int {
	c := &chaos{cfg: cfg, out: out, report: newReport(cfg), begun: time.Now()}
	fmt.Fprintf(out, "seed %d: SEED=%d repeats this run's schedule and events\n", cfg.seed, cfg.seed)
	err := c.rounds(ctx)
	c.report.OK = err == nil && c.report.Rounds > 0
	c.report.finish(c.begun)
	c.report.table(out)
	if cfg.json {
		if err := c.report.json(result); err != nil {
			fmt.Fprintln(os.Stderr, "chaos:", err)
			return exitUnknown
		}
	}
	var failed *failedError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &failed):
		fmt.Fprintf(out, "\n%v\n", err)
		return exitFailed
	}
	fmt.Fprintln(os.Stderr, "chaos:", err)
	return exitUnknown
}

// chaos is one run.
type chaos struct {
	cfg    config
	out    io.Writer
	report *report
	begun  time.Time
	number int // of the round at hand
}

// failedError says that a round did not hold.
type failedError struct {
	seed       uint64
	round      int
	first      int
	dir        string
	why        error
	difference []oracle.Difference
}

// shown is how many differences are printed; the file has all of them.
const shown = 40

func (e *failedError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, round %d:\n", e.seed, e.round)
	if e.why != nil {
		fmt.Fprintf(&b, "  %v\n", e.why)
	}
	for i, d := range e.difference {
		if i == shown {
			fmt.Fprintf(&b, "  and %d more in %s\n", len(e.difference)-shown, filepath.Join(e.dir, differences))
			break
		}
		fmt.Fprintf(&b, "  %s\n", d)
	}
	fmt.Fprintf(&b, "data and logs of all processes: %s\nonce more: make chaos SEED=%d ROUNDS=%d, from the first round of these data: go run ./deploy/chaos --seed %d --first %d --rounds %d",
		e.dir, e.seed, e.round, e.seed, e.first, e.round-e.first+1)
	return b.String()
}

func (e *failedError) Unwrap() error { return e.why }

const differences = "differences.txt"

// rounds runs stack after stack until all rounds are done.
func (c *chaos) rounds(ctx context.Context) error {
	library, err := install.Ensure(ctx, install.Dir(c.cfg.root), os.Stderr)
	if err != nil {
		return err
	}
	for c.number = c.cfg.first; c.more(); {
		if err := c.stack(ctx, library); err != nil {
			return err
		}
	}
	return nil
}

// more tells whether there is time and need for another round.
func (c *chaos) more() bool {
	return (c.cfg.rounds == 0 || c.number < c.cfg.first+c.cfg.rounds) &&
		(c.cfg.time == 0 || time.Since(c.begun) < c.cfg.time)
}

// stack does up to cfg.fresh rounds on data that are empty at first. Nothing it
// started runs when it returns, whatever happened.
func (c *chaos) stack(ctx context.Context, library string) (err error) {
	dir := filepath.Join(c.cfg.dir, fmt.Sprintf("%d-%d-%s", c.cfg.seed, c.number, time.Now().Format("150405")))
	if err := copyPrograms(c.cfg.bin, filepath.Join(dir, "bin")); err != nil {
		return err
	}
	keep := c.cfg.keep
	defer func() {
		if !keep && (err == nil || errors.Is(err, errStopped)) {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	spawner := supervise.NewSpawner()
	defer spawner.Close()
	s, err := start(ctx, c.cfg, library, dir, spawner, func(name, how string) {
		fmt.Fprintf(c.out, "  %s ended by itself: %s\n", name, how)
	})
	defer s.stop()
	if err != nil {
		return fmt.Errorf("starting: %w (logs in %s)", err, dir)
	}
	first, done := c.number, &promises{}
	maker := load.NewMaker(c.cfg.seed+uint64(first), base(c.begun), c.cfg.partitions)
	var last outcome
	defer func() {
		c.report.closed(last)
		c.report.Ended = append(c.report.Ended, s.ended...)
		for _, p := range s.proxies {
			n := p.Counts()
			c.report.Links.Connections += n.Connections
			c.report.Links.Cut += n.Cut
			c.report.Links.Lost += n.Lost
			c.report.Links.Torn += n.Torn
		}
	}()
	for ; c.more() && c.number < first+c.cfg.fresh; c.number++ {
		begun := time.Now()
		steps := plan.Round(plan.Config{Consumers: c.cfg.consumers, Session: c.cfg.session, Window: c.cfg.window}, c.cfg.seed, c.number)
		work := maker.Round(c.number, c.cfg.window)
		fmt.Fprintf(c.out, "round %d: %d events\n%s\n", c.number, work.Events, plan.Text(steps))
		c.report.planned(steps, c.cfg.session)
		o, err := s.round(ctx, steps, work, done)
		c.report.came(o, c.number)
		if o.counts != nil {
			last = o
		}
		var stuck *stuckError
		if err != nil && !errors.As(err, &stuck) {
			return err
		}
		if err != nil || len(o.differences) > 0 {
			c.report.Failed = c.number
			return c.failed(first, dir, err, o.differences)
		}
		c.report.Rounds++
		fmt.Fprintf(c.out, "  held: %d records, %d rows, %d parts; sent in %.1fs, recovered in %.1fs, compared in %.1fs, %.1fs in all\n",
			o.records, o.counts[oracle.Row], o.parts, o.sending.Seconds(), o.recovery.Seconds(), o.judging.Seconds(), time.Since(begun).Seconds())
		if o.parts > mergeAt {
			if err := s.tables.Merge(ctx); err != nil {
				return fmt.Errorf("merging event_log: %w", err)
			}
		}
	}
	return nil
}

// mergeAt is how many parts event_log may have before it is merged, between two
// rounds: after it was found to hold no row twice.
const mergeAt = 250

// base is what the events' times are around: the beginning of the run, but not
// so exactly that a run repeated the same day has other months.
func base(begun time.Time) time.Time { return begun.UTC().Truncate(time.Hour) }

func (c *chaos) failed(first int, dir string, why error, found []oracle.Difference) error {
	f, err := os.Create(filepath.Join(dir, differences))
	if err != nil {
		return err
	}
	for _, d := range found {
		fmt.Fprintln(f, d)
	}
	return errors.Join(&failedError{c.cfg.seed, c.number, first, dir, why, found}, f.Close())
}

// copyPrograms takes the programs as they are now: a build meanwhile must not
// change what a killed program comes back as.
func copyPrograms(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"broker", "engine", "ingest", "consumer"} {
		b, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return fmt.Errorf("%w: run \"make build\" first", err)
		}
		if err := os.WriteFile(filepath.Join(to, name), b, 0o755); err != nil {
			return err
		}
	}
	return nil
}
