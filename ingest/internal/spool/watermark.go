package spool

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"

	"sluice/schemas/topic"
)

// LowWater is a moment such that every event accepted by this edge, now or later,
// and received before it, has been acknowledged by the log. It never falls.
func (s *Spool) LowWater() time.Time {
	// In this order: what leaves the flight for the store in between is seen
	// in one of them.
	low := s.water.low(time.Now())
	if oldest := s.store.oldest(); !oldest.IsZero() {
		if oldest = s.notBefore(oldest); oldest.Before(low) {
			low = oldest.Truncate(time.Millisecond)
		}
	}
	return low.UTC()
}

// watermarkEvery is how often an edge tells its low water.
const watermarkEvery = time.Second

// Herald tells an edge's low water to the control topic.
type Herald struct {
	spool *Spool
	tell  func(ctx context.Context, key, value []byte) error
	id    string
	log   *slog.Logger
}

// NewHerald returns one that writes its records by tell, which waits until the
// log has acknowledged.
func NewHerald(s *Spool, tell func(ctx context.Context, key, value []byte) error, log *slog.Logger) *Herald {
	return &Herald{spool: s, tell: tell, id: uuid.NewString(), log: log}
}

// announceEvery is how often an edge that is not announced tries that.
const announceEvery = 20 * time.Millisecond

// Run tells the low water, at once and then about every second, until ctx ends.
// While the log is away it tells nothing. The first one that the log acknowledges
// lets events go there; so does its refusal to take any, since what no one can
// tell must not hold the events up for good.
func (h *Herald) Run(ctx context.Context) {
	failed := ""
	for {
		if h.spool.log.Ready() == nil {
			err := h.say(ctx)
			var refused *kerr.Error
			switch {
			case ctx.Err() != nil:
				return
			case err == nil:
				failed = ""
			case err.Error() != failed: // once, not every second
				failed = err.Error()
				h.log.Error("the edge's low water could not be told: up to when the data is whole (complete_through) may leave this edge's events out", "error", err)
			}
			if errors.As(err, &refused) {
				h.spool.goUnannounced()
			}
		}
		again := watermarkEvery
		if !h.spool.Announced() && failed == "" {
			again = announceEvery
		}
		if !wait(ctx, again) {
			return
		}
	}
}

// Retire tells that this edge has stopped with nothing left on its disk, so that
// nobody waits for it. It takes two seconds at most, and fails at once while the
// log is away.
func (h *Herald) Retire(ctx context.Context) error {
	if err := h.spool.log.Ready(); err != nil {
		return err
	}
	// In this order: a crash in between leaves a watermark that stands and is
	// not known to, which costs the next start a moment and nobody an event.
	if err := h.spool.store.standing.set(func(is *standing) { is.stands = false }, true); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return h.tellNow(bounded, h.spool.LowWater(), true)
}

// say tells the low water of now, noting it first: a start after this one, with
// the clock set back, must not receive events before it.
func (h *Herald) say(ctx context.Context) error {
	low := h.spool.LowWater()
	if err := h.spool.store.standing.set(func(is *standing) { is.floor = max(is.floor, low.UnixNano()) }, false); err != nil {
		return err
	}
	if err := h.tellNow(ctx, low, false); err != nil {
		return err
	}
	return h.spool.announce(time.Now())
}

func (h *Herald) tellNow(ctx context.Context, low time.Time, retired bool) error {
	w := topic.Watermark{
		Edge: h.spool.store.Edge(), Instance: h.id,
		LowWater: low, At: time.Now().UTC(), Spooled: h.spool.store.Status().Records, Retired: retired,
	}
	key, value, err := w.Record()
	if err != nil {
		return err
	}
	return h.tell(ctx, key, value)
}
