package replay

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/partition"
	"sluice/schemas/event"
	"sluice/schemas/topic"
)

// breaking is a log whose reading fails before some offsets, once each.
type breaking struct {
	raws  []batch.Raw
	end   int64
	fails []int64
	opens []int64
}

type breakingReader struct {
	*breaking
	at int64
}

func (b *breaking) open(_ int32, from int64) (partition.Reader, error) {
	b.opens = append(b.opens, from)
	return &breakingReader{b, from}, nil
}

func (r *breakingReader) Position() int64 { return r.at }

func (r *breakingReader) Close() {}

func (r *breakingReader) Next(context.Context) ([]batch.Raw, error) {
	if i := slices.Index(r.fails, r.at); i >= 0 {
		r.fails = slices.Delete(r.fails, i, i+1)
		return nil, errors.New("the connection was lost")
	}
	for _, raw := range r.raws { // two at a time, whatever is asked for
		if raw.Offset >= r.at {
			r.at = raw.Offset + 1
			return []batch.Raw{raw}, nil
		}
	}
	r.at = r.end // a marker at the end
	return nil, nil
}

// What was told of records before reading broke off is not told again: each is counted
// once, in the order of their offsets, whichever chunk it lies in; what ClickHouse says
// of each is its own.
func TestComparisonGoesOnWhereReadingBroke(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fails []int64
		chunk int64
		opens []int64
	}{
		{"nothing fails", nil, 7, []int64{2}},
		{"at the first record", []int64{2}, 7, []int64{2, 2}},
		{"in the middle of a chunk", []int64{5}, 7, []int64{2, 5}},
		{"again and again", []int64{5, 6, 12}, 3, []int64{2, 5, 6, 12}},
		{"before the marker", []int64{19}, 100, []int64{2, 19}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &breaking{end: 20, fails: tt.fails}
				payload := []byte(`{"n":1}`)
				rows := map[int64]rowOf{}
				for offset := int64(0); offset < 19; offset++ {
					e := event.Event{Source: "s", EventType: "t", ActorID: fmt.Sprint(offset), Payload: payload}
					e.OccurredAt = event.Earliest
					log.raws = append(log.raws, batch.Raw{Offset: offset, Value: e.AppendJSON(nil)})
					if offset%2 == 0 {
						rows[offset] = rowOf{true, e.ID(), event.PayloadHash(payload)}
					}
				}
				old, id := topic.Origin{TopicID: uuid.New()}, topic.Origin{TopicID: uuid.New()}
				var found []topic.Origin
				var spans Spans
				next, records := int64(2), 0
				c := Comparison{
					Open: log.open, Offsets: tt.chunk,
					Found: func(f Found) { found = append(found, f.Origin) },
					Compared: func(_ context.Context, chunk Chunk) error {
						require.Greater(t, chunk.Next, next)
						for _, s := range chunk.Missing {
							require.GreaterOrEqual(t, s.From, next)
							require.LessOrEqual(t, s.To, chunk.Next)
							spans.AddSpan(s)
						}
						next, records = chunk.Next, records+chunk.Records
						return nil
					},
					have: func(_ context.Context, part Part) (piece, error) {
						p := piece{Part: part, rows: make([]rowOf, part.Last-part.First+1)}
						for o := part.First; o <= part.Last; o++ {
							p.rows[o-part.First] = rows[o]
						}
						return p, nil
					},
				}
				d, end, err := c.Run(t.Context(), Range{Partitions: 1, From: 2, To: 20, Parts: func(first, last int64) []Part {
					if last < 10 || first >= 10 {
						return []Part{{map[bool]topic.Origin{true: old, false: id}[last < 10], first, last}}
					}
					return []Part{{old, first, 9}, {id, 10, last}}
				}})
				require.NoError(t, err)
				require.Equal(t, int64(20), end)
				require.Equal(t, int64(20), next)
				require.Equal(t, Diff{Records: 17, Present: 9, Missing: 8}, d)
				require.Equal(t, 17, records)
				require.Equal(t, tt.opens, log.opens)
				var want []topic.Origin
				for offset := int64(3); offset < 19; offset += 2 {
					o := old
					if offset >= 10 {
						o = id
					}
					o.Offset = offset
					want = append(want, o)
				}
				require.Equal(t, want, found)
				require.Equal(t, []Span{{3, 18}}, spans.All())
			})
		})
	}
}

// A range is cut into chunks with no small rest, which an owner would have to write by
// itself: 265 records of a lost table were an INSERT like the 50,000 before them.
func TestChunksLeaveNoSmallRest(t *testing.T) {
	for _, tt := range []struct {
		first, size, to int64
		want            []int64
	}{
		{50, 50, 50, []int64{50}},
		{50, 50, 1, []int64{1}},
		{50, 50, 74, []int64{74}},
		{50, 50, 75, []int64{50, 75}},
		{50, 50, 170, []int64{50, 100, 170}},
		{25, 50, 50, []int64{25, 50}},
		{25, 50, 37, []int64{25, 37}},
		{25, 50, 36, []int64{36}},
	} {
		var got []int64
		for at, size := int64(0), tt.first; at < tt.to; size = tt.size {
			at = chunkEnd(at, size, tt.to)
			got = append(got, at)
		}
		require.Equal(t, tt.want, got, tt)
	}
}

// What ClickHouse packs is taken apart as it was, and what can't be that is refused.
func TestUnpack(t *testing.T) {
	id, hash := uuid.New(), event.PayloadHash([]byte("{}"))
	row := binary.LittleEndian.AppendUint64(nil, 11)
	row = binary.LittleEndian.AppendUint64(row, binary.BigEndian.Uint64(id[:8]))
	row = binary.LittleEndian.AppendUint64(row, binary.BigEndian.Uint64(id[8:]))
	row = append(row, hash[:]...)
	p := piece{Part: Part{First: 10, Last: 12}, rows: make([]rowOf, 3)}
	require.NoError(t, p.unpack(string(row)))
	require.Equal(t, []rowOf{{}, {true, id, hash}, {}}, p.rows)
	require.NoError(t, p.unpack(""))
	require.Error(t, p.unpack(string(row[:39])))
	row[0] = 13
	require.Error(t, p.unpack(string(row)), "a row of another range")
}
