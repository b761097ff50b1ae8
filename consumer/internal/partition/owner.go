// Package partition owns one partition from first record to commit: the intent
// protocol of deploy/docs/protocol.md. It knows no Kafka client and no driver;
// what it needs of both stands in its interfaces.
package partition

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"golang.org/x/time/rate"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/failure"
	"sluice/consumer/internal/index"
	"sluice/consumer/internal/intent"
	"sluice/consumer/internal/store"
	"sluice/schemas/event"
	"sluice/schemas/topic"
)

// Config configures an owner.
type Config struct {
	Topic     string
	Partition int32
	Limits    batch.Limits
	// CloseAfter is how long after a batch its closing commit waits for the
	// next batch's intent to take its place.
	CloseAfter time.Duration
	// IntentFresh bounds the time from an intent's acknowledgement to its
	// INSERT; past it the intent is committed again first.
	IntentFresh time.Duration
	// Partitions tells the topic's partition count as it was last heard of; 0
	// while it is unknown. It may be nil.
	Partitions func() int32
	// Budget is shared by all owners of a process: a batch that is not full
	// waits for its turn, and grows meanwhile. It may be nil.
	Budget *rate.Limiter
	// Turns are shared by all owners of a process, which take the steps of
	// re-reads in turn. It may be nil: they take none.
	Turns *Turns
	// Before is asked before each recovery; its error stands in the way of it.
	// It may be nil.
	Before func(ctx context.Context) error
	// Paused tells why an operator wants the partition not to move; "" when it
	// may. changed is closed when that may have changed. It may be nil.
	Paused func() (reason string, changed <-chan struct{})
	// SkippedTo is the end (exclusive) of the range, from an offset of a log on,
	// whose records an operator wants passed over, and why; 0 when that is none.
	// It may be nil.
	SkippedTo func(logID uuid.UUID, offset int64) (to int64, reason string)
	// Happened is told what operators want to know of. It may be nil, and must
	// return at once.
	Happened func(Event)
	// At is called at each point of the protocol, for tests. It may be nil.
	At func(Point) error
	// Gone is what was taken on purpose and must not return, as it is known now; its
	// error keeps the batch from being decided. It may be nil.
	Gone func(ctx context.Context) (Gone, error)
	// Index is the memory for known keys, shared by all owners of a process.
	Index *index.Budget
	// IndexLive is how far back keys are loaded first.
	IndexLive time.Duration
}

// Gone is what was taken on purpose. Two that are equal say the same.
type Gone interface {
	// Fate tells of an event that was taken, and by what.
	Fate(e *event.Event) (fate dedup.Fate, taken bool)
}

// Owner owns one partition for one incarnation. All is decided and written in the
// goroutine of Run; another reads and decodes ahead of it.
type Owner struct {
	cfg     Config
	log     Log
	store   Store
	logger  *slog.Logger
	observe Observer
	rereads chan Reread
	asked   chan struct{} // a re-read was put into rereads

	topicID    uuid.UUID
	self       topic.Origin // the log's id and partition
	segments   []segment    // the log ids of the partition; the last is self's
	partitions int32
	grown      bool // the topic has more, and an intent of when it had so few is open
	decoder    *batch.Decoder
	index      *index.Index
	ahead      *ahead
	replay     *replaying       // a re-read that was asked for; it outlives a run
	replayed   *replaying       // the one before, which is done
	stepBatch  *batch.Batch     // a re-read's, whose memory is used again
	lastLive   time.Time        // when a live batch was last begun
	unreadable bool             // the last run ended since the log can't be read where it was
	batch      *batch.Batch     // the one at hand; its memory is used again
	decisions  []dedup.Decision // of the batch at hand; their memory is used again
	repeats    dedup.Repeats    // of a live batch
	pending    []batch.Record
	start      int64         // the log's first offset when the run began
	next       int64         // the journal's end
	read       int64         // the first offset that the reader has not passed
	compareTo  int64         // up to here something may be decided already
	islands    []store.Range // journaled ranges beyond next, past a gap
	bound      store.Range   // an intent's range that no one has journaled
	counted    int           // records that retention counted and no range has; -1: not asked yet
	torn       bool          // the journal has lost ranges, or may have
	epoch      int32         // of the last record journaled; -1: unknown
	upTo       int64         // the end of what epoch speaks for
	begun      intent.Intent // the intent that bound is of
	open       bool          // an intent is acknowledged and not closed
	sent       *sentIntent   // the last intent sent
	answered   time.Time     // when the commit that was answered was sent; zero: none was
}

// sentIntent is an intent with the offset it is committed at. While its answer
// has not been seen it may stand in the group or arrive there yet, so no other
// may follow it.
type sentIntent struct {
	first int64
	in    intent.Intent
}

// within tells that next lies in an intent's range: the next batch is that.
func (o *Owner) within() bool { return o.next >= o.bound.First && o.next < o.bound.End }

// New returns an owner; nothing happens until Run.
func New(cfg Config, log Log, st Store, observe Observer, logger *slog.Logger) *Owner {
	return &Owner{
		cfg: cfg, log: log, store: st, observe: observe,
		logger:  logger.With("partition", cfg.Partition),
		rereads: make(chan Reread, 16),
		asked:   make(chan struct{}, 1),
		batch:   batch.New(0),
	}
}

// Run owns the partition until ctx ends (the incarnation is over: nothing more
// is written) or stop is closed (finish the batch at hand, close, give up).
// An error of Kafka or ClickHouse is answered by recovering anew: comparison is
// the retry, so nothing is repeated that was done.
func (o *Owner) Run(ctx context.Context, stop <-chan struct{}) {
	const least, most = 100 * time.Millisecond, 5 * time.Second
	wait := least
	defer o.dropReplay()
	for {
		began := time.Now()
		err := o.run(ctx, stop)
		o.closeAll()
		if err == nil || ctx.Err() != nil {
			return
		}
		if errors.Is(err, errAnew) {
			o.logger.Info("recovering anew", "reason", err)
			continue
		}
		class := failure.Of(err)
		switch {
		case class == failure.Over:
			return
		case class == failure.Halt:
			wait = most
		case time.Since(began) > most:
			wait = least
		}
		o.observe.Halted(o.cfg.Partition, err)
		o.logger.Warn("the partition halts and recovers", "class", class, "error", err, "again_in", wait)
		select {
		case <-ctx.Done():
			return
		case <-stop:
			return
		case <-time.After(wait):
		}
		wait = min(2*wait, most)
	}
}

func (o *Owner) run(ctx context.Context, stop <-chan struct{}) error {
	if over, err := o.hold(ctx, stop); over || err != nil {
		return err
	}
	if err := o.recover(ctx); err != nil {
		return fmt.Errorf("recovering: %w", err)
	}
	o.observe.Halted(o.cfg.Partition, nil)
	if err := o.at(PointRecovered); err != nil {
		return err
	}
	for {
		if over, err := o.hold(ctx, stop); over || err != nil {
			return err
		}
		if o.more() {
			return fmt.Errorf("%w: partitions were added", errAnew)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-stop:
			if o.within() {
				return nil // another's open intent is not ours to close
			}
			return o.close(ctx)
		case r := <-o.requested():
			o.beginReplay(r)
		default:
			o.letGo()
		}
		if err := o.index.Take(ctx); err != nil {
			o.logger.Warn("keys are asked of ClickHouse until they are loaded", "error", err)
		}
		if err := o.pass(ctx); err != nil {
			return err
		}
		if o.turn() {
			if err := o.step(ctx); err != nil {
				return err
			}
			continue
		}
		b, err := o.form(ctx, stop)
		if err != nil {
			return err
		}
		if len(b.Records) == 0 {
			if o.due() {
				continue
			}
			if o.within() || o.bridge() {
				continue // the intent's range is not whole, or something else comes next
			}
			if err := o.rest(ctx); err != nil {
				return err
			}
			continue
		}
		if err := o.live(ctx, b); err != nil {
			return err
		}
	}
}

// rest is what is done when nothing comes: the last intent is closed, and markers
// that have been read past, which no batch will begin before, are journaled, so
// that the journal tells that the partition is caught up.
func (o *Owner) rest(ctx context.Context) error {
	if err := o.close(ctx); err != nil {
		return err
	}
	if o.read <= o.next || len(o.pending) > 0 || o.edge() >= 0 {
		return nil
	}
	// Only the owner may say so: who lost the partition is refused here.
	o.open = true
	if err := o.close(ctx); err != nil {
		return err
	}
	if err := o.empty(ctx, o.read); err != nil {
		return err
	}
	o.open = true // so that the next commit shows the offset
	return nil
}

// close commits that nothing is being written, unless the group knows.
func (o *Owner) close(ctx context.Context) error {
	if !o.open {
		return nil
	}
	if err := o.at(PointClose); err != nil {
		return err
	}
	err := o.log.Commit(ctx, o.next, o.horizon(intent.ClosedAt(o.next, o.self.TopicID, o.partitions)).Metadata())
	if err != nil {
		return fmt.Errorf("closing at offset %d: %w", o.next, err)
	}
	o.open = false
	return o.at(PointClosed)
}

// more tells that the topic has more partitions than is decided by, and nothing is
// left to be finished by the fewer.
func (o *Owner) more() bool {
	if o.within() || o.bound.First > o.next {
		return false
	}
	return o.grown || o.cfg.Partitions != nil && o.cfg.Partitions() > o.partitions
}

// requested are the re-reads that wait, one at a time. While the range of an open
// intent is to be written there are none: the intent of a re-read would take its
// place.
func (o *Owner) requested() <-chan Reread {
	if o.replay != nil || o.mayNotReplay() {
		return nil
	}
	return o.rereads
}

func (o *Owner) mayNotReplay() bool { return o.within() || o.bound.First > o.next }

// errAnew ends a run that recovers at once: nothing is wrong.
var errAnew = errors.New("what was known has changed")

// closeAll lets go of what a run had: what it knew may be out of date.
func (o *Owner) closeAll() {
	if o.ahead != nil {
		o.ahead.close()
		o.ahead = nil
	}
	o.pending = nil
	o.replay.rest()
	o.replayed.rest()
	if o.index != nil {
		o.index.Close()
		o.index = nil
	}
}
