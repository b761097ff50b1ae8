package spool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/time/rate"

	"sluice/ingest/internal/delivery"
)

// Log is the way to the log itself; [produce.Producer] is one.
type Log interface {
	// SendWithin is [delivery.Log]'s Send, waiting at most so long and no
	// longer than until leave is closed.
	SendWithin(ctx context.Context, ds []*delivery.Delivery, wait time.Duration, leave <-chan struct{}) (settled bool)
	// Deliver sends records and waits until each is settled.
	Deliver(records []*kgo.Record) []error
	// Ready tells why nothing can be sent now, without asking anyone.
	Ready() error
}

// Spool is a [delivery.Log] that takes what the log does not acknowledge in time.
//
// An event goes to the log when that is well and nothing of its key waits in the
// spool, and then waits for at most Config.After. One wait that ends without an
// acknowledgement sends all who wait, and all who come, to the spool; the drain,
// which goes on trying, ends that once the log acknowledges as soon as that again.
//
// Nothing goes to the log before a watermark of this edge stands there (a
// [Herald] tells it, and must run too): until then all is spooled.
type Spool struct {
	cfg     Config
	store   *Store
	log     Log
	logger  *slog.Logger
	limit   *rate.Limiter
	metrics *metrics

	flow  flow
	water water
	speed speed
	begin sync.Once // closes announced
	// announced is closed when events may go to the log.
	announced chan struct{}
	finish    chan struct{} // closed when what is left may be drained without a bound
	trying    atomic.Bool   // one delivery tries the log while all others go to the spool
	begun     time.Time     // what lastAck counts from: the wall clock may jump
	lastAck   atomic.Int64  // of the drain, nanoseconds after begun

	complaint string // the drain's last; its own
}

// New puts store before log. [Spool.Run] must run beside it.
func New(cfg Config, store *Store, log Log, logger *slog.Logger, reg *prometheus.Registry) *Spool {
	s := &Spool{
		cfg: cfg.complete(), store: store, log: log, logger: logger,
		limit:  rate.NewLimiter(rate.Limit(cfg.DrainBytes), int(max(cfg.DrainBytes, chunkBytes))),
		finish: make(chan struct{}), announced: make(chan struct{}),
		begun: time.Now(),
	}
	s.flow.init()
	told := store.standing.get()
	s.water.floor = told.floor - told.floor%int64(time.Millisecond)
	s.metrics = newMetrics(reg, s)
	return s
}

// errBehind marks deliveries that go to the spool without having been sent.
var errBehind = fmt.Errorf("%w, and older events wait in the spool", delivery.ErrAway)

// errUnannounced marks deliveries of an edge that its readers do not know yet.
var errUnannounced = fmt.Errorf("%w: it holds no watermark of this edge yet", delivery.ErrAway)

// Send is [delivery.Log]'s. Besides what the log answers, a delivery may be
// Spooled: it is safe on this edge's disk. One that neither takes has the error
// [delivery.ErrSpoolFull] in a [delivery.LaterError], or the log's.
func (s *Spool) Send(ctx context.Context, ds []*delivery.Delivery) (settled bool) {
	// In this order: what may go to the log is not received before the watermark
	// that allowed it.
	announced := s.Announced()
	ticket := s.water.enter(ds)
	defer s.water.leave(ticket)
	var direct []*delivery.Delivery
	var leave <-chan struct{}
	trying := false
	if announced {
		direct, leave, trying = s.way(ds)
	} else {
		delivery.Fail(ds, errUnannounced)
	}
	settled = true
	if len(direct) > 0 {
		begin := time.Now()
		settled = s.log.SendWithin(ctx, direct, s.cfg.After, leave)
		s.learn(ctx, direct, time.Since(begin), trying)
	}
	var records []*kgo.Record
	for _, d := range ds {
		if d.Err != nil && spoolable(ctx, d.Err) {
			records = append(records, &d.Record)
		}
	}
	if len(records) == 0 {
		return settled
	}
	err := s.store.Append(ctx, records)
	if errors.Is(err, ErrFull) {
		err = &delivery.LaterError{Err: err, After: s.RetryAfter()}
	}
	for _, d := range ds {
		switch {
		case d.Err == nil || !spoolable(ctx, d.Err):
		case err == nil:
			d.Err, d.Status = nil, delivery.Spooled
		case errors.Is(err, ErrFull):
			d.Err = err
		default:
			d.Err = fmt.Errorf("%w; %w", d.Err, err)
		}
	}
	return settled
}

// way decides which deliveries are sent to the log; the others get errBehind.
// leave is closed when waiting for the log is of no use any more. trying means
// that these try the log while all others go to the spool.
func (s *Spool) way(ds []*delivery.Delivery) (direct []*delivery.Delivery, leave <-chan struct{}, trying bool) {
	leave, open := s.flow.state()
	if open {
		// The drain tries the log, unless it has nothing to try it with.
		if s.store.empty() && s.log.Ready() == nil && s.trying.CompareAndSwap(false, true) {
			return ds, nil, true
		}
		delivery.Fail(ds, errBehind)
		return nil, nil, false
	}
	behind := s.store.behind(ds)
	if behind == 0 {
		return ds, leave, false
	}
	direct = make([]*delivery.Delivery, 0, len(ds)-behind)
	for _, d := range ds {
		if d.Err == nil {
			direct = append(direct, d)
		}
	}
	return direct, leave, false
}

// learn sees from what became of deliveries how the log is.
func (s *Spool) learn(ctx context.Context, ds []*delivery.Delivery, took time.Duration, trying bool) {
	if trying {
		defer s.trying.Store(false)
	}
	late, acked := false, false
	for _, d := range ds {
		acked = acked || d.Err == nil
		late = late || errors.Is(d.Err, delivery.ErrNoAck)
	}
	if late && ctx.Err() == nil && s.flow.trip() {
		s.metrics.trips.Inc()
		s.logger.Warn("the log does not acknowledge in time: events go to the spool until it does", "after", s.cfg.After)
	}
	if trying && acked && !late && took <= s.cfg.After {
		s.mend()
	}
}

func (s *Spool) mend() {
	if s.flow.mend() {
		s.logger.Info("the log acknowledges in time again", "spooled", s.store.Status().Records)
	}
}

// spoolable tells whether a delivery that ended with err goes to the spool:
// whatever speaks of the log's state rather than of the record, unless its sender
// has left or the edge is stopping.
func spoolable(ctx context.Context, err error) bool {
	return ctx.Err() == nil && !refusal(err) && !errors.Is(err, delivery.ErrStopped) && !errors.Is(err, delivery.ErrSpoolFull)
}

// refusal tells whether err is what the log says of a record that breaks a rule
// of the topic. It may be meant for another record of the same batch, so only
// one that was sent alone is known to be refused; one that is too large is so
// for sure.
func refusal(err error) bool {
	return delivery.Permanent(err) ||
		errors.Is(err, kerr.InvalidRecord) ||
		errors.Is(err, kerr.InvalidTimestamp) ||
		errors.Is(err, kerr.PolicyViolation)
}

// sinceAck is how long ago the drain last brought something to the log, or began.
func (s *Spool) sinceAck() time.Duration {
	return time.Since(s.begun) - time.Duration(s.lastAck.Load())
}

// RetryAfter is when there will be room in the spool, by the rate at which it
// drains: one second to five minutes. While nothing drains no one knows; then it
// is as long again as nothing has drained.
func (s *Spool) RetryAfter() time.Duration {
	const least, most = time.Second, 5 * time.Minute
	now := time.Now()
	wait := s.sinceAck()
	if perSecond := s.speed.at(now); perSecond >= 1 {
		wait = time.Duration(float64(s.store.untilRoom()) / perSecond * float64(time.Second))
	}
	return min(max(wait, least), most)
}

// Ready tells why the spool can take nothing now; nil when it can.
func (s *Spool) Ready() error { return s.store.Ready() }
