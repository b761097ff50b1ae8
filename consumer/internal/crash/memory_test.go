package crash

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/google/uuid"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/partition"
	"sluice/consumer/internal/store"
	"sluice/schemas/event"
	"sluice/schemas/topic"
)

// tables is a ClickHouse: the engine's, or a model of it that answers in
// microseconds, so that every pair of failures can be tried every time. The same
// cases run on both.
type tables interface {
	partition.Store
	read(ctx context.Context) (map[uuid.UUID]*stands, error)
	empty(ctx context.Context) error
}

// memory is what protocol.md assumes of ClickHouse: an INSERT under a token that
// was used is dropped and reported as written; one that holds a refused row is
// refused whole; of journal entries of one place the first written stands.
type memory struct {
	mu      sync.Mutex
	tokens  map[string]bool
	rows    []kept
	journal []noted
}

type kept struct {
	self topic.Origin // with the offset
	r    batch.Record
}

type noted struct {
	self topic.Origin
	store.Entry
}

func newMemory() *memory { return &memory{tokens: map[string]bool{}} }

func (m *memory) empty(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tokens, m.rows, m.journal = map[string]bool{}, nil, nil
	return nil
}

// deleteAll is DELETE: the tokens of what it takes stay.
func (m *memory) deleteAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rows, m.journal = nil, nil
}

func (m *memory) Rows(_ context.Context, token string, self topic.Origin, rows []*batch.Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range rows { // values are looked at before tokens
		if strings.Contains(string(r.Event.Payload), refusedWord) {
			return &clickhouse.Exception{Code: 469, Name: "VIOLATED_CONSTRAINT", Message: "refused"}
		}
	}
	if m.tokens[token] {
		return nil
	}
	m.tokens[token] = true
	for _, r := range rows {
		m.rows = append(m.rows, kept{topic.Origin{TopicID: self.TopicID, Partition: self.Partition, Offset: r.Offset}, *r})
	}
	return nil
}

func (m *memory) Journal(_ context.Context, _, _ string, self topic.Origin, entries []store.Entry) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range entries {
		if !slices.ContainsFunc(m.of(self, e.Kind), func(o store.Entry) bool { return o.Offset == e.Offset }) {
			m.journal = append(m.journal, noted{self, e})
		}
	}
	return nil
}

// of are the entries of a log of one kind.
func (m *memory) of(self topic.Origin, kind store.Kind) []store.Entry {
	var out []store.Entry
	for _, n := range m.journal {
		if n.self.TopicID == self.TopicID && n.self.Partition == self.Partition && n.Kind == kind {
			out = append(out, n.Entry)
		}
	}
	return out
}

func (m *memory) Seen(_ context.Context, self topic.Origin) (store.Seen, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	seen := store.Seen{End: -1, Beyond: -1}
	batches := m.of(self, store.Batch)
	slices.SortFunc(batches, func(a, b store.Entry) int { return int(a.Offset - b.Offset) })
	for _, b := range batches {
		switch last := len(seen.Islands) - 1; {
		case seen.End < 0 || last < 0 && b.Offset <= seen.End:
			seen.End = max(seen.End, b.Last+1)
		case last >= 0 && b.Offset <= seen.Islands[last].End:
			seen.Islands[last].End = max(seen.Islands[last].End, b.Last+1)
		default:
			seen.Islands = append(seen.Islands, store.Range{First: b.Offset, End: b.Last + 1})
		}
	}
	for _, k := range m.rows {
		if k.self.TopicID == self.TopicID && k.self.Partition == self.Partition && k.self.Offset >= max(seen.End, 0) {
			seen.Beyond = max(seen.Beyond, k.self.Offset)
		}
	}
	for _, e := range m.of(self, store.Fated) {
		if e.Last >= max(seen.End, 0) {
			seen.Beyond = max(seen.Beyond, e.Last)
		}
	}
	return seen, nil
}

// Counted is none: nothing expires here.
func (m *memory) Counted(context.Context, topic.Origin) (int, bool, error) {
	return 0, false, nil
}

func (m *memory) Keys(_ context.Context, from, to time.Time, p, count int32, add func(int32, uuid.UUID)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range m.rows {
		at := k.r.Event.OccurredAt
		if !at.Before(from) && at.Before(to) && event.Partition(k.r.Event.AppendKey(nil), count) == p {
			add(int32(at.Unix()/60), k.r.ID)
		}
	}
	return nil
}

func (m *memory) FirstOf(_ context.Context, records []*batch.Record) (map[uuid.UUID]dedup.First, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[uuid.UUID]dedup.First{}
	for _, r := range records {
		for _, k := range m.rows {
			if first, ok := out[r.ID]; k.r.ID == r.ID && (!ok || k.self.Offset < first.Origin.Offset) {
				out[r.ID] = dedup.First{Origin: k.self, Hash: k.r.Hash}
			}
		}
	}
	return out, nil
}

func (m *memory) RowsIn(_ context.Context, self topic.Origin, first, last int64) (map[int64]uuid.UUID, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[int64]uuid.UUID{}
	for _, k := range m.rows {
		if k.self.TopicID == self.TopicID && k.self.Partition == self.Partition && k.self.Offset >= first && k.self.Offset <= last {
			out[k.self.Offset] = k.r.ID
		}
	}
	return out, nil
}

func (m *memory) FatesIn(_ context.Context, self topic.Origin, first, last int64) (map[int64]dedup.Fate, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[int64]dedup.Fate{}
	for _, e := range m.of(self, store.Fated) {
		for o := max(e.Offset, first); o <= min(e.Last, last); o++ {
			out[o] = e.Fate
		}
	}
	return out, nil
}

func (m *memory) Stop(context.Context, topic.Origin) error { return nil }

func (m *memory) Barriers(_ context.Context, id uuid.UUID) (map[int32]int32, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[int32]int32{}
	for _, n := range m.journal {
		if n.self.TopicID == id && n.Kind == store.Barrier {
			out[n.self.Partition] = max(out[n.self.Partition], int32(n.Offset))
		}
	}
	return out, nil
}

func (m *memory) Cuts(_ context.Context, self topic.Origin) ([]store.Cut, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []store.Cut
	for {
		cuts := m.of(self, store.CutAt)
		if len(cuts) == 0 {
			return out, nil
		}
		out = append(out, store.Cut{At: cuts[0].Offset, Next: cuts[0].First.TopicID})
		self.TopicID = cuts[0].First.TopicID
	}
}

func (m *memory) LastBatch(_ context.Context, self topic.Origin) (last store.LastBatch, ok bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range m.of(self, store.Batch) {
		if b.Hash != (event.Hash{}) && b.Last+1 > last.End {
			last, ok = store.LastBatch{End: b.Last + 1, Epoch: b.Epoch}, true
		}
	}
	return last, ok, nil
}

func (m *memory) read(context.Context) (map[uuid.UUID]*stands, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[uuid.UUID]*stands{}
	of := func(id uuid.UUID) *stands {
		if out[id] == nil {
			// The sheet is the engine's own query: nothing stands for it here.
			out[id] = &stands{rows: map[int64][]stored{}, fates: map[int64][]fate{}, balance: sound}
		}
		return out[id]
	}
	for _, k := range m.rows {
		s := of(k.self.TopicID)
		s.rows[k.self.Offset] = append(s.rows[k.self.Offset], stored{k.r.ID, string(k.r.Hash[:])})
	}
	for _, n := range m.journal {
		s := of(n.self.TopicID)
		switch n.Kind {
		case store.Batch:
			s.batches = append(s.batches, store.Range{First: n.Offset, End: n.Last + 1})
		case store.Fated:
			for o := n.Offset; o <= n.Last; o++ {
				s.fates[o] = append(s.fates[o], fate{n.Fate, n.First.Offset})
			}
		case store.Barrier, store.CutAt:
		}
	}
	return out, nil
}
