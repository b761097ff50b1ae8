package spool

import (
	"context"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"sluice/schemas/topic"
)

// LowWater is a moment such that every event accepted by this edge, now or later,
// and received before it, has been acknowledged by the log. It never falls.
func (s *Spool) LowWater() time.Time {
	// In this order: what leaves the flight for the store in between is seen
	// in one of them.
	low := s.water.low(time.Now())
	if oldest := s.store.oldest(); !oldest.IsZero() && oldest.Before(low) {
		low = oldest.Truncate(time.Millisecond)
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

// Run tells the low water about every second until ctx ends. While the log is
// away it tells nothing.
func (h *Herald) Run(ctx context.Context) {
	tick := time.NewTicker(watermarkEvery)
	defer tick.Stop()
	failed := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if h.spool.log.Ready() != nil {
			continue
		}
		err := h.say(ctx, false)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			failed = ""
		case err.Error() != failed: // once, not every second
			failed = err.Error()
			h.log.Warn("the edge's low water could not be told", "error", err)
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
	bounded, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return h.say(bounded, true)
}

func (h *Herald) say(ctx context.Context, retired bool) error {
	now := time.Now().UTC()
	w := topic.Watermark{
		Edge: h.spool.store.Edge(), Instance: h.id,
		LowWater: h.spool.LowWater(), At: now, Spooled: h.spool.store.Status().Records, Retired: retired,
	}
	key, value, err := w.Record()
	if err != nil {
		return err
	}
	return h.tell(ctx, key, value)
}
