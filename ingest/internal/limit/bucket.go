// Package limit bounds how much strangers and friends may ask of the edge: events
// a key, failures an address, connections an address.
package limit

import (
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Bucket holds the events that a key may send: it fills at a rate, up to a burst.
// It is safe for concurrent use.
//
// A request is let in whole or not at all. One that asks for more than is there
// is let in if there is anything, and the rest is owed: so a batch larger than
// the burst can be sent, and in the long run no key sends faster than its rate.
type Bucket struct {
	rate  float64
	burst int

	mu sync.Mutex
	l  *rate.Limiter
}

// NewBucket returns a full bucket. perSecond and burst must be more than 0.
func NewBucket(perSecond float64, burst int) *Bucket {
	return &Bucket{rate: perSecond, burst: burst, l: rate.NewLimiter(rate.Limit(perSecond), burst)}
}

// Is tells whether the bucket is one of this rate and burst.
func (b *Bucket) Is(perSecond float64, burst int) bool {
	return b.rate == perSecond && b.burst == burst
}

// Burst is what a full bucket holds.
func (b *Bucket) Burst() int { return b.burst }

// Window is how long an empty bucket takes to fill.
func (b *Bucket) Window() time.Duration {
	return time.Duration(float64(b.burst) / b.rate * float64(time.Second))
}

// Take takes n events, and tells whether they may be sent. If not, wait is when
// there will be something again. With n = 0 it only asks.
func (b *Bucket) Take(now time.Time, n int) (ok bool, wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if left := b.l.TokensAt(now); left < 1 {
		return false, time.Duration(math.Ceil((1 - left) / b.rate * float64(time.Second)))
	}
	for n > 0 {
		part := min(n, b.burst)
		b.l.ReserveN(now, part)
		n -= part
	}
	return true, 0
}

// Left is how many events there are, not negative, and when there will be one
// more; zero when the bucket is full.
func (b *Bucket) Left(now time.Time) (events int, more time.Duration) {
	b.mu.Lock()
	left := b.l.TokensAt(now)
	b.mu.Unlock()
	events = max(0, int(left))
	if events >= b.burst {
		return events, 0
	}
	return events, time.Duration((float64(events+1) - left) / b.rate * float64(time.Second))
}
