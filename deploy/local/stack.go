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
	"strconv"
	"strings"
	"time"

	"sluice/deploy/local/apache"
	"sluice/deploy/local/lifeline"
	"sluice/deploy/local/lock"
	"sluice/deploy/local/supervise"
)

const (
	// answerBound is how long broker and engine may take to answer. They take
	// less than a second, with much data a few.
	answerBound = 2 * time.Minute
	// leftoverBound is how long the programs of a killed supervisor may take to
	// end: they notice at once, and stop in order.
	leftoverBound = 30 * time.Second
	// tellEvery is how often it is said what is not ready yet.
	tellEvery = 10 * time.Second
)

// errSignal is why a run ends when it was told to.
var errSignal = errors.New("told to stop")

// stack is the five programs: broker, engine, ingest, consumer and, in this
// process, what watches over them.
type stack struct {
	cfg     config
	library func(context.Context) (string, error)          // installs the engine if need be
	apache  func(context.Context) (*apache.Cluster, error) // installs and prepares Kafka itself if need be
	out     *supervise.Output
	ready   io.Writer       // gets the ready line
	hurry   <-chan struct{} // closed when stopping shall not be in order
	log     *slog.Logger
	backoff supervise.Backoff

	spawner *supervise.Spawner
	keepers []*supervise.Keeper // in the order of their start
	fail    context.CancelCauseFunc
}

// run brings the stack up, keeps it up until ctx ends, and takes it down. It
// returns nil when ctx ended by errSignal.
func (s *stack) run(ctx context.Context) (err error) {
	held, err := lockData(s.cfg.data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, held.Release()) }()

	ctx, s.fail = context.WithCancelCause(ctx)
	defer s.fail(nil)
	s.spawner = supervise.NewSpawner()
	defer s.spawner.Close()
	defer s.stop()
	err = s.up(ctx)
	if err == nil {
		<-ctx.Done()
		err = context.Cause(ctx)
	}
	if errors.Is(err, errSignal) {
		s.log.Info("stopping: the edge, the consumer, ClickHouse, Kafka; a second Ctrl-C kills them")
		return nil
	}
	return err
}

// lockData makes the data directory if need be and takes it for this process.
func lockData(dir string) (*lock.Lock, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	l, err := lock.Try(filepath.Join(dir, "lock"))
	var other *lock.HeldError
	if errors.As(err, &other) {
		return nil, fmt.Errorf("sluice already runs on %s: process %d. Stop that one (Ctrl-C in its terminal, or kill %d), or give this one its own --data", dir, other.PID, other.PID)
	}
	return l, err
}

// up does everything up to the ready line.
func (s *stack) up(ctx context.Context) error {
	begun := time.Now()
	if err := s.waitForLeftovers(ctx); err != nil {
		return err
	}
	if err := checkPorts(ctx, s.cfg.ports()); err != nil {
		return err
	}
	library, err := s.library(ctx)
	if err != nil {
		return err
	}
	c := s.cfg
	broker, brokerAnswers, err := s.broker(ctx)
	if err != nil {
		return err
	}
	s.keep(ctx, broker, brokerAnswers)
	s.keep(ctx, supervise.Spec{
		Name: "engine", Path: filepath.Join(c.bin, "engine"), Lifeline: true, StopBound: 25 * time.Second,
		Args: []string{"--listen", c.clickhouse.address(), "--library", library, "--data", filepath.Join(c.data, "engine"), "--" + lifeline.Flag},
	}, s.gets(c.clickhouse, "/ping"))
	if err := s.answer(ctx, map[string]probe{"broker": brokerAnswers, "engine": s.gets(c.clickhouse, "/ping")}); err != nil {
		return err
	}
	consumer := supervise.Spec{Path: filepath.Join(c.bin, "consumer"), Env: c.consumerEnv(), StopBound: 30 * time.Second}
	for _, args := range [][]string{{"topics", "ensure"}, {"migrate"}} {
		once := consumer
		once.Name, once.Args = args[0], args
		if err := s.spawner.RunOnce(ctx, once, s.out.Named(once.Name), s.log); err != nil {
			return err
		}
	}
	consumer.Name, consumer.Env = "consumer", c.memberEnv()
	s.keep(ctx, consumer, s.gets(c.consumerAdmin, "/readyz"))
	s.keep(ctx, supervise.Spec{
		Name: "ingest", Path: filepath.Join(c.bin, "ingest"), Env: c.ingestEnv(), StopBound: 60 * time.Second,
	}, s.gets(c.ingestAdmin, "/readyz"))
	if err := s.awaitReady(ctx); err != nil {
		return err
	}
	for _, k := range s.keepers {
		k.Settled()
	}
	s.log.Info("everything is up", "took", time.Since(begun).Round(time.Millisecond))
	_, err = fmt.Fprintf(s.ready, "sluice is ready: POST http://%s/api/events\n", c.http.address())
	return err
}

// broker is the broker chosen: how it is run, and how it is asked whether it is
// at work. What it needs is installed and prepared first.
func (s *stack) broker(ctx context.Context) (supervise.Spec, probe, error) {
	c := s.cfg
	if c.broker == kfakeBroker {
		return supervise.Spec{
			Name: "broker", Path: filepath.Join(c.bin, "broker"), Lifeline: true, StopBound: 15 * time.Second,
			Args: []string{"--port", strconv.Itoa(c.kafka.number), "--data", filepath.Join(c.data, "broker"),
				"--sync-writes=" + strconv.FormatBool(c.syncWrites), "--" + lifeline.Flag},
		}, s.dials(c.kafka), nil
	}
	kafka, err := s.apache(ctx)
	if err != nil {
		return supervise.Spec{}, nil, err
	}
	spec := supervise.Spec{Name: "broker", StopBound: 30 * time.Second}
	spec.Path, spec.Args = kafka.Command(1)
	return spec, kafka.Answers, nil
}

// keep starts a program for the rest of the run, which ends if it gives up.
func (s *stack) keep(ctx context.Context, spec supervise.Spec, p probe) {
	k := s.spawner.Keep(spec, s.backoff, p, s.out.Named(spec.Name), s.hurry, s.log)
	s.keepers = append(s.keepers, k)
	go func() {
		select {
		case err := <-k.GaveUp():
			s.fail(err)
		case <-ctx.Done():
		}
	}()
}

// stop ends the programs in the reverse order of their start: the edge first,
// so that nothing new comes in, and what stands on another before that.
func (s *stack) stop() {
	for i := len(s.keepers) - 1; i >= 0; i-- {
		s.keepers[i].Stop()
	}
}

// waitForLeftovers waits for broker and engine of a supervisor that was killed:
// they end by themselves, but not before their data are safe.
func (s *stack) waitForLeftovers(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, leftoverBound, errors.New("it does not end: kill it"))
	defer cancel()
	for _, name := range []string{"broker", "engine"} {
		path := filepath.Join(s.cfg.data, name, "lock")
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			continue // the first run
		}
		err := s.waitFor(ctx, name, func() error {
			l, err := lock.Try(path)
			if err == nil {
				return l.Release()
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return s.waitFor(ctx, "broker", func() error { return apache.Leftover(s.cfg.apacheDir()) })
}

// waitFor waits until gone returns nil, and says once that it waits.
func (s *stack) waitFor(ctx context.Context, name string, gone func() error) error {
	told := false
	err := supervise.Await(ctx, func(context.Context) error {
		err := gone()
		if err != nil && !told {
			told = true
			s.log.Info("waiting for the " + name + " of an earlier run to end: " + err.Error())
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("the %s of an earlier run: %w", name, err)
	}
	return nil
}

// answer waits until the programs answer.
func (s *stack) answer(ctx context.Context, probes map[string]probe) error {
	ctx, cancel := context.WithTimeoutCause(ctx, answerBound, errors.New("no answer within "+answerBound.String()))
	defer cancel()
	for name, p := range probes {
		if err := supervise.Await(ctx, p); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// awaitReady waits until both services say that they are ready: the edge that
// it reaches the log, the consumer that it owns partitions and reaches both log
// and ClickHouse. From time to time it says who is not, and why.
func (s *stack) awaitReady(ctx context.Context) error {
	edge, consumer := s.gets(s.cfg.ingestAdmin, "/readyz"), s.gets(s.cfg.consumerAdmin, "/readyz")
	next := time.Now().Add(tellEvery)
	return supervise.Await(ctx, func(ctx context.Context) error {
		var errs []string
		for name, p := range map[string]probe{"ingest": edge, "consumer": consumer} {
			if err := p(ctx); err != nil {
				errs = append(errs, name+": "+err.Error())
			}
		}
		if len(errs) == 0 {
			return nil
		}
		why := errors.New("not ready yet: " + strings.Join(errs, "; "))
		if time.Now().After(next) {
			next = time.Now().Add(tellEvery)
			s.log.Info(why.Error())
		}
		return why
	})
}

// probe returns nil when a program is at work.
type probe = func(context.Context) error

// probeBound is how long one probe may take.
const probeBound = 2 * time.Second

func (s *stack) dials(p port) probe {
	return func(ctx context.Context) error {
		c, err := (&net.Dialer{Timeout: probeBound}).DialContext(ctx, "tcp", p.address())
		if err != nil {
			return err
		}
		return c.Close()
	}
}

func (s *stack) gets(p port, path string) probe {
	client := &http.Client{Timeout: probeBound, Transport: &http.Transport{DisableKeepAlives: true}}
	return func(ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.address()+path, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(r)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(io.LimitReader(resp.Body, 1000))
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return errors.New(strings.TrimSpace(string(body)))
		}
		return nil
	}
}
