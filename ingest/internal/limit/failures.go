package limit

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Failures counts what goes wrong for each address, to be answered less often:
// wrong keys, for one. Memory is bounded: at most a number of addresses is known,
// and when they are too many the longest unseen is forgotten. It is safe for
// concurrent use.
type Failures struct {
	perSecond rate.Limit
	burst     int
	most      int

	mu   sync.Mutex
	seen map[netip.Addr]*failing
	old  *failing // longest unseen; a ring
}

type failing struct {
	address    netip.Addr
	l          *rate.Limiter
	next, prev *failing
	told       time.Time
}

// NewFailures allows each address perSecond failures in the long run and burst at
// once, and knows most addresses at a time.
func NewFailures(perSecond float64, burst, most int) *Failures {
	return &Failures{perSecond: rate.Limit(perSecond), burst: burst, most: most, seen: map[netip.Addr]*failing{}}
}

// tellEvery is how often one address may be told of in the log.
const tellEvery = time.Minute

// Add counts a failure of address. allowed tells whether there were not too many;
// tell, whether this one is worth a line in a log: the first, and one a minute.
func (f *Failures) Add(now time.Time, address netip.Addr) (allowed, tell bool) {
	address = Network(address)
	f.mu.Lock()
	defer f.mu.Unlock()
	a, ok := f.seen[address]
	if ok {
		f.unlink(a)
	} else {
		if len(f.seen) >= f.most {
			delete(f.seen, f.old.address)
			f.unlink(f.old)
		}
		a = &failing{address: address, l: rate.NewLimiter(f.perSecond, f.burst)}
		f.seen[address] = a
	}
	f.link(a)
	if tell = a.told.IsZero() || now.Sub(a.told) >= tellEvery; tell {
		a.told = now
	}
	return a.l.AllowN(now, 1), tell
}

// link puts a at the ring's end.
func (f *Failures) link(a *failing) {
	if f.old == nil {
		a.next, a.prev = a, a
		f.old = a
		return
	}
	a.next, a.prev = f.old, f.old.prev
	a.prev.next, f.old.prev = a, a
}

func (f *Failures) unlink(a *failing) {
	if a.next == a {
		f.old = nil
		return
	}
	a.prev.next, a.next.prev = a.next, a.prev
	if f.old == a {
		f.old = a.next
	}
}

// Network is what counts as one address: an IPv4 address, or the /64 of an IPv6
// address, which one customer has whole.
func Network(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		return netip.PrefixFrom(a, 64).Masked().Addr()
	}
	return a
}
