package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"sluice/deploy/chaos/internal/load"
	"sluice/deploy/chaos/internal/oracle"
	"sluice/deploy/chaos/internal/plan"
	"sluice/deploy/chaos/internal/process"
	"sluice/deploy/local/supervise"
	"sluice/schemas/event"
	"sluice/schemas/topic"
)

// promises is what has been acknowledged since the data were empty.
type promises struct {
	edge    []load.Promise
	written []load.Written
}

// outcome is what came of a round.
type outcome struct {
	sent     load.Result
	sending  time.Duration // until all was answered or given up
	recovery time.Duration // from when nothing was wrong any more
	judging  time.Duration
	counts   map[oracle.Fate]int
	records  int
	parts    uint64
	// differences: the round failed.
	differences []oracle.Difference
}

// round does a round: work is sent while steps happen, then everything is well
// again and must come to rest, then all of it is compared.
func (s *stack) round(ctx context.Context, steps []plan.Step, work load.Work, done *promises) (o outcome, err error) {
	begun := time.Now()
	var well time.Time // when the last step was undone
	over := make(chan error, 1)
	go func() {
		err := s.happen(ctx, steps, begun)
		well = time.Now()
		over <- err
	}()
	sender := load.Sender{
		Edge: "http://" + s.proxies[plan.Edge].Addr(), Patience: 2 * time.Second, Giveup: giveup,
		Producer: s.producer, Topic: topic.Events, Workers: 8,
	}
	o.sent = sender.Send(ctx, work)
	o.sending = time.Since(begun)
	if err := <-over; err != nil {
		return o, err
	}
	if ctx.Err() != nil {
		return o, context.Cause(ctx)
	}
	done.edge = append(done.edge, o.sent.Promises...)
	done.written = append(done.written, o.sent.Written...)
	for _, f := range o.sent.Faults {
		o.differences = append(o.differences, oracle.Difference{What: f})
	}
	if err := s.rest(ctx); err != nil {
		return o, err
	}
	o.recovery = time.Since(well)
	judging := time.Now()
	defer func() { o.judging = time.Since(judging) }()
	return o, s.judge(ctx, &o, done)
}

// giveup is how long the sender tries, from the round's beginning: longer than
// everything takes to be well again, so that few events are given up.
const giveup = 30 * time.Second

// happen makes the steps happen and returns when each is over and undone.
func (s *stack) happen(ctx context.Context, steps []plan.Step, begun time.Time) error {
	// One after the other for each victim: on a busy machine a step may take so
	// long that the next one is due before it is undone.
	rows := map[string][]plan.Step{}
	for _, step := range steps {
		rows[step.Victim+step.Link.String()] = append(rows[step.Victim+step.Link.String()], step)
	}
	errs := make(chan error, len(steps))
	var all sync.WaitGroup
	for _, row := range rows {
		all.Go(func() {
			for _, step := range row {
				if pause(ctx, time.Until(begun.Add(step.At))) {
					errs <- s.step(ctx, step)
				}
			}
		})
	}
	all.Wait()
	close(errs)
	for _, p := range s.proxies {
		p.Clear()
	}
	var failed error
	for err := range errs {
		failed = errors.Join(failed, err)
	}
	return failed
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(max(d, 0))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *stack) step(ctx context.Context, step plan.Step) error {
	if step.Victim != "" {
		p := s.processes[step.Victim]
		if step.Action == plan.Kill {
			p.Kill()
			pause(ctx, step.For)
			return p.Start()
		}
		p.Freeze()
		pause(ctx, step.For)
		p.Thaw()
		return nil
	}
	between, client := s.link(step.Link)
	switch step.Action {
	case plan.Cut:
		between.Cut(client)
	case plan.Stall:
		between.Stall(client, step.Direction, step.For)
	case plan.Delay:
		between.Delay(client, step.Direction, step.Each, step.For)
	case plan.Lose:
		between.LoseAnswers(client, step.Kind, step.Times)
	case plan.Tear:
		between.TearRequests(client, step.Kind, step.Times, step.Bytes)
	}
	pause(ctx, step.For)
	return nil
}

// stuckError says that a round did not come to rest.
type stuckError struct{ why error }

func (e *stuckError) Error() string { return "everything is well, and yet: " + e.why.Error() }

// rest waits until every process is ready and the journal has reached the ends
// of the log.
func (s *stack) rest(ctx context.Context) error {
	bound, cancel := context.WithTimeoutCause(ctx, s.cfg.quiet, fmt.Errorf("not decided within %s", s.cfg.quiet))
	defer cancel()
	var last error // that was not for the bound's own end
	err := supervise.Await(bound, func(ctx context.Context) error {
		asking, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		err := s.drained(asking)
		if err == nil {
			err = s.decided(asking)
		}
		if err == nil {
			err = s.ready(asking)
		}
		if ctx.Err() == nil {
			last = err
		}
		if err != nil {
			pause(ctx, askEvery)
		}
		return err
	})
	if err != nil && ctx.Err() == nil {
		return &stuckError{errors.Join(context.Cause(bound), last, s.autopsy(ctx))}
	}
	return err
}

// askEvery is how long rest waits between two looks, which cost those at work.
const askEvery = 150 * time.Millisecond

// decided is nil when the journal has reached the ends of the log.
func (s *stack) decided(ctx context.Context) error {
	ends, err := s.log.Ends(ctx, topic.Events)
	if err != nil {
		return err
	}
	id, partitions, err := s.log.Topic(ctx)
	if err != nil {
		return err
	}
	journaled, err := s.tables.Reach(ctx, id)
	if err == nil {
		err = reached(journaled, ends)
	}
	if err != nil {
		return err
	}
	if journaled, err = s.tables.JournalEnds(ctx, id, partitions); err != nil {
		return err
	}
	return reached(journaled, ends)
}

// reached is nil when the journal is no shorter than the log.
func reached(journaled, ends map[int32]int64) error {
	for p, end := range ends {
		if journaled[p] < end {
			return fmt.Errorf("partition %d: the journal ends at offset %d, the log at %d", p, journaled[p], end)
		}
	}
	return nil
}

// judge compares everything. If the log grows meanwhile, since the edge still
// tries to write what no one waits for any more, it waits and compares again.
func (s *stack) judge(ctx context.Context, o *outcome, done *promises) error {
	const tries = 20
	for range tries {
		ends, err := s.log.Ends(ctx, topic.Events)
		if err != nil {
			return err
		}
		found, err := s.compare(ctx, ends, o, done)
		if err != nil {
			return err
		}
		now, err := s.log.Ends(ctx, topic.Events)
		if err != nil {
			return err
		}
		if !same(ends, now) {
			if err := s.rest(ctx); err != nil {
				return err
			}
			continue
		}
		o.differences = append(o.differences, found...)
		return nil
	}
	return &stuckError{fmt.Errorf("the log still grows after %d comparisons", tries)}
}

func same(a, b map[int32]int64) bool {
	for p, end := range a {
		if b[p] != end {
			return false
		}
	}
	return len(a) == len(b)
}

func (s *stack) compare(ctx context.Context, ends map[int32]int64, o *outcome, done *promises) ([]oracle.Difference, error) {
	id, partitions, err := s.log.Topic(ctx)
	if err != nil {
		return nil, err
	}
	expected, values, err := s.log.Expect(ctx, ends)
	if err != nil {
		return nil, err
	}
	stored, err := s.tables.Stored(ctx, id, partitions)
	if err != nil {
		return nil, err
	}
	if stored.DeadLetters, err = s.log.DeadLetters(ctx); err != nil {
		return nil, err
	}
	if o.parts, err = s.tables.Parts(ctx); err != nil {
		return nil, err
	}
	o.counts, o.records = expected.Counts(), expected.Records()
	found := kept(expected, values, done)
	found = append(found, expected.Compare(stored)...)
	different, err := s.verify(expected)
	return append(found, different...), err
}

// kept checks that what was acknowledged stands in the log.
func kept(expected *oracle.Oracle, values map[oracle.At]event.Hash, done *promises) []oracle.Difference {
	var found []oracle.Difference
	for _, p := range done.edge {
		if !expected.Has(p.ID, p.Hash) {
			found = append(found, oracle.Difference{Key: p.Key, What: "the edge acknowledged it with 202, and it is not in the log"})
		}
	}
	for _, w := range done.written {
		at := oracle.At{Partition: w.Partition, Offset: w.Offset}
		if hash, ok := values[at]; !ok || hash != oracle.ValueHash(w.Value) {
			found = append(found, oracle.Difference{At: at, What: "the broker acknowledged a record here, and the log has another or none"})
		}
	}
	return found
}

// verify asks the consumer's own command, which must come to the same.
func (s *stack) verify(expected *oracle.Oracle) ([]oracle.Difference, error) {
	out, err := s.consumer("verify", "--json")
	words := ""
	if err != nil {
		failed, ok := errors.AsType[*process.RunError](err)
		if !ok || failed.ExitCode() != 1 {
			return nil, err
		}
		words = failed.Words
	}
	var v struct {
		OK                                                              bool
		Records, Rows, Duplicates, Conflicts, Forwarded, Missing, Extra int
		DeadLettered                                                    int  `json:"dead_lettered"`
		RollupsEqual                                                    bool `json:"rollups_equal"`
	}
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		return nil, fmt.Errorf("consumer verify --json printed %q: %w", out, err)
	}
	var found []oracle.Difference
	if !v.OK || err != nil {
		found = append(found, oracle.Difference{What: "consumer verify: " + out + words})
	}
	counts := expected.Counts()
	if v.Records != expected.Records() || v.Rows != counts[oracle.Row] || v.Duplicates != counts[oracle.Duplicate] ||
		v.Conflicts != counts[oracle.Conflict] || v.DeadLettered != counts[oracle.DeadLetter] || v.Forwarded != counts[oracle.Forwarded] {
		found = append(found, oracle.Difference{What: fmt.Sprintf("consumer verify counts otherwise: %s, should be %v of %d records", out, counts, expected.Records())})
	}
	return found, nil
}
