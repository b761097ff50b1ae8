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

// Control is the control topic, as a [Herald] needs it.
type Control interface {
	// Tell writes a record and returns its offset once the log has acknowledged it.
	Tell(ctx context.Context, key, value []byte) (offset int64, err error)
	// History calls each for the values under key before the offset end, oldest
	// first; nil where the record is a tombstone.
	History(ctx context.Context, key []byte, end int64, each func(value []byte)) error
}

// Herald tells an edge's low water to the control topic.
type Herald struct {
	spool   *Spool
	control Control
	id      string
	log     *slog.Logger

	// stood: a watermark of this edge stood there when it last ran, and whether
	// it still does is not known yet. Run's own.
	stood    bool
	failures int // to find that out
}

// NewHerald returns one that writes its records to control.
func NewHerald(s *Spool, control Control, log *slog.Logger) *Herald {
	return &Herald{spool: s, control: control, id: uuid.NewString(), log: log, stood: s.store.standing.get().stands}
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
	_, err := h.tellNow(bounded, h.spool.LowWater(), true)
	return err
}

// say tells the low water of now, noting it first: a start after this one, with
// the clock set back, must not receive events before it.
func (h *Herald) say(ctx context.Context) error {
	low := h.spool.LowWater()
	// Until it is known that readers have been waiting for this edge all the time,
	// the note says that they have not: the watermark told now hides from the next
	// start what stood before it.
	err := h.spool.store.standing.set(func(is *standing) {
		is.floor = max(is.floor, low.UnixNano())
		is.stands = is.stands && !h.stood
	}, h.stood)
	if err != nil {
		return err
	}
	offset, err := h.tellNow(ctx, low, false)
	if err != nil {
		return err
	}
	now := time.Now()
	if h.stood {
		stands, err := h.waited(ctx, offset)
		if err != nil {
			return err
		}
		h.stood = false
		if stands {
			return h.spool.resume()
		}
	}
	return h.spool.announce(now)
}

// A Herald that cannot read what stands in the control topic tries so often, for so
// long each time.
const (
	historyTries = 5
	historyBound = 2 * time.Second
)

// waited tells whether the readers of watermarks have been waiting for this edge
// since it last ran, up to its own watermark at offset. They have not if it was
// retired in its absence, or if nothing of it is left there; what can't be found out
// counts as that: then times change that need not have, and nobody is misled.
func (h *Herald) waited(ctx context.Context, offset int64) (bool, error) {
	stands := false
	bounded, cancel := context.WithTimeout(ctx, historyBound)
	defer cancel()
	key := []byte(topic.WatermarkKey(h.spool.store.Edge()))
	err := h.control.History(bounded, key, offset, func(value []byte) {
		w, ok, err := topic.ParseWatermark(key, value)
		switch {
		case err != nil: // readers pass it over, too
		case !ok:
			stands = false
		case w.Instance != h.id: // an earlier try of ours hides nothing
			stands = !w.Retired
		}
	})
	if err == nil {
		if !stands {
			h.log.Warn("this edge was retired while it was away, or the control topic has lost its watermark: what is in its spool counts as received now",
				"edge", h.spool.store.Edge(), "records", h.spool.store.Status().Records)
		}
		return stands, nil
	}
	if ctx.Err() != nil {
		return false, err
	}
	var refused *kerr.Error // as it will be the next time
	if h.failures++; h.failures < historyTries && !errors.As(err, &refused) {
		return false, err
	}
	h.log.Error("what the control topic says of this edge can't be read: what is in its spool counts as received now", "error", err)
	return false, nil
}

func (h *Herald) tellNow(ctx context.Context, low time.Time, retired bool) (offset int64, err error) {
	w := topic.Watermark{
		Edge: h.spool.store.Edge(), Instance: h.id,
		LowWater: low, At: time.Now().UTC(), Spooled: h.spool.store.Status().Records, Retired: retired,
	}
	key, value, err := w.Record()
	if err != nil {
		return 0, err
	}
	return h.control.Tell(ctx, key, value)
}
