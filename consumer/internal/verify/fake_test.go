package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/google/uuid"
	"go.uber.org/goleak"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/partition"
	"sluice/schemas/event"
	"sluice/schemas/topic"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	topicA = uuid.MustParse("aaaaaaaa-0000-8000-8000-000000000000")
	topicB = uuid.MustParse("bbbbbbbb-0000-8000-8000-000000000000")
)

func origin(offset int64) topic.Origin { return topic.Origin{TopicID: topicA, Offset: offset} }

// eventOf is the n-th event with a payload.
func eventOf(n int, payload string) event.Event {
	return event.Event{Source: "s", EventType: "t", ActorID: fmt.Sprint("a", n), OccurredAt: time.Unix(1_767_225_600, int64(n)).UTC(), Payload: []byte(payload)}
}

func raw(offset int64, n int, payload string) batch.Raw {
	e := eventOf(n, payload)
	return batch.Raw{Offset: offset, Value: e.AppendJSON(nil)}
}

func garbage(offset int64) batch.Raw { return batch.Raw{Offset: offset, Value: []byte("garbage")} }

// memoryLog is a partition that gives a few records at a time.
type memoryLog struct {
	raws    []batch.Raw
	end     int64
	atATime int
}

func (l memoryLog) Open(_ int32, from int64) (partition.Reader, error) {
	i, _ := slices.BinarySearchFunc(l.raws, from, func(r batch.Raw, o int64) int { return cmp.Compare(r.Offset, o) })
	return &memoryReader{l, i, from}, nil
}

type memoryReader struct {
	log      memoryLog
	next     int
	position int64
}

var errEnd = errors.New("the log has no more")

func (r *memoryReader) Next(ctx context.Context) ([]batch.Raw, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if r.position >= r.log.end {
		return nil, errEnd
	}
	n := min(max(r.log.atATime, 1), len(r.log.raws)-r.next)
	out := r.log.raws[r.next : r.next+n]
	r.next += n
	r.position = r.log.end
	if r.next < len(r.log.raws) {
		r.position = out[n-1].Offset + 1
	}
	return out, nil
}

func (r *memoryReader) Position() int64 { return r.position }
func (r *memoryReader) Close()          {}

// memoryStore is a ClickHouse of rows and fates.
type memoryStore struct {
	rows  map[topic.Origin][]Row
	fates map[topic.Origin]Fate
}

func newMemoryStore() *memoryStore {
	return &memoryStore{map[topic.Origin][]Row{}, map[topic.Origin]Fate{}}
}

func between[V any](m map[topic.Origin]V, self topic.Origin, first, last int64) []topic.Origin {
	var out []topic.Origin
	for o := range m {
		if o.TopicID == self.TopicID && o.Partition == self.Partition && o.Offset >= first && o.Offset <= last {
			out = append(out, o)
		}
	}
	slices.SortFunc(out, func(a, b topic.Origin) int { return cmp.Compare(a.Offset, b.Offset) })
	return out
}

func (s *memoryStore) Rows(_ context.Context, self topic.Origin, first, last int64, each func(Row)) error {
	for _, o := range between(s.rows, self, first, last) {
		for _, r := range s.rows[o] {
			each(r)
		}
	}
	return nil
}

func (s *memoryStore) Fates(_ context.Context, self topic.Origin, first, last int64, each func(Fate)) error {
	for _, o := range between(s.fates, self, first, last) {
		each(s.fates[o])
	}
	return nil
}

func (s *memoryStore) Reaching(_ context.Context, self topic.Origin, offset int64, each func(Fate)) error {
	for _, o := range between(s.fates, self, -1<<62, offset-1) {
		if f := s.fates[o]; f.Last >= offset {
			each(f)
		}
	}
	return nil
}

func (s *memoryStore) Named(_ context.Context, origins []topic.Origin) (map[topic.Origin]Row, error) {
	out := map[topic.Origin]Row{}
	for _, o := range origins {
		if rows := s.rows[o]; len(rows) > 0 {
			out[o] = rows[0]
		}
	}
	return out, nil
}

// row stores a row made of a record.
func (s *memoryStore) row(o topic.Origin, r *batch.Record) {
	s.rows[o] = append(s.rows[o], Row{o.Offset, r.ID, r.Hash, contentOf(xxhash.New(), &r.Event)})
}

// fate journals what became of a record.
func (s *memoryStore) fate(o topic.Origin, r *batch.Record, fate dedup.Fate, first topic.Origin) {
	f := Fate{Offset: o.Offset, Last: o.Offset, Fate: fate, ID: r.ID, Hash: r.Hash, First: first, Reason: r.Reason}
	if fate == dedup.Conflict {
		f.Text = xxhash.Sum64(r.Event.Payload)
	}
	s.fates[o] = f
}

// write does what an owner would: it decides the records and stores that.
func (s *memoryStore) write(self topic.Origin, partitions int32, raws []batch.Raw) []dedup.Decision {
	decoder := batch.NewDecoder(partitions)
	records := make([]*batch.Record, len(raws))
	for i := range raws {
		r := decoder.Decode(raws[i])
		records[i] = &r
	}
	decisions := dedup.Decide(nil, records, self, dedup.Known{First: func(*batch.Record) (dedup.First, bool) { return dedup.First{}, false }})
	for i, d := range decisions {
		o := topic.Origin{TopicID: self.TopicID, Partition: self.Partition, Offset: records[i].Offset}
		if d.Fate == dedup.Row {
			s.row(o, records[i])
		} else {
			first := topic.Origin{}
			if d.First != nil {
				first = d.First.Origin
			}
			s.fate(o, records[i], d.Fate, first)
		}
	}
	return decisions
}

func decode(partitions int32, raw batch.Raw) *batch.Record {
	r := batch.NewDecoder(partitions).Decode(raw)
	return &r
}
