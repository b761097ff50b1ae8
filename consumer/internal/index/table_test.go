package index_test

import (
	"context"
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/index"
	"sluice/schemas/event"
	"sluice/schemas/topic"
)

func idOf(n uint64) (id uuid.UUID) {
	binary.BigEndian.PutUint64(id[:], n+1)
	id[15] = 1
	return id
}

func firstOf(n uint64) dedup.First {
	return dedup.First{Origin: topic.Origin{Offset: int64(n)}, Hash: event.Hash{byte(n), byte(n >> 8)}}
}

func minute(t time.Time) int32 {
	n := t.Unix() / 60
	if t.Unix()%60 < 0 {
		n--
	}
	return int32(n)
}

type key struct {
	at time.Time
	n  uint64
}

// table stands for ClickHouse: what is stored, and how a read of it goes.
type table struct {
	mu    sync.Mutex
	keys  map[key]bool
	reads [][2]time.Time
	// gate, if set, is received from in the middle of a read: after the rows
	// were seen, before they are handed over. fail is what it ends with then.
	gate chan struct{}
	fail error
}

func newTable() *table { return &table{keys: map[key]bool{}} }

func (s *table) store(k key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[k] = true
}

func (s *table) read(ctx context.Context, from, to time.Time, add func(int32, uuid.UUID)) error {
	s.mu.Lock()
	s.reads = append(s.reads, [2]time.Time{from, to})
	gate, fail := s.gate, s.fail
	var seen []key
	for k := range s.keys {
		if !k.at.Before(from) && k.at.Before(to) {
			seen = append(seen, k)
		}
	}
	s.mu.Unlock()
	for i, k := range seen {
		if fail != nil && i == len(seen)/2 {
			break
		}
		add(minute(k.at), idOf(k.n))
	}
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return fail
}

func open(t testing.TB, s *table, b *index.Budget) *index.Index {
	x := index.New(index.Config{Source: s.read, Budget: b, Now: noon})
	t.Cleanup(x.Close)
	return x
}

// loaded takes and waits until no more load is wanted.
func loaded(t testing.TB, x *index.Index) {
	for {
		require.NoError(t, x.Take(t.Context()))
		if !x.Stats().Loading {
			return
		}
		require.NoError(t, x.Wait(t.Context()))
	}
}

func record(at time.Time, n uint64) *batch.Record {
	return &batch.Record{Raw: batch.Raw{Offset: int64(n)}, ID: idOf(n), Hash: firstOf(n).Hash, Event: event.Event{OccurredAt: at}}
}

func look(x *index.Index, at time.Time, n uint64) (first dedup.First, answer index.Answer) {
	x.Look([]*batch.Record{record(at, n)}, func(_ *batch.Record, f dedup.First, a index.Answer) { first, answer = f, a })
	return first, answer
}

func add(x *index.Index, at time.Time, n uint64) {
	x.Add([]*batch.Record{record(at, n)}, topic.Origin{})
}

func answer(x *index.Index, at time.Time, n uint64) index.Answer {
	_, a := look(x, at, n)
	return a
}
