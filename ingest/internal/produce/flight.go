package produce

import (
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/ingest/internal/delivery"
)

// flight follows the records of one Send until each is settled: one waiter,
// however many records.
type flight struct {
	producer *Producer
	bytes    int64
	done     chan struct{} // one value, when the last record is settled
	timer    *time.Timer

	mu    sync.Mutex
	left  int
	state []error // of each record: pending, nil when acknowledged, or why not

	promises []func(*kgo.Record, error) // of each record, and of more in earlier flights
}

// pending is the state of a record that is not settled.
var pending = delivery.ErrNoAck

// mostKept is how many records a flight may have had to be kept for others.
const mostKept = 4096

func (p *Producer) flight(n int, bytes int64) *flight {
	kept := &p.flights
	if n == 1 {
		kept = &p.singles
	}
	f, ok := kept.Get().(*flight)
	if !ok {
		f = &flight{producer: p, done: make(chan struct{}, 1), timer: time.NewTimer(time.Hour)}
	}
	f.bytes, f.left = bytes, n
	f.state = slices.Grow(f.state[:0], n)[:n]
	for i := range f.state {
		f.state[i] = pending
	}
	for i := len(f.promises); i < n; i++ {
		f.promises = append(f.promises, func(_ *kgo.Record, err error) { f.settle(i, err) })
	}
	return f
}

// recycle keeps a flight whose records are all settled.
func (p *Producer) recycle(f *flight) {
	switch n := len(f.state); {
	case n == 1:
		p.singles.Put(f)
	case n <= mostKept:
		p.flights.Put(f)
	}
}

// settle is called by the client once for each record, one call at a time, and
// must not block it.
func (f *flight) settle(i int, err error) {
	p := f.producer
	f.mu.Lock()
	f.state[i] = err
	f.left--
	last := f.left == 0
	f.mu.Unlock()
	if last {
		if err == nil {
			p.lastAck.Store(int64(time.Since(p.begun)))
		}
		p.held.Add(-f.bytes)
		f.done <- struct{}{} // never blocks: it has room for the only value
	}
}

// tell says in ds what became of each record until now, and returns whether all
// are settled.
func (f *flight) tell(ds []*delivery.Delivery) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, d := range ds {
		d.Err, d.Status = f.state[i], delivery.Queued
	}
	return f.left == 0
}
