package produce

import (
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

	one func(*kgo.Record, error) // the promise of record 0
}

// pending is the state of a record that is not settled.
var pending = delivery.ErrNoAck

func (p *Producer) flight(n int, bytes int64) *flight {
	f, ok := (*flight)(nil), false
	if n == 1 {
		f, ok = p.flights.Get().(*flight)
	}
	if !ok {
		f = &flight{producer: p, done: make(chan struct{}, 1), timer: time.NewTimer(time.Hour), state: make([]error, n)}
		f.one = func(_ *kgo.Record, err error) { f.settle(0, err) }
	}
	f.bytes, f.left = bytes, n
	for i := range f.state {
		f.state[i] = pending
	}
	return f
}

// recycle keeps a flight whose records are all settled, when it is for one.
func (p *Producer) recycle(f *flight) {
	if len(f.state) == 1 {
		p.flights.Put(f)
	}
}

func (f *flight) promise(i int) func(*kgo.Record, error) {
	if i == 0 {
		return f.one
	}
	return func(_ *kgo.Record, err error) { f.settle(i, err) }
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
