package batch_test

import (
	"crypto/sha256"
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/consumer/internal/batch"
	"sluice/schemas/event"
	"sluice/schemas/topic"
)

func TestDecode(t *testing.T) {
	good := `{"source":"s","event_type":"t","actor_id":"a","occurred_at":"2026-01-02T03:04:05Z"}`
	for _, c := range []struct{ name, value, reason, detail string }{
		{"an event", good, "", ""},
		{"a time far ahead is not the consumer's to refuse", strings.Replace(good, "2026", "2099", 1), "", ""},
		{"no value", "", topic.ReasonEmpty, "no value"},
		{"garbage", "\x00\x01", topic.ReasonMalformed, "not valid JSON"},
		{"repeated name", strings.Replace(good, `{`, `{"source":"x",`, 1), topic.ReasonMalformed, "/source is a repeated name"},
		{"no time", `{"source":"s","event_type":"t","actor_id":"a"}`, topic.ReasonMalformed, "/occurred_at is missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := batch.NewDecoder(3).Decode(batch.Raw{Value: []byte(c.value), Key: []byte("whatever")})
			require.Equal(t, c.reason, r.Reason)
			require.Contains(t, r.Detail, c.detail)
			if c.reason == "" {
				require.Equal(t, event.Partition(r.Event.AppendKey(nil), 3), r.Home)
				require.Equal(t, r.Event.ID(), r.ID)
			}
		})
	}
}

func at(offset int64, when time.Time, size int) batch.Record {
	return batch.Record{Raw: batch.Raw{Offset: offset, Value: make([]byte, size)}, Event: event.Event{OccurredAt: when}}
}

// What a record held before is gone, whatever is decoded into it.
func TestDecodeInto(t *testing.T) {
	raws := []batch.Raw{
		{Offset: 1, Epoch: 2, Timestamp: time.UnixMilli(3), Key: []byte("k"), Headers: []batch.Header{{Key: "h"}},
			Value: []byte(`{"source":"s","event_type":"t","actor_id":"u","occurred_at":"2026-01-02T03:04:05Z","client_event_id":"c","payload":{"b":1,"a":2}}`)},
		{Offset: 2, Value: []byte(`{"source":"s","event_type":"t","actor_id":"u","occurred_at":"2026-01-02T03:04:06Z"}`)},
		{Offset: 3, Value: []byte(`{"source":"s"}`)},
		{Offset: 4},
	}
	d := batch.NewDecoder(12)
	for _, before := range raws {
		for _, raw := range raws {
			want := d.Decode(raw)
			got := d.Decode(before)
			d.DecodeInto(&got, &raw)
			require.Equal(t, want, got)
		}
	}
}

func TestLimits(t *testing.T) {
	january := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	l := batch.Limits{Rows: 3, Bytes: 100, Age: time.Second, TablePartitions: 2}
	b := batch.New(5)
	big := at(8, january, 1000)
	require.True(t, b.Fits(&big, l), "a batch of one breaks no limit")
	first := at(8, january, 40)
	b.Add(&first)
	second := at(9, january.AddDate(0, 1, 0), 40)
	require.True(t, b.Fits(&second, l))
	b.Add(&second)
	third, small := at(10, january.AddDate(0, 2, 0), 1), at(10, january, 20)
	require.False(t, b.Fits(&third, l), "a third month")
	require.True(t, b.Fits(&small, l))
	large := at(10, january, 21)
	require.False(t, b.Fits(&large, l), "bytes")
	b.Add(&small)
	require.False(t, b.Fits(&small, l), "rows")
	require.EqualValues(t, 5, b.First, "the gap before the first record lies inside")
	require.EqualValues(t, 10, b.Last())
}

// The hash tells records apart that differ in anything a row or a fate is made
// of: the token of an INSERT rests on it.
func TestHash(t *testing.T) {
	hash := func(r batch.Raw) event.Hash {
		b := batch.New(0)
		b.Add(&batch.Record{Raw: r})
		return b.Hash()
	}
	// Every record is hashed whole, however it falls into the pieces that are hashed
	// at once: other bytes at the end of one are another hash.
	for _, size := range []int{1, 100, 16<<10 - 21, 16<<10 - 20, 16 << 10, 100_000} {
		value := make([]byte, size)
		one := hash(batch.Raw{Offset: 1, Value: value})
		value[size-1] = 1
		require.NotEqual(t, one, hash(batch.Raw{Offset: 1, Value: value}), size)
	}
	base := batch.Raw{Offset: 1, Key: []byte("ab"), Value: []byte("c"), Timestamp: time.UnixMilli(5)}
	seen := map[event.Hash]string{hash(base): "base"}
	for name, change := range map[string]func(*batch.Raw){
		"offset":    func(r *batch.Raw) { r.Offset = 2 },
		"key":       func(r *batch.Raw) { r.Key = []byte("x") },
		"value":     func(r *batch.Raw) { r.Value = []byte("x") },
		"timestamp": func(r *batch.Raw) { r.Timestamp = time.UnixMilli(6) },
		"boundary":  func(r *batch.Raw) { r.Key, r.Value = []byte("a"), []byte("bc") },
	} {
		r := base
		change(&r)
		require.NotContains(t, seen, hash(r), name)
		seen[hash(r)] = name
	}
}

// The value was hashed without its length: one that goes on as a record would was
// taken for two records, and a log that had lost the second for one that had not.
func TestAValueIsNotTakenForRecords(t *testing.T) {
	one := batch.Record{Raw: batch.Raw{Offset: 1, Timestamp: time.UnixMilli(5), Key: []byte("a"), Value: []byte("x")}}
	two := batch.Record{Raw: batch.Raw{Offset: 2, Timestamp: time.UnixMilli(6), Key: []byte("b"), Value: []byte("y")}}
	both := batch.New(1)
	both.Add(&one)
	both.Add(&two)
	for _, sized := range []bool{false, true} {
		hostile := one
		hostile.Value = binary.BigEndian.AppendUint64([]byte("x"), 2)
		hostile.Value = binary.BigEndian.AppendUint64(hostile.Value, 6)
		hostile.Value = append(binary.BigEndian.AppendUint32(hostile.Value, 1), 'b')
		if sized {
			hostile.Value = binary.BigEndian.AppendUint32(hostile.Value, 1)
		}
		hostile.Value = append(hostile.Value, 'y')
		alone := batch.New(1)
		alone.Add(&hostile)
		require.NotEqual(t, both.Hash(), alone.Hash())
	}
}

// The hash is that of version 1's text, in pieces of any size: an intent that was
// open while the program changed is known by it.
func TestHashStays(t *testing.T) {
	b := batch.New(0)
	whole := sha256.New()
	for i := range int64(200) {
		r := batch.Record{Raw: batch.Raw{Offset: i, Timestamp: time.UnixMilli(1_000 + i), Key: make([]byte, i), Value: make([]byte, i*i)}}
		b.Add(&r)
		for _, part := range []any{uint64(i), uint64(1_000 + i), uint32(i), r.Key, uint32(i * i), r.Value} {
			require.NoError(t, binary.Write(whole, binary.BigEndian, part))
		}
		if i%50 == 0 { // asked for between two records, it changes nothing
			b.Hash()
		}
	}
	require.Equal(t, event.Hash(whole.Sum(nil)[:16]), b.Hash())
	require.Equal(t, batch.New(0).Hash(), b.Reset(0).Hash())
}

// When an event was received is its record's timestamp, or what an earlier copy's was;
// a header that makes no sense, or tells of a later time, changes nothing.
func TestReceived(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6_000_000, time.UTC)
	for said, want := range map[string]time.Time{
		"":                         at,
		"yesterday":                at,
		"2026-01-02T03:04:05.007Z": at,
		"2026-01-02T03:04:05.005Z": at.Add(-time.Millisecond),
		"2025-12-01T00:00:00.000Z": time.Date(2025, 12, 1, 0, 0, 0, 0, time.UTC),
	} {
		raw := batch.Raw{Timestamp: at, Headers: []batch.Header{{Key: "x", Value: []byte("2020-01-01T00:00:00.000Z")}, {Key: topic.HeaderReceivedAt, Value: []byte(said)}}}
		require.Equal(t, want, raw.Received(), said)
	}
	require.Equal(t, at, (&batch.Raw{Timestamp: at}).Received())
}
