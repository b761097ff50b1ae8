package spool

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"
)

// TestFrame: a record comes back as it was, and its frame has the length
// reckoned.
func TestFrame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bytesOf := rapid.SliceOfN(rapid.Byte(), 0, 50)
		r := &kgo.Record{Key: bytesOf.Draw(t, "key"), Value: bytesOf.Draw(t, "value"), Timestamp: time.Unix(0, rapid.Int64().Draw(t, "time"))}
		for range rapid.IntRange(0, 4).Draw(t, "headers") {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: rapid.String().Draw(t, "name"), Value: bytesOf.Draw(t, "header")})
		}
		b := appendRecord([]byte("before"), r)[len("before"):]
		require.Equal(t, frameBytes(r), int64(len(b)))
		body, n, err := frame(append(b, "after"...))
		require.NoError(t, err)
		require.Equal(t, len(b), n)
		got, err := parseRecord(body)
		require.NoError(t, err)
		require.True(t, r.Timestamp.Equal(got.Timestamp))
		got.Timestamp = r.Timestamp
		require.Equal(t, r, got)
		for cut := range b {
			_, _, err := frame(b[:cut])
			require.ErrorIs(t, err, errShort, "cut at %d", cut)
		}
	})
}

// FuzzScan: whatever stands in a file, reading it ends, invents nothing, and
// finds every whole frame that stands behind damage.
func FuzzScan(f *testing.F) {
	b := appendRecord(nil, record(1))
	f.Add(b)
	f.Add(b[:len(b)-1])
	f.Add(append(bytes.Clone(b), appendFooter(nil, summary{records: 1, hashes: []uint32{7}}, int64(len(b)))...))
	f.Add(append([]byte{0xFF, 'S', 'L', 0xFE, 0xFF, 0xFF, 0xFF, 0}, b...))
	good := record(42)
	f.Fuzz(func(t *testing.T, b []byte) {
		before := 0
		var last *kgo.Record
		each := func(r *kgo.Record) error { before++; last = r; return nil }
		_, err := walk(b, each)
		require.NoError(t, err)
		s := scan(b)
		require.LessOrEqual(t, s.records, len(b)/frameHeadBytes)
		require.Len(t, s.hashes, s.records)
		require.Equal(t, int64(len(b)), s.end+s.torn)
		require.Equal(t, s.records, before)

		// The same bytes with a frame behind them: it is found, unless they end
		// the segment (a footer) or swallow it (a frame's beginning that fits).
		_, _, _ = readFooter(bytes.NewReader(b), int64(len(b)))
		before, last = 0, nil
		_, err = walk(appendRecord(bytes.Clone(b), good), each)
		require.NoError(t, err)
		if last != nil && bytes.Equal(last.Key, good.Key) {
			require.Equal(t, good.Value, last.Value)
		}
	})
}

// TestResync: behind bytes that are no frame, whatever they are, the next frame
// is found.
func TestResync(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		junk := rapid.SliceOfN(rapid.SampledFrom([]byte{0xFF, 'S', 'L', 0xFE, 0, 1, 60, 'x'}), 1, 60).Draw(t, "junk")
		b := appendRecord(bytes.Clone(junk), record(1))
		if _, _, err := frame(b); err == nil {
			t.Skip("the junk is a frame")
		}
		require.Equal(t, len(junk), resync(b))
	})
}
