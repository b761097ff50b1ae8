package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/index"
	"sluice/consumer/internal/intent"
	"sluice/consumer/internal/partition"
	"sluice/consumer/internal/store"
	"sluice/schemas/topic"
)

// kind is how an owner fails at a point.
type kind string

const (
	// At any point.
	crashes kind = "crashes"             // the process is gone
	leaves  kind = "is told to leave"    // revoked: finishes its batch, then gives up
	loses   kind = "loses the partition" // its context ends, the next owner runs at once
	freezes kind = "freezes"             // and goes on when the next owner is at when
	// At the effect that follows the point.
	unheard  kind = "does not hear the answer"        // the effect is done; it lives on
	inVain   kind = "fails"                           // the effect is not done; it lives on
	delayed  kind = "is answered too early"           // the effect is done at when; it lives on
	deadLate kind = "crashes, its effect late"        // the effect is done at when
	partly   kind = "crashes, its INSERT partly done" // one month of it is
	halfway  kind = "lives, its INSERT partly done"
)

// Moments at which what is late is done, beside the points of the next owner.
const (
	begun    = "begun"    // the next owner has asked where it stands
	finished = "finished" // the next owner has finished
)

// failure is one failure of one owner: at the nth time that it comes to point.
type fault struct {
	point partition.Point
	nth   int
	kind  kind
	when  string
}

func (f fault) String() string {
	s := fmt.Sprintf("%s at %q (%d)", f.kind, f.point, f.nth)
	if f.when != "" {
		s += ", until the next has " + f.when
	}
	return s
}

// world is one case: a log, its group, and what has been put off.
type world struct {
	*cluster
	name    string
	want    expected
	lines   []line
	store   tables
	number  int32         // of the partition
	limits  []int         // most records of a batch, by owner
	fresh   time.Duration // the owners' IntentFresh
	keys    *index.Budget
	reached map[partition.Point]int
	unmet   int // failures whose point the owner never came to
	log     syncBuffer

	before func(nth int) // what happens to the log before an owner begins; it may be nil

	mu   sync.Mutex
	late []*putOff
}

// putOff is an effect to be done at a moment of a later owner, or of the same one
// if it lives.
type putOff struct {
	when  string
	after int // owners up to this one don't count
	token string
	do    func()
}

func (w *world) putOff(p *putOff) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.late = append(w.late, p)
}

// moment does what was put off until now.
func (w *world) moment(when string, owner int) {
	w.mu.Lock()
	var due []*putOff
	w.late = slices.DeleteFunc(w.late, func(p *putOff) bool {
		if (p.when == when || when == finished) && owner > p.after {
			due = append(due, p)
			return true
		}
		return false
	})
	w.mu.Unlock()
	for _, p := range due {
		fmt.Fprintf(&w.log, "-- late, at %q of owner %d\n", when, owner)
		p.do()
	}
}

var (
	errCrash   = errors.New("crashed here")
	errUnheard = errors.New("the connection was lost before the answer")
)

// own is one owner and the failures that wait for it, one after the other.
type own struct {
	world   *world
	owner   *partition.Owner
	view    *view
	nth     int
	waiting []fault
	counts  map[partition.Point]int // since the last failure
	all     map[partition.Point]int
	failure fault // the last that was met
	met     bool
	armed   bool // the next effect is the one that fails
	die     context.CancelFunc
	stop    chan struct{}
	leave   sync.Once
	done    chan struct{} // Run has returned
	over    chan struct{} // the log is written and the group knows
	frozen  chan struct{}
	thaw    chan struct{}
	ended   sync.Once
}

// bound is how long an owner may take, on however busy a machine.
const bound = 60 * time.Second

func (w *world) begin(ctx context.Context, nth int, waiting []fault) *own {
	if w.before != nil {
		w.before(nth)
	}
	ctx, die := context.WithCancel(ctx)
	o := &own{
		world: w, view: &view{cluster: w.cluster, generation: w.rebalance()}, nth: nth, waiting: waiting, counts: map[partition.Point]int{}, all: map[partition.Point]int{},
		die: die, stop: make(chan struct{}), done: make(chan struct{}), over: make(chan struct{}), frozen: make(chan struct{}), thaw: make(chan struct{}),
	}
	logger := slog.New(slog.NewTextHandler(&w.log, nil)).With("owner", nth)
	owner := partition.New(partition.Config{
		Topic: "events", Partition: w.number, Limits: batch.Limits{Rows: w.limits[nth%len(w.limits)], Bytes: 1 << 20, Age: 20 * time.Millisecond, TablePartitions: 60},
		CloseAfter: time.Millisecond, IntentFresh: w.fresh, Index: w.keys, IndexLive: 24 * time.Hour, At: o.at,
	}, effectLog{o.view, o}, effectStore{w.store, o}, observer{}, logger)
	o.owner = owner
	go func() {
		defer close(o.done)
		owner.Run(ctx, o.stop)
	}()
	return o
}

type observer struct{}

func (observer) Decided(int32, map[dedup.Fate]int, int, int64) {}
func (observer) Halted(int32, error)                           {}

func (o *own) finish() { o.leave.Do(func() { close(o.stop) }) }

// at is the owner's hook. All of an owner's points and effects are in one
// goroutine, so what follows a point is the next effect.
func (o *own) at(p partition.Point) error {
	if p == partition.PointRecovered {
		time.Sleep(time.Millisecond) // the index's first load is done then, where time waits for it
	}
	o.counts[p]++
	o.all[p]++
	o.world.moment(string(p), o.nth)
	if len(o.waiting) > 0 && o.waiting[0].point == p && o.waiting[0].nth == o.counts[p] {
		f := o.waiting[0]
		o.failure, o.waiting, o.met = f, o.waiting[1:], true
		clear(o.counts)
		if !o.atEffect() {
			o.world.reveal()
		}
		fmt.Fprintf(&o.world.log, "-- owner %d %s\n", o.nth, f)
		switch f.kind {
		case crashes:
			o.die()
			return errCrash
		case loses:
			o.die()
		case leaves:
			o.finish()
		case freezes:
			close(o.frozen)
			<-o.thaw
			fmt.Fprintf(&o.world.log, "-- owner %d goes on\n", o.nth)
		default:
			o.armed = true
		}
	}
	if (p == partition.PointClosed || p == partition.PointRecovered) && o.world.closed() {
		o.ended.Do(func() { close(o.over) })
	}
	return nil
}

// lives tells that an owner goes on after a failure of this kind; the next
// failure is its own then.
func (k kind) lives() bool { return slices.Contains([]kind{unheard, inVain, delayed, halfway}, k) }

// atEffect tells that the failure is at the effect that follows the point.
func (o *own) atEffect() bool {
	return !slices.Contains([]kind{crashes, leaves, loses, freezes}, o.failure.kind)
}

// effect does an effect on the outside, unless it is the one that fails. late is
// the same with copies of what it needs.
func (o *own) effect(ctx context.Context, token string, do, partial, late func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !o.armed {
		return do(ctx)
	}
	o.armed = false
	f := o.failure
	putOff := func(after int) {
		ctx := context.WithoutCancel(ctx)
		o.world.putOff(&putOff{when: f.when, after: after, token: token, do: func() {
			if err := late(ctx); err != nil {
				fmt.Fprintf(&o.world.log, "-- the late effect: %v\n", err)
			}
		}})
	}
	defer o.world.reveal()
	switch f.kind {
	case unheard:
		_ = do(ctx) // its answer, whichever, is not heard
		return errUnheard
	case inVain:
		return errUnheard
	case delayed:
		putOff(o.nth - 1)
		return errUnheard
	case deadLate:
		putOff(o.nth)
	case partly, halfway:
		_ = partial(ctx)
		if f.kind == halfway {
			return errUnheard
		}
	}
	o.die()
	return errCrash
}

type effectLog struct {
	*view
	own *own
}

func (l effectLog) Where(ctx context.Context) (partition.Where, error) {
	where, err := l.view.Where(ctx)
	l.own.world.moment(begun, l.own.nth)
	return where, err
}

func (l effectLog) Commit(ctx context.Context, offset int64, metadata string) error {
	do := func(ctx context.Context) error { return l.view.Commit(ctx, offset, metadata) }
	return l.own.effect(ctx, "", do, do, do)
}

func (l effectLog) DeadLetter(ctx context.Context, self topic.Origin, letters []*batch.Record) error {
	send := func(letters []*batch.Record) func(context.Context) error {
		return func(ctx context.Context) error { return l.view.DeadLetter(ctx, self, letters) }
	}
	return l.own.effect(ctx, "", send(letters), send(letters[:1]), send(copies(letters)))
}

func (l effectLog) Forward(ctx context.Context, self topic.Origin, moved []*batch.Record) error {
	send := func(moved []*batch.Record) func(context.Context) error {
		return func(ctx context.Context) error { return l.view.Forward(ctx, self, moved) }
	}
	return l.own.effect(ctx, "", send(moved), send(moved[:1]), send(copies(moved)))
}

// copies outlive the batch, whose memory is used again.
func copies(records []*batch.Record) []*batch.Record {
	out := make([]*batch.Record, len(records))
	for i, r := range records {
		c := *r
		out[i] = &c
	}
	return out
}

type effectStore struct {
	tables
	own *own
}

func (s effectStore) Rows(ctx context.Context, token string, self topic.Origin, rows []*batch.Record) error {
	insert := func(rows []*batch.Record) func(context.Context) error {
		return func(ctx context.Context) error { return s.tables.Rows(ctx, token, self, rows) }
	}
	return s.own.effect(ctx, token, insert(rows), insert(oneMonth(rows)), insert(copies(rows)))
}

// oneMonth is what of rows an INSERT has written that was ended between two
// table partitions.
func oneMonth(rows []*batch.Record) []*batch.Record {
	var out []*batch.Record
	for _, r := range rows {
		if r.Event.OccurredAt.Month() == rows[0].Event.OccurredAt.Month() {
			out = append(out, r)
		}
	}
	return out
}

func (s effectStore) Journal(ctx context.Context, token, name string, self topic.Origin, entries []store.Entry) error {
	write := func(entries []store.Entry) func(context.Context) error {
		return func(ctx context.Context) error { return s.tables.Journal(ctx, token, name, self, entries) }
	}
	do := write(entries) // one table partition: all or none
	return s.own.effect(ctx, token, do, do, write(slices.Clone(entries)))
}

// Stop ends what still runs: what was put off is under way to the server, or
// held up in it. Only the latter can be stopped; see [world.running].
func (s effectStore) Stop(ctx context.Context, self topic.Origin) error {
	s.own.world.ended(self)
	return s.tables.Stop(ctx, self)
}

// running is the moment of statements that the server holds: they are done when
// the next owner has finished, unless someone has ended them.
const running = "running"

func (w *world) ended(self topic.Origin) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.late = slices.DeleteFunc(w.late, func(p *putOff) bool {
		return p.when == running && strings.HasPrefix(p.token, intent.TokenPrefix(self.TopicID, self.Partition))
	})
}

// newWorld is a case with keys and a log of its own.
func newWorld(name string, st tables, script []line) *world {
	id := uuid.New()
	lines, raws := history(id.String(), time.Now(), script)
	w := &world{
		cluster: newCluster(id, raws, raws[len(raws)-1].Offset+1), name: name, lines: lines, want: expect(lines), store: st,
		limits: []int{batchRows, batchRows + 5, batchRows - 3}, fresh: time.Minute, keys: index.NewBudget(1<<20, 2),
	}
	// A commit of ours stands, so that nothing need be compared that an earlier
	// owner cannot have written.
	in := intent.ClosedAt(0, id, partitions)
	in.CompareTo = -1
	w.committed, w.metadata = 0, in.Metadata()
	return w
}

// run lets one owner after the other fail, and a last one finish.
func (w *world) run(ctx context.Context, failures ...fault) error {
	var all, frozen []*own
	defer func() {
		for _, o := range all {
			o.die()
			select {
			case <-o.thaw:
			default:
				close(o.thaw)
			}
			<-o.done
		}
	}()
	timeout := time.After(bound)
	thaw := func(when string, after int) error {
		rest := frozen[:0]
		for _, o := range frozen {
			if o.failure.when != when || o.nth >= after {
				rest = append(rest, o)
				continue
			}
			idle := w.closed() && (o.failure.point == partition.PointClosed || o.failure.point == partition.PointRecovered)
			close(o.thaw)
			if idle { // it has nothing to do that would tell it that it is over
				o.die()
			}
			select {
			case <-o.done:
			case <-timeout:
				return fmt.Errorf("owner %d, frozen and going on, did not end", o.nth)
			}
		}
		frozen = rest
		return nil
	}
	settled := false
	for nth := 0; ; nth++ {
		n := 0
		for n < len(failures) && (n == 0 || failures[n-1].kind.lives()) {
			n++
		}
		o := w.begin(ctx, nth, failures[:n:n])
		failures = failures[n:]
		all = append(all, o)
		for _, z := range frozen { // who goes on when this one is at a point of its own
			w.putOff(&putOff{when: z.failure.when, after: nth - 1, do: func() { _ = thaw(z.failure.when, nth) }})
		}
		select {
		case <-o.done:
		case <-o.frozen:
			frozen = append(frozen, o)
			continue
		case <-o.over:
			o.finish()
			select {
			case <-o.done:
			case <-o.frozen:
				frozen = append(frozen, o)
				continue
			case <-timeout:
				return fmt.Errorf("owner %d did not stop", nth)
			}
		case <-timeout:
			return fmt.Errorf("owner %d did not finish", nth)
		}
		if nth == 0 {
			w.reached = o.all
		}
		w.unmet += len(o.waiting)
		if !w.closed() && n == 0 {
			return fmt.Errorf("owner %d returned before the log was written", nth)
		}
		if !w.closed() || o.met {
			continue
		}
		// All is written. What is later than that comes now, and one more owner
		// must find nothing to do.
		w.moment(finished, nth)
		if err := thaw(finished, nth); err != nil {
			return err
		}
		if last := len(failures) == 0 && n == 0; last && settled {
			return nil
		} else if last {
			settled = true
		}
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
