package spool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"sluice/deploy/local/lock"
)

// TestStore: what is appended comes out, once, in order; across a restart what
// was acknowledged does not.
func TestStore(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	require.NoError(t, s.Append(t.Context(), some(0, 100)))
	c, err := s.Next(600)
	require.NoError(t, err)
	require.NotEmpty(t, c.Records)
	n := len(c.Records)
	again, err := s.Next(600)
	require.NoError(t, err)
	require.Equal(t, c.Records, again.Records, "not acknowledged, so it comes again")
	require.NoError(t, s.Ack(again))
	require.Error(t, s.Ack(&Chunk{seg: &segment{}}))
	require.Equal(t, 100-n, s.Status().Records)
	require.NoError(t, s.Close())

	s = open(t, dir, nil)
	require.Equal(t, 100-n, s.Status().Records)
	require.NoError(t, s.Append(t.Context(), some(100, 110)))
	require.Equal(t, numbers(n, 110), drained(t, s))
	require.Zero(t, s.Status().Records)
	require.Eventually(t, func() bool { return s.Status().Bytes == 0 && len(segments(t, dir)) == 0 }, 10*time.Second, time.Millisecond,
		"what the log has still takes room")
	require.Nil(t, s.keys.counters)
	require.NoError(t, s.Close())
	require.ErrorIs(t, s.Append(t.Context(), some(0, 1)), ErrClosed)
}

// TestSegments: many segments, removed one by one as they are acknowledged.
func TestSegments(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, func(c *Config) { c.SegmentBytes = 2000 })
	for i := range 20 {
		require.NoError(t, s.Append(t.Context(), some(i*10, i*10+10)))
	}
	was := len(segments(t, dir))
	require.Greater(t, was, 10)
	for range 20 {
		c, err := s.Next(2000)
		require.NoError(t, err)
		require.NoError(t, s.Ack(c))
	}
	require.Less(t, len(segments(t, dir)), was)
	left := s.Status()
	require.NoError(t, s.Close())
	s = open(t, dir, nil)
	got := s.Status()
	require.Equal(t, left.Records, got.Records)
	require.Equal(t, numbers(200-left.Records, 200), drained(t, s))
}

// TestGroupCommit: those who wait at the same time share one sync.
func TestGroupCommit(t *testing.T) {
	gate, syncs := make(chan struct{}), atomic.Int64{}
	s := open(t, t.TempDir(), func(c *Config) {
		c.open = func(path string) (file, error) {
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
			return &hooked{File: f, sync: func() error {
				if syncs.Add(1) == 1 {
					<-gate
				}
				return f.Sync()
			}}, err
		}
	})
	var wg sync.WaitGroup
	const posts = 1000
	for i := range posts {
		wg.Go(func() { require.NoError(t, s.Append(t.Context(), some(i, i+1))) })
	}
	require.Eventually(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.held == posts
	}, 20*time.Second, time.Millisecond)
	close(gate)
	wg.Wait()
	require.LessOrEqual(t, syncs.Load(), int64(2), "the first, and one for all who waited meanwhile")
	require.Len(t, drained(t, s), posts)
}

type hooked struct {
	*os.File
	write func(b []byte) (int, error)
	sync  func() error
}

func (h *hooked) Write(b []byte) (int, error) {
	if h.write != nil {
		return h.write(b)
	}
	return h.File.Write(b)
}

func (h *hooked) Sync() error {
	if h.sync != nil {
		return h.sync()
	}
	return h.File.Sync()
}

// TestBound: past the bound nothing is taken, and room comes back by draining.
func TestBound(t *testing.T) {
	s := open(t, t.TempDir(), func(c *Config) { c.Bytes, c.SegmentBytes = MinBytes, 1<<20 })
	big := record(0)
	big.Value = make([]byte, 900_000)
	n := 0
	for ; ; n++ {
		if err := s.Append(t.Context(), []*kgo.Record{big}); err != nil {
			require.ErrorIs(t, err, ErrFull)
			break
		}
		require.NoError(t, s.Ready())
	}
	require.Equal(t, 9, n)
	require.LessOrEqual(t, s.Status().Bytes, int64(MinBytes))
	require.Equal(t, int64(1), s.Status().Counts.Full)
	c, err := s.Next(1)
	require.NoError(t, err)
	require.Len(t, c.Records, 1)
	require.NoError(t, s.Ack(c))
	require.NoError(t, s.Append(t.Context(), []*kgo.Record{big}))
}

// TestTwoProcesses: a folder has one owner; the second is told who.
func TestTwoProcesses(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	var held *lock.HeldError
	_, err := Open(DefaultConfig(dir), s.log)
	require.ErrorAs(t, err, &held)
	require.Equal(t, os.Getpid(), held.PID)
	require.NoError(t, s.Close())
	_ = open(t, dir, nil)
}

// TestDamage: a bit flipped anywhere in a segment costs the record it stands in
// and no other, is kept aside and counted, and the spool goes on.
func TestDamage(t *testing.T) {
	for _, sealed := range []bool{true, false} {
		t.Run(fmt.Sprintf("sealed %v", sealed), func(t *testing.T) {
			whole := t.TempDir()
			s := open(t, whole, nil)
			require.NoError(t, s.Append(t.Context(), some(0, 3)))
			path := segments(t, whole)[0]
			crashed, err := os.ReadFile(path)
			require.NoError(t, err)
			require.NoError(t, s.Close())
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			if !sealed {
				b = crashed
			}
			one := int(frameBytes(record(0)))
			for at := 0; at < len(b); at += 3 { // and so every bit of a byte in turn
				dir := t.TempDir()
				spoilt := slices.Clone(b)
				spoilt[at] ^= 1 << (at % 8)
				require.NoError(t, os.WriteFile(filepath.Join(dir, segmentName(1)), spoilt, 0o644))
				s := open(t, dir, func(c *Config) { c.noSync = true })
				got := drained(t, s)
				want := []int{0, 1, 2}
				if at < 3*one {
					want = slices.Delete(want, at/one, at/one+1)
				}
				require.Equal(t, want, got, "the bit at %d", at)
				kept, err := KeptIn(dir)
				require.NoError(t, err)
				st := s.Status()
				require.Zero(t, st.Records)
				if at >= 3*one {
					require.Zero(t, kept.DamagedFiles, "the bit at %d", at)
				} else {
					require.Equal(t, 1, kept.DamagedFiles, "the bit at %d", at)
					require.Equal(t, int64(one), kept.DamagedBytes)
					require.Equal(t, int64(one), st.Counts.DamagedBytes)
				}
				require.NoError(t, s.Append(t.Context(), some(7, 8)))
				require.Equal(t, []int{7}, drained(t, s))
				require.NoError(t, s.Close())
			}
		})
	}
}

// TestUnreadable: a segment that can't be read at all is set aside whole, and
// the next is read.
func TestUnreadable(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, func(c *Config) { c.SegmentBytes = 1000 })
	require.NoError(t, s.Append(t.Context(), some(0, 10)))
	require.NoError(t, s.Append(t.Context(), some(10, 20)))
	require.NoError(t, os.Truncate(segments(t, dir)[0], 5))
	for range maxReadErrors - 1 {
		_, err := s.Next(1 << 20)
		require.Error(t, err)
	}
	require.Equal(t, numbers(10, 20), drained(t, s))
	kept, err := KeptIn(dir)
	require.NoError(t, err)
	require.Equal(t, 1, kept.DamagedFiles)
}

// TestRefuse: a record set aside can be read again.
func TestRefuse(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	odd := record(2)
	odd.Value = []byte{0xFF, 0}
	require.NoError(t, s.Append(t.Context(), []*kgo.Record{record(1), odd}))
	c, err := s.Next(1 << 20)
	require.NoError(t, err)
	for range 2 { // the chunk may come twice
		for i := range c.Records {
			require.NoError(t, s.SetAside(c, i, errors.New("never")))
			require.True(t, s.aside(c, i))
		}
	}
	require.NoError(t, s.Ack(c))
	b, err := os.ReadFile(filepath.Join(dir, refusedFile))
	require.NoError(t, err)
	require.Contains(t, string(b), `"value":{"n":1},"reason":"never"`)
	require.Contains(t, string(b), `"value_bytes":"/wA="`)
	kept, err := KeptIn(dir)
	require.NoError(t, err)
	require.Equal(t, int64(2), kept.RefusedRecords)
	require.Equal(t, int64(2), s.Status().Counts.Aside)
}

// TestWalk: an export beside the owner sees what is there, and nothing changes.
func TestWalk(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, func(c *Config) { c.SegmentBytes = 1000 })
	require.NoError(t, s.Append(t.Context(), some(0, 30)))
	require.NoError(t, s.Append(t.Context(), some(30, 60)))
	c, err := s.Next(300)
	require.NoError(t, err)
	require.NoError(t, s.Ack(c))
	n := len(c.Records)
	var keys []string
	unreadable, err := Walk(dir, func(r *kgo.Record) error { keys = append(keys, string(r.Key)); return nil })
	require.NoError(t, err)
	require.Zero(t, unreadable)
	require.Len(t, keys, 60-n)
	require.Equal(t, string(record(n).Key), keys[0])
	st, err := Peek(DefaultConfig(dir))
	require.NoError(t, err)
	require.Equal(t, 60-n, st.Records)
	require.Equal(t, s.Edge(), st.Edge)
	require.ErrorIs(t, func() error { _, err := Walk(dir, func(*kgo.Record) error { return context.Canceled }); return err }(), context.Canceled)
	require.Equal(t, numbers(n, 60), drained(t, s))
}

// TestEdgeName: made once, and kept with the folder.
func TestEdgeName(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	name := s.Edge()
	require.NotEmpty(t, name)
	require.NoError(t, s.Close())
	s = open(t, dir, nil)
	require.Equal(t, name, s.Edge())
	require.Equal(t, "mine", open(t, t.TempDir(), func(c *Config) { c.Edge = "mine" }).Edge())
}

// TestProperty: appends, acknowledgements, orderly restarts, and crashes that
// leave any beginning of what was written since the last sync, and any older
// cursor: nothing that Append returned for is lost, nothing is invented, the
// order stands, and what is acknowledged comes again only after a crash.
func TestProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "spool")
		require.NoError(t, err)
		defer func() { require.NoError(t, os.RemoveAll(dir)) }()
		cfg := DefaultConfig(dir)
		cfg.SegmentBytes = int64(rapid.IntRange(200, 3000).Draw(t, "segment"))
		cfg.noSync = true // what a process leaves is there without
		var s *Store
		start := func() {
			var err error
			s, err = Open(cfg, discard)
			require.NoError(t, err)
		}
		start()
		defer func() { require.NoError(t, s.Close()) }()
		next, acked := 0, 0 // records appended; a beginning of them acknowledged
		seen := 0           // the first that the store has, for sure
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				n := rapid.IntRange(1, 30).Draw(t, "n")
				require.NoError(t, s.Append(context.Background(), some(next, next+n)))
				next += n
			},
			"ack": func(t *rapid.T) {
				c, err := s.Next(int64(rapid.IntRange(1, 2000).Draw(t, "limit")))
				require.NoError(t, err)
				if c == nil {
					require.Equal(t, next, max(acked, seen), "records are missing")
					return
				}
				first := numberOf(t, c.Records[0])
				require.LessOrEqual(t, first, acked, "records are missing")
				require.GreaterOrEqual(t, first, seen, "what is acknowledged came again without a crash")
				for i, r := range c.Records {
					require.Equal(t, first+i, numberOf(t, r))
					require.Equal(t, record(first+i).Key, r.Key)
				}
				require.NoError(t, s.Ack(c))
				seen = first + len(c.Records)
				acked = max(acked, seen)
			},
			"restart": func(t *rapid.T) {
				was := s.Status().Records
				require.NoError(t, s.Close())
				start()
				require.Equal(t, was, s.Status().Records)
			},
			"crash": func(t *rapid.T) {
				files := map[string][]byte{}
				for _, name := range append(mustSegments(t, dir), filepath.Join(dir, "cursor"), filepath.Join(dir, "edge"), filepath.Join(dir, syncedFile)) {
					b, err := os.ReadFile(name)
					if errors.Is(err, os.ErrNotExist) {
						continue // the log has all of it, and the store has just removed it
					}
					require.NoError(t, err)
					files[name] = b
				}
				require.NoError(t, s.Close())
				for _, name := range mustSegments(t, dir) {
					require.NoError(t, os.Remove(name))
				}
				for name, b := range files {
					require.NoError(t, os.WriteFile(name, b, 0o644))
				}
				// A write that was under way: any beginning of its frames, at the end
				// of the newest segment or as one of its own.
				var frames []byte
				for _, r := range some(1_000_000, 1_000_003) {
					frames = appendRecord(frames, r)
				}
				cut := frames[:rapid.IntRange(0, int(frameBytes(record(1_000_000)))-1).Draw(t, "cut")]
				m, was, known, err := openSynced(dir)
				require.NoError(t, err)
				require.NoError(t, m.close())
				require.True(t, known)
				last := filepath.Join(dir, segmentName(was.segment))
				if _, err := os.Stat(last); err != nil && was.end > 0 { // the log has all of it
					last = filepath.Join(dir, segmentName(was.segment+1))
				}
				if _, _, sealed := footerOf(t, last); !sealed {
					require.NoError(t, os.WriteFile(last, append(files[last], cut...), 0o644))
				}
				if rapid.Bool().Draw(t, "cursor torn") {
					require.NoError(t, os.WriteFile(filepath.Join(dir, "cursor"), files[filepath.Join(dir, "cursor")][:rapid.IntRange(0, min(31, len(files[filepath.Join(dir, "cursor")]))).Draw(t, "torn")], 0o644))
					seen = 0
				}
				start()
				require.Zero(t, s.Status().Counts.DamagedRegions, "a write that was cut off was taken for damage")
				if c, err := s.Next(1); err == nil && c != nil {
					seen = min(seen, numberOf(t, c.Records[0]))
				}
			},
		})
		for {
			c, err := s.Next(1 << 20)
			require.NoError(t, err)
			if c == nil {
				break
			}
			first := numberOf(t, c.Records[0])
			require.LessOrEqual(t, first, max(seen, acked))
			seen = first + len(c.Records)
			require.NoError(t, s.Ack(c))
		}
		require.Equal(t, next, max(seen, acked), "lost")
		require.Zero(t, s.Status().Records)
		require.Zero(t, s.Status().Counts.DamagedRegions)
	})
}
