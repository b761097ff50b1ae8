package spool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"sluice/ingest/internal/logtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func record(i int) *kgo.Record {
	return &kgo.Record{
		Key: fmt.Appendf(nil, "app:click:u%d:2026-01-02T03:04:05.000000000Z", i), Value: fmt.Appendf(nil, `{"n":%d}`, i),
		Headers:   []kgo.RecordHeader{{Key: "event-id", Value: fmt.Appendf(nil, "%036d", i)}},
		Timestamp: time.UnixMilli(1_700_000_000_000 + int64(i)),
	}
}

func some(from, to int) []*kgo.Record {
	var out []*kgo.Record
	for i := from; i < to; i++ {
		out = append(out, record(i))
	}
	return out
}

func open(t testing.TB, dir string, change func(*Config)) *Store {
	t.Helper()
	cfg := DefaultConfig(dir)
	if change != nil {
		change(&cfg)
	}
	s, err := Open(cfg, discard)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// drained reads and acknowledges everything, and returns the records' numbers.
func drained(t testing.TB, s *Store) []int {
	t.Helper()
	var out []int
	for {
		c, err := s.Next(512)
		require.NoError(t, err)
		if c == nil {
			return out
		}
		for _, r := range c.Records {
			var n int
			_, err := fmt.Sscanf(string(r.Value), `{"n":%d}`, &n)
			require.NoError(t, err)
			want := record(n)
			require.Equal(t, want.Key, r.Key)
			require.Equal(t, want.Headers, r.Headers)
			require.True(t, want.Timestamp.Equal(r.Timestamp))
			out = append(out, n)
		}
		require.NoError(t, s.Ack(c))
	}
}

func numbers(from, to int) []int {
	var out []int
	for i := from; i < to; i++ {
		out = append(out, i)
	}
	return out
}

// segments are the segment files of dir, oldest first.
func segments(t testing.TB, dir string) []string {
	t.Helper()
	names, err := segmentFiles(dir)
	require.NoError(t, err)
	for i, n := range names {
		names[i] = filepath.Join(dir, n)
	}
	return names
}

var discard = logtest.New(io.Discard)

func numberOf(t require.TestingT, r *kgo.Record) int {
	var n int
	_, err := fmt.Sscanf(string(r.Value), `{"n":%d}`, &n)
	require.NoError(t, err)
	return n
}

func mustSegments(t require.TestingT, dir string) []string {
	names, err := segmentFiles(dir)
	require.NoError(t, err)
	for i, n := range names {
		names[i] = filepath.Join(dir, n)
	}
	return names
}

func footerOf(t require.TestingT, path string) (summary, int64, bool) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return summary{}, 0, false
	}
	require.NoError(t, err)
	defer f.Close()
	info, err := f.Stat()
	require.NoError(t, err)
	return readFooter(f, info.Size())
}
