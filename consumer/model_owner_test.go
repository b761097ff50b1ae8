package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/failure"
	"sluice/consumer/internal/index"
	"sluice/consumer/internal/kafka"
	"sluice/consumer/internal/partition"
	"sluice/consumer/internal/store"
	"sluice/schemas/topic"
)

// fate of a step, by what goes wrong at it.
type then string

const (
	fails   then = "fails"   // the step returns an error; the owner goes on and recovers
	crashes then = "crashes" // the process is gone
	stalls  then = "stalls"  // it goes on after more than IntentFresh
	freezes then = "freezes" // it stops, and goes on when it is thawed, which may be when another owns the partition
	pauses  then = "pauses"  // the whole world stops, for another action to happen here
)

// fault is what goes wrong once in an owner's run, when it comes to a point for
// the (skip+1)th time. At a point before an effect the effect is not done, at the
// one after it is done and its answer lost; with late it is done at some later
// time, when the answer has been given up; with part only some months' rows of
// an INSERT are.
type fault struct {
	point partition.Point
	skip  int
	late  bool
	part  bool
	then  then
}

func (f *fault) String() string {
	if f == nil {
		return "no fault"
	}
	s := fmt.Sprintf("at %q", f.point)
	if f.skip > 0 {
		s += fmt.Sprintf(" (passed %d times)", f.skip)
	}
	switch {
	case f.late:
		s += ", done late"
	case f.part:
		s += ", done in part"
	}
	return s + " it " + string(f.then)
}

// settings are what differs from one incarnation to another.
type settings struct {
	rows, months int
	indexBytes   int64
	indexLive    time.Duration
	fresh        time.Duration
}

var usual = settings{rows: 50, months: 60, indexBytes: 8 << 20, indexLive: time.Hour, fresh: freshness}

// freshness is short, so that a stall past it takes no time.
const freshness = 60 * time.Millisecond

// incarnation is an owner of a partition with a fault before it.
type incarnation struct {
	w      *world
	name   string
	p      int32
	ctx    context.Context
	die    context.CancelFunc
	stop   chan struct{}
	done   chan struct{}
	fault  atomic.Pointer[armed]
	last   partition.Point // that was passed; of the owner's goroutine
	dead   atomic.Bool
	asleep atomic.Bool
	wake   chan struct{} // while it is frozen; guarded by w.mu, as since is
	since  time.Time     // when it was frozen
	halted atomic.Value
}

// armed is a fault that waits for its point.
type armed struct {
	*fault
	passed int // times the point was passed; of the owner's goroutine
}

// arm puts a fault before the owner, or takes away the one there with nil.
func (inc *incarnation) arm(f *fault) {
	if f == nil {
		inc.fault.Store(nil)
		return
	}
	inc.fault.Store(&armed{fault: f})
}

// lateEffect has been sent and will arrive.
type lateEffect struct {
	what string
	do   func() error
}

// assign gives the partition to a new owner. One that ran crashes before, one
// that is frozen does not know.
func (w *world) assign(p int32, s settings) *incarnation {
	w.t.Helper()
	if w.owners[p] != nil {
		w.crash(p)
	}
	w.incs++
	inc := &incarnation{w: w, name: fmt.Sprintf("owner %d", w.incs), p: p, stop: make(chan struct{}), done: make(chan struct{})}
	inc.ctx, inc.die = context.WithCancel(w.ctx)
	limits := batch.Limits{Rows: s.rows, Bytes: 1 << 20, Age: 5 * time.Millisecond, TablePartitions: s.months}
	k := w.kafka
	owner := partition.New(partition.Config{
		Topic: w.cfg.Kafka.Topic, Partition: p, Limits: limits, CloseAfter: 5 * time.Millisecond, IntentFresh: s.fresh,
		Partitions: w.told.Load, At: inc.at, Index: index.NewBudget(s.indexBytes, 1), IndexLive: s.indexLive,
	}, modelLog{kafka.Owned{Log: k, Partition: p, CommitFunc: inc.commit}, inc}, modelStore{w.store, inc}, inc, w.log.With("owner", inc.name))
	w.mu.Lock()
	w.owners[p], w.holder[p] = inc, inc
	w.mu.Unlock()
	go func() {
		defer close(inc.done)
		owner.Run(inc.ctx, inc.stop)
	}()
	return inc
}

// Decided and Halted implement partition.Observer.
func (inc *incarnation) Decided(int32, map[dedup.Fate]int, int, int64) {}
func (inc *incarnation) Halted(_ int32, err error) {
	inc.halted.Store(fmt.Sprint(err))
}

// commit is the group's: it takes commits of the partition's holder alone, as a
// coordinator and our own committer do.
func (inc *incarnation) commit(ctx context.Context, offset int64, metadata string) error {
	inc.w.mu.Lock()
	defer inc.w.mu.Unlock()
	if inc.w.holder[inc.p] != inc {
		return failure.ErrOver
	}
	return inc.w.commit(ctx, inc.p, offset, metadata)
}

func (w *world) commit(ctx context.Context, p int32, offset int64, metadata string) error {
	var o kadm.Offsets
	o.Add(kadm.Offset{Topic: w.cfg.Kafka.Topic, Partition: p, At: offset, LeaderEpoch: -1, Metadata: metadata})
	_, err := w.rig.admin.CommitOffsets(ctx, w.cfg.Group.ID, o)
	return err
}

var errFault = errors.New("a fault of the model")

// at waits for the gate, and meets the fault if it is here.
func (inc *incarnation) at(p partition.Point) error {
	if err := inc.w.passGate(inc.ctx); err != nil {
		return err
	}
	inc.last = p
	f := inc.due(p, func(f *fault) bool { return !f.late && !f.part })
	if f == nil {
		return nil
	}
	return inc.meet(f)
}

// came is the point that was passed last, if an effect of this kind follows it.
func (inc *incarnation) came(point partition.Point, also []partition.Point) partition.Point {
	if slices.Contains(also, inc.last) {
		return inc.last
	}
	return point
}

// due returns the fault if it is to happen now.
func (inc *incarnation) due(p partition.Point, fits func(*fault) bool) *fault {
	f := inc.fault.Load()
	if f == nil || f.point != p || !fits(f.fault) {
		return nil
	}
	if f.passed++; f.passed <= f.skip {
		return nil
	}
	if !inc.fault.CompareAndSwap(f, nil) {
		return nil // it was taken away just now
	}
	inc.w.rig.stats.count(fmt.Sprintf("fault: %s, late %v, part %v, %s", f.point, f.late, f.part, f.then))
	return f.fault
}

func (inc *incarnation) meet(f *fault) error {
	switch f.then {
	case crashes:
		inc.dead.Store(true)
		inc.die()
		return errFault
	case stalls:
		time.Sleep(2 * freshness)
		return nil
	case freezes:
		wake := make(chan struct{})
		inc.w.mu.Lock()
		inc.since, inc.wake = time.Now(), wake
		inc.asleep.Store(true)
		inc.w.frozen = append(inc.w.frozen, inc)
		inc.w.mu.Unlock()
		select {
		case <-wake:
		case <-inc.ctx.Done(): // it was killed as it was about to freeze
		}
		return nil
	case pauses:
		inc.w.shut()
		return inc.w.passGate(inc.ctx)
	case fails:
	}
	return errFault
}

// sleepers are the owners that are frozen.
func (w *world) sleepers() []*incarnation {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.frozen)
}

// thaw lets a frozen owner go on. If another has its partition it has been
// frozen for longer than a session. With gone the process ends instead.
func (inc *incarnation) thaw(gone bool) {
	w := inc.w
	w.mu.Lock()
	w.frozen = slices.DeleteFunc(w.frozen, func(o *incarnation) bool { return o == inc })
	over, since, wake := w.holder[inc.p] != inc, inc.since, inc.wake
	w.mu.Unlock()
	if gone {
		inc.dead.Store(true)
		inc.die()
	}
	if over {
		time.Sleep(time.Until(since.Add(2 * freshness)))
	}
	inc.asleep.Store(false)
	close(wake)
	if gone {
		<-inc.done
	}
}

// passGate waits until the gate is open.
func (w *world) passGate(ctx context.Context) error {
	w.gateMu.Lock()
	gate := w.gate
	w.gateMu.Unlock()
	select {
	case <-gate:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// open lets owners move.
func (w *world) open() {
	w.gateMu.Lock()
	defer w.gateMu.Unlock()
	select {
	case <-w.gate:
	default:
		close(w.gate)
	}
}

// shut stops them before their next step. What they are at goes on.
func (w *world) shut() {
	w.gateMu.Lock()
	defer w.gateMu.Unlock()
	select {
	case <-w.gate:
		w.gate = make(chan struct{})
	default:
	}
}

func (w *world) isShut() bool {
	w.gateMu.Lock()
	defer w.gateMu.Unlock()
	select {
	case <-w.gate:
		return false
	default:
		return true
	}
}

// still shuts the gate and waits for what is being done.
func (w *world) still() {
	w.shut()
	w.effects.Lock()
	w.effects.Unlock() //nolint:staticcheck // waiting was all
}

// effect does what an owner wants done outside, unless a fault is due at the
// point before it. part, if there is one, does it in part; also are more points
// that come before such an effect.
func (inc *incarnation) effect(point partition.Point, what string, do func(context.Context) error, part func(context.Context) error, also ...partition.Point) error {
	for {
		if err := inc.w.passGate(inc.ctx); err != nil {
			return err
		}
		inc.w.effects.RLock()
		if !inc.w.isShut() {
			break
		}
		inc.w.effects.RUnlock()
	}
	defer inc.w.effects.RUnlock()
	f := inc.due(inc.came(point, also), func(f *fault) bool { return f.late || f.part && part != nil })
	switch {
	case f == nil:
		return do(inc.ctx)
	case f.part:
		if err := part(inc.ctx); err != nil {
			return err
		}
	default:
		ctx := context.WithoutCancel(inc.ctx)
		inc.w.mu.Lock()
		inc.w.late = append(inc.w.late, &lateEffect{what: fmt.Sprintf("%s of %s, partition %d", what, inc.name, inc.p), do: func() error { return do(ctx) }})
		inc.w.mu.Unlock()
	}
	return inc.meet(f)
}

// modelLog is the log with faults.
type modelLog struct {
	kafka.Owned
	inc *incarnation
}

func (l modelLog) Commit(ctx context.Context, offset int64, metadata string) error {
	return l.inc.effect(partition.PointIntend, "the commit "+metadata, func(context.Context) error {
		return l.inc.commit(context.WithoutCancel(ctx), offset, metadata)
	}, nil, partition.PointRenew, partition.PointClaim, partition.PointClose)
}

func (l modelLog) DeadLetter(_ context.Context, self topic.Origin, letters []*batch.Record) error {
	letters = copied(letters)
	return l.inc.effect(partition.PointLetters, "dead letters", func(ctx context.Context) error { return l.Owned.DeadLetter(ctx, self, letters) }, nil)
}

func (l modelLog) Forward(_ context.Context, self topic.Origin, moved []*batch.Record) error {
	moved = copied(moved)
	return l.inc.effect(partition.PointForward, "forwards", func(ctx context.Context) error { return l.Owned.Forward(ctx, self, moved) }, nil)
}

// modelStore is ClickHouse with faults.
type modelStore struct {
	*store.Store
	inc *incarnation
}

func (s modelStore) Rows(_ context.Context, token string, self topic.Origin, rows []*batch.Record) error {
	rows = copied(rows)
	return s.inc.effect(partition.PointInsert, "rows of "+spans(rows), func(ctx context.Context) error {
		return s.Store.Rows(ctx, token, self, rows)
	}, func(ctx context.Context) error { // an INSERT that died between two table partitions
		first := rows[:0:0]
		for _, r := range rows {
			if r.Event.OccurredAt.Year() == rows[0].Event.OccurredAt.Year() {
				first = append(first, r)
			}
		}
		return s.Store.Rows(ctx, token+"/died", self, first)
	})
}

func (s modelStore) Journal(_ context.Context, token, name string, self topic.Origin, entries []store.Entry) error {
	entries = slices.Clone(entries)
	return s.inc.effect(partition.PointJournal, fmt.Sprintf("journal of %d to %d", entries[len(entries)-1].Offset, entries[len(entries)-1].Last),
		func(ctx context.Context) error { return s.Store.Journal(ctx, token, name, self, entries) }, nil, partition.PointNote)
}

func copied(records []*batch.Record) []*batch.Record {
	out := make([]*batch.Record, len(records))
	for i, r := range records {
		c := *r
		out[i] = &c
	}
	return out
}

func spans(rows []*batch.Record) string {
	var s []int64
	for _, r := range rows {
		s = append(s, r.Offset)
	}
	return fmt.Sprint(s)
}

// crash ends the partition's owner as kill -9 would.
func (w *world) crash(p int32) {
	inc := w.owners[p]
	if inc == nil {
		return
	}
	delete(w.owners, p)
	if inc.asleep.Load() {
		return // it stays frozen, and another takes over
	}
	inc.dead.Store(true)
	inc.die()
	w.ended(inc)
}

func (w *world) crashAll() {
	w.still()
	for p := range w.owners {
		w.crash(p)
	}
}

func (w *world) ended(inc *incarnation) {
	w.t.Helper()
	select {
	case <-inc.done:
	case <-time.After(30 * time.Second):
		require.FailNow(w.t, "an owner does not end", "%s of partition %d", inc.name, inc.p)
	}
}

// release lets what is late arrive.
func (w *world) release(i int) {
	w.mu.Lock()
	e := w.late[i]
	w.late = slices.Delete(w.late, i, i+1)
	w.mu.Unlock()
	err := e.do()
	w.note("late, %s arrives: %v", e.what, err)
}
