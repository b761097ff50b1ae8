// Package index holds recent keys of one partition in memory, so that live
// traffic costs no query. ClickHouse is the truth of which keys exist; the
// index only knows a part of it for certain.
package index

import (
	"time"

	"github.com/google/uuid"

	"sluice/consumer/internal/dedup"
)

const bucketWidth = time.Hour

// Index knows every key whose occurred_at is at or after its floor, because it
// was loaded with all that ClickHouse had from there on and has been told of
// every row since. A key's occurred_at is part of it, so a key can only ever be
// in one bucket. It is not for concurrent use.
type Index struct {
	floor   int64 // bucket number; all from here on are complete
	buckets map[int64]map[uuid.UUID]dedup.First
	keys    int
	most    int
}

// New returns an index that is complete from floor on and holds at most this
// many keys; an entry takes about 100 bytes. The caller adds what ClickHouse
// has from [Index.Floor] on before it asks.
func New(floor time.Time, most int) *Index {
	return &Index{floor: bucket(floor), buckets: map[int64]map[uuid.UUID]dedup.First{}, most: most}
}

func bucket(t time.Time) int64 {
	s, w := t.Unix(), int64(bucketWidth/time.Second)
	if s < 0 {
		s -= w - 1
	}
	return s / w
}

// Floor is the instant from which on the index is complete.
func (x *Index) Floor() time.Time { return time.Unix(x.floor*int64(bucketWidth/time.Second), 0).UTC() }

// Knows tells whether the index can answer for keys of occurredAt.
func (x *Index) Knows(occurredAt time.Time) bool { return bucket(occurredAt) >= x.floor }

// Find returns the row of a key that the index knows.
func (x *Index) Find(occurredAt time.Time, id uuid.UUID) (dedup.First, bool) {
	f, ok := x.buckets[bucket(occurredAt)][id]
	return f, ok
}

// Add remembers a row that is stored. Called before it is, a crash of the
// INSERT would make the next attempt a duplicate of nothing.
func (x *Index) Add(occurredAt time.Time, id uuid.UUID, first dedup.First) {
	n := bucket(occurredAt)
	if n < x.floor {
		return
	}
	b := x.buckets[n]
	if b == nil {
		b = map[uuid.UUID]dedup.First{}
		x.buckets[n] = b
	}
	if _, ok := b[id]; !ok {
		x.keys++
	}
	b[id] = first
	if x.keys > x.most {
		x.evict()
	}
}

// evict drops the oldest buckets until a fifth of the room is free, and with
// them the claim to know them.
func (x *Index) evict() {
	for x.keys > x.most*4/5 && len(x.buckets) > 0 {
		oldest := int64(1<<63 - 1)
		for n := range x.buckets {
			oldest = min(oldest, n)
		}
		x.keys -= len(x.buckets[oldest])
		delete(x.buckets, oldest)
		x.floor = oldest + 1
	}
}

// Keys is how many keys are held.
func (x *Index) Keys() int { return x.keys }
