// Package known answers repeats that the edge knows of without writing them
// again. It remembers the keys that the log has lately acknowledged, within
// bounds of bytes and time, and lets only one of several posts of a key go to the
// log at a time.
//
// It saves work and decides nothing: what it has forgotten, or never saw because
// another edge took it, is written again and is a duplicate to the consumer.
package known

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"sluice/ingest/internal/delivery"
)

// Config bounds what is remembered.
type Config struct {
	// Bytes is the memory for acknowledged keys, taken at the start, beside what
	// gc.limit_bytes bounds; a key takes 51 bytes. Zero remembers nothing, and repeats
	// are written. Default 64 MiB: 1.3 million keys.
	Bytes int64
	// Age is how long a key is remembered at most, in whole seconds. It bounds
	// for how long a repeat is not written although the log has lost the record
	// that was acknowledged. Default 1h.
	Age time.Duration
}

// DefaultConfig is the memory an edge has unless it is told otherwise.
func DefaultConfig() Config { return Config{Bytes: 64 << 20, Age: time.Hour} }

// Validate tells what is wrong.
func (c Config) Validate() error {
	switch {
	case c.Bytes < 0:
		return errors.New("bytes must not be negative; 0 remembers nothing")
	case c.Bytes > 0 && c.Bytes < shards*rowBytes:
		return fmt.Errorf("bytes is %d, want 0 or at least %d", c.Bytes, shards*rowBytes)
	case c.Age < time.Second || c.Age > 365*24*time.Hour:
		return fmt.Errorf("age is %v, want 1s to a year", c.Age)
	}
	return nil
}

// Topic tells which topic the records go to: its id, which is another one when
// the topic was deleted and made again. The zero id: not known yet.
type Topic func() uuid.UUID

// Known is a [delivery.Log] in front of another.
type Known struct {
	next    delivery.Log
	memory  *memory
	topic   Topic
	repeats prometheus.Counter
	differ  prometheus.Counter

	mu   sync.Mutex
	last uuid.UUID // the topic that the memory is of
}

// New returns a Known before next. Whenever topic tells another id, everything
// is forgotten.
func New(cfg Config, next delivery.Log, topic Topic, reg *prometheus.Registry) (*Known, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("known: %w", err)
	}
	k := &Known{next: next, topic: topic, memory: newMemory(cfg.Bytes, cfg.Age)}
	seen := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sluice_ingest_known_total",
		Help: "Events whose key was known to be in the log: repeats, which were not written, and conflicts, which were.",
	}, []string{"kind"})
	k.repeats, k.differ = seen.WithLabelValues("repeat"), seen.WithLabelValues("conflict")
	reg.MustRegister(seen)
	return k, nil
}

// call is one Send of records whose keys nobody else had on the way.
type call struct {
	mu    sync.Mutex
	over  bool
	ended chan struct{} // made by the first who waits
}

// wait returns a channel that is closed when the call is over.
func (c *call) wait() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended == nil {
		c.ended = make(chan struct{})
		if c.over {
			close(c.ended)
		}
	}
	return c.ended
}

func (c *call) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	if c.ended != nil {
		close(c.ended)
	}
}

// waiting is a delivery whose key another has on its way to the log.
type waiting struct {
	d    *delivery.Delivery
	call *call
}

// Send is [delivery.Log]'s. Of a key that the log is known to hold, the same
// payload is a repeat and another payload a conflict. A key that is on its way
// already, in another Send or this one, is waited for: if the log acknowledges
// it, it is known; if not, this one goes to the log itself. So nobody's answer
// stands on a record that may not be there.
func (k *Known) Send(ctx context.Context, ds []*delivery.Delivery) (settled bool) {
	of := k.follow()
	mine := new(call)
	ours, others := k.sort(ds, mine)
	settled = k.lead(ctx, ours, mine, of)
	if others == nil {
		return settled
	}
	var again []*delivery.Delivery
	for _, w := range others {
		select {
		case <-w.call.wait():
			if k.settle(w.d) {
				continue
			}
			again = append(again, w.d)
		case <-ctx.Done():
			w.d.Err = delivery.ErrNoAck
		}
	}
	if again != nil {
		// Those whose leader failed all go at once: behind a log that is away
		// they would else wait for each other's failures.
		settled = k.pass(ctx, again) && settled
	}
	return settled
}

// sort settles the repeats among ds and takes apart those that are sent now,
// with their keys noted as on the way in call, and those that wait for another.
func (k *Known) sort(ds []*delivery.Delivery, mine *call) (ours []*delivery.Delivery, others []waiting) {
	if len(ds) > 1 {
		k.memory.warm(ds)
	}
	whole := true // ours is ds itself so far
	for i, d := range ds {
		send, other := k.first(d, mine)
		if send {
			if !whole {
				ours = append(ours, d)
			}
			continue
		}
		if whole {
			ours, whole = append(make([]*delivery.Delivery, 0, len(ds)-1), ds[:i]...), false
		}
		if other != nil {
			others = append(others, waiting{d, other})
		}
	}
	if whole {
		return ds, nil
	}
	return ours, others
}

// first tells whether d is to be sent now, or else which call it waits for; nil
// when it is a repeat.
func (k *Known) first(d *delivery.Delivery, mine *call) (send bool, other *call) {
	s := k.memory.shard(d.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p, ok := k.memory.find(s, d.ID); ok {
		return !k.compare(d, p), nil
	}
	if other := s.flying[d.ID]; other != nil {
		return false, other
	}
	s.flying[d.ID] = mine
	return true, nil
}

// settle tells whether d turned out to be a repeat.
func (k *Known) settle(d *delivery.Delivery) bool {
	s := k.memory.shard(d.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := k.memory.find(s, d.ID)
	return ok && k.compare(d, p)
}

// compare tells whether d is a repeat of what is known at p, and settles it;
// otherwise it notes the conflict.
func (k *Known) compare(d *delivery.Delivery, p place) bool {
	if d.Hash != p.hash {
		d.Conflict = true
		return false
	}
	d.Err, d.Status, d.Repeat = nil, delivery.Queued, true
	d.Record.Partition, d.Record.Offset = p.partition, p.offset
	k.repeats.Inc()
	return true
}

// lead sends ds, meant for the topic of, and ends the call, whatever happens, with
// what was acknowledged remembered.
func (k *Known) lead(ctx context.Context, ds []*delivery.Delivery, mine *call, of uuid.UUID) (settled bool) {
	done := false
	defer mine.end()
	defer func() { k.land(ds, mine, of, done) }() // after a panic, too
	settled = len(ds) == 0 || k.pass(ctx, ds)
	done = true
	return settled
}

// pass sends ds on.
func (k *Known) pass(ctx context.Context, ds []*delivery.Delivery) (settled bool) {
	settled = k.next.Send(ctx, ds)
	for _, d := range ds {
		if d.Err != nil {
			d.Conflict = false // it is not said of what was not accepted
		} else if d.Conflict {
			k.differ.Inc()
		}
	}
	return settled
}

// land remembers what the log acknowledged, and nothing else: neither what is on
// its way nor what is spooled is known to be in the log. In the same step the
// keys are no more on their way. sent is false when the deliveries say nothing.
//
// Nothing is remembered when the topic is no longer of, the one it was when they
// were sent: they may be in one that is gone. The shard's lock is held while that
// is asked, so that whoever forgets the old topic does so after this, or has made
// it known before.
func (k *Known) land(ds []*delivery.Delivery, mine *call, of uuid.UUID, sent bool) {
	now := k.memory.now()
	if len(ds) > 1 {
		k.memory.warm(ds) // others have been here since
	}
	for _, d := range ds {
		s := k.memory.shard(d.ID)
		s.mu.Lock()
		if s.flying[d.ID] == mine {
			delete(s.flying, d.ID)
			if sent && d.Err == nil && d.Status != delivery.Spooled && !d.Conflict && k.topic() == of {
				k.memory.remember(s, d.ID, place{hash: d.Hash, partition: d.Record.Partition, offset: d.Record.Offset}, now)
			}
		}
		s.mu.Unlock()
	}
}

// follow forgets everything when the topic is another, and returns which it is.
func (k *Known) follow() uuid.UUID {
	id := k.topic()
	k.mu.Lock()
	defer k.mu.Unlock()
	if id == k.last || id == (uuid.UUID{}) {
		return id
	}
	if k.last != (uuid.UUID{}) {
		k.memory.forget()
	}
	k.last = id
	return id
}
