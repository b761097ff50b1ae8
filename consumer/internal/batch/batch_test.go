package batch_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
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
	hash := func(r batch.Record) event.Hash {
		b := batch.New(0)
		b.Add(&r)
		return b.Hash()
	}
	// What can't become a row is hashed whole, however it falls into the pieces that are
	// hashed at once: other bytes at the end of one are another hash.
	for _, size := range []int{1, 100, 16<<10 - 25, 16<<10 - 24, 16 << 10, 100_000} {
		r := batch.Record{Raw: batch.Raw{Offset: 1, Value: make([]byte, size)}, Reason: topic.ReasonMalformed}
		one := hash(r)
		r.Value = bytes.Clone(r.Value)
		r.Value[size-1] = 1
		require.NotEqual(t, one, hash(r), size)
	}
	seen := map[event.Hash]string{}
	for _, reason := range []string{"", topic.ReasonMalformed} {
		base := batch.Record{
			Raw:    batch.Raw{Offset: 1, Key: []byte("ab"), Value: []byte("c"), Timestamp: time.UnixMilli(5)},
			Reason: reason, ID: uuid.UUID{1}, Hash: event.Hash{2},
		}
		changes := map[string]func(*batch.Record){
			"base":      func(*batch.Record) {},
			"offset":    func(r *batch.Record) { r.Offset = 2 },
			"timestamp": func(r *batch.Record) { r.Timestamp = time.UnixMilli(6) },
			"length":    func(r *batch.Record) { r.Value = []byte("cc") },
		}
		if reason == "" {
			changes["id"] = func(r *batch.Record) { r.ID[15] = 1 }
			changes["payload"] = func(r *batch.Record) { r.Hash[15] = 1 }
		} else {
			changes["key"] = func(r *batch.Record) { r.Key = []byte("x") }
			changes["value"] = func(r *batch.Record) { r.Value = []byte("x") }
			changes["boundary"] = func(r *batch.Record) { r.Key, r.Value = []byte("a"), []byte("bc") }
		}
		for name, change := range changes {
			r := base
			change(&r)
			require.NotContains(t, seen, hash(r), reason+name)
			seen[hash(r)] = reason + name
		}
	}
}

// Why a record that decoded well can't become a row after all is no part of the hash:
// who finds the batch's intent decodes it anew.
func TestARefusalIsNotHashed(t *testing.T) {
	r := batch.Record{Raw: batch.Raw{Offset: 1, Value: []byte("x")}, ID: uuid.UUID{1}}
	b := batch.New(0)
	b.Add(&r)
	before := b.Hash()
	r.Reason = topic.ReasonRefused
	require.Equal(t, before, b.Hash())
}

// The value was hashed without its length: one that goes on as a record would was
// taken for two records, and a log that had lost the second for one that had not.
func TestAValueIsNotTakenForRecords(t *testing.T) {
	dead := func(offset int64, key, value string) *batch.Record {
		return &batch.Record{Raw: batch.Raw{Offset: offset, Timestamp: time.UnixMilli(5), Key: []byte(key), Value: []byte(value)}, Reason: topic.ReasonMalformed}
	}
	of := func(records ...*batch.Record) *batch.Batch {
		b := batch.New(1)
		for _, r := range records {
			b.Add(r)
		}
		return b
	}
	both := of(dead(1, "a", "x"), dead(2, "b", "y"))
	for _, c := range []struct{ marked, sized bool }{{false, false}, {false, true}, {true, false}, {true, true}} {
		value := binary.BigEndian.AppendUint64([]byte("x"), 2)
		value = binary.BigEndian.AppendUint64(value, 5)
		if c.marked {
			value = append(value, 'd')
		}
		value = append(binary.BigEndian.AppendUint32(value, 1), 'b')
		if c.sized {
			value = binary.BigEndian.AppendUint32(value, 1)
		}
		alone := of(dead(1, "a", string(append(value, 'y'))))
		require.NotEqual(t, both.Hash(), alone.Hash())
		require.NotEqual(t, both.RawHash(), alone.RawHash())
	}
}

// The hash is the same whenever it is asked for, and that of the first rule version is
// what it was: an intent that was open while the program changed is known by it.
func TestHashStays(t *testing.T) {
	b, again := batch.New(0), batch.New(0)
	whole := sha256.New()
	for i := range int64(200) {
		r := batch.Record{
			Raw: batch.Raw{Offset: i, Timestamp: time.UnixMilli(1_000 + i), Key: make([]byte, i), Value: make([]byte, i*i)},
			ID:  uuid.UUID{byte(i)},
		}
		if i%3 == 0 {
			r.Reason = topic.ReasonMalformed
		}
		b.Add(&r)
		again.Add(&r)
		for _, part := range []any{uint64(i), uint64(1_000 + i), uint32(i), r.Key, uint32(i * i), r.Value} {
			require.NoError(t, binary.Write(whole, binary.BigEndian, part))
		}
		if i%50 == 0 { // asked for between two records, it changes nothing
			b.Hash()
		}
	}
	require.Equal(t, event.Hash(whole.Sum(nil)[:16]), b.RawHash())
	require.Equal(t, again.Hash(), b.Hash())
	require.Equal(t, batch.New(0).Hash(), b.Reset(0).Hash())
	require.Equal(t, "9ef1db2c12c88f92c2b421fe225c44e2", fmt.Sprintf("%x", again.Hash()), "changed, it needs another event.RuleVersion")
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
