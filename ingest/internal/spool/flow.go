package spool

import (
	"math"
	"sync"
	"time"

	"sluice/ingest/internal/delivery"
)

// flow says whether deliveries go to the log (closed) or to the spool (open, as
// a circuit is).
type flow struct {
	mu     sync.Mutex
	open   bool
	opened chan struct{} // closed while open
}

func (f *flow) init() { f.opened = make(chan struct{}) }

func (f *flow) state() (opened <-chan struct{}, open bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.opened, f.open
}

// trip opens; it tells whether it was closed before.
func (f *flow) trip() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open {
		return false
	}
	f.open = true
	close(f.opened)
	return true
}

// mend closes; it tells whether it was open before.
func (f *flow) mend() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.open {
		return false
	}
	f.open, f.opened = false, make(chan struct{})
	return true
}

// speed is a rate that forgets: what was measured counts for less the longer ago
// it was.
type speed struct {
	mu   sync.Mutex
	rate float64 // a second
	last time.Time
}

const speedMemory = 10 * time.Second

func (s *speed) fade(now time.Time) {
	if !s.last.IsZero() && now.After(s.last) {
		s.rate *= math.Exp(-now.Sub(s.last).Seconds() / speedMemory.Seconds())
	}
	s.last = now
}

func (s *speed) add(now time.Time, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fade(now)
	s.rate += float64(n) / speedMemory.Seconds()
}

func (s *speed) at(now time.Time) float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fade(now)
	return s.rate
}

// water knows the oldest delivery on its way, and keeps the promise of a low
// water: what comes later is received later.
type water struct {
	mu    sync.Mutex
	slots []int64 // the oldest of each Send under way, Unix nanoseconds; 0 is free
	free  []int
	floor int64 // whole milliseconds
}

// enter notes deliveries on their way. One that was received before what has
// been promised counts as received then.
func (w *water) enter(ds []*delivery.Delivery) (ticket int) {
	oldest := int64(math.MaxInt64)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range ds {
		at := d.Record.Timestamp.UnixNano()
		if at < w.floor {
			at = w.floor
			d.Record.Timestamp = time.Unix(0, at)
		}
		oldest = min(oldest, at)
	}
	if n := len(w.free); n > 0 {
		ticket, w.free = w.free[n-1], w.free[:n-1]
	} else {
		ticket, w.slots = len(w.slots), append(w.slots, 0)
	}
	w.slots[ticket] = oldest
	return ticket
}

func (w *water) leave(ticket int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.slots[ticket] = 0
	w.free = append(w.free, ticket)
}

// raise makes now a moment before which nothing is received any more.
func (w *water) raise(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := now.UnixNano() + int64(time.Millisecond) - 1
	w.floor = max(w.floor, at-at%int64(time.Millisecond))
}

// low promises now, or the oldest on its way when that is before, in whole
// milliseconds; it never falls.
func (w *water) low(now time.Time) time.Time {
	at := now.UnixNano()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.slots {
		if t != 0 {
			at = min(at, t)
		}
	}
	at -= at % int64(time.Millisecond)
	w.floor = max(w.floor, at)
	return time.Unix(0, w.floor)
}
