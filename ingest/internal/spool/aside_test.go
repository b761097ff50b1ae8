package spool

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// fullForAside gives a store a disk that takes no more of refused.ndjson than
// half a line while full is set.
func fullForAside(full *atomic.Bool) func(*Config) {
	return func(c *Config) {
		c.openAside = func(path string) (asideFile, error) {
			f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
			return &hooked{File: f, write: func(b []byte) (int, error) {
				if !full.Load() {
					return f.Write(b)
				}
				n, err := f.Write(b[:len(b)/2])
				return n, errors.Join(err, syscall.ENOSPC)
			}}, err
		}
	}
}

// TestNoRoomForTheRefused: a record that the log refuses was at the head of the
// spool when the disk was full. It had to go aside, into a file, before the next
// was sent; so the drain stood still for want of the room that only the drain
// could make. It must wait where it is and hold up nobody, survive a restart,
// and go aside once there is room, whole, and its segment with it.
func TestNoRoomForTheRefused(t *testing.T) {
	var full atomic.Bool
	full.Store(true)
	dir := t.TempDir()
	refusing := func(c *Config) {
		c.Dir, c.SegmentBytes = dir, 1000
		fullForAside(&full)(c)
	}
	s, log := newSpool(t, refusing)
	log.mu.Lock()
	log.refuse = func(r *kgo.Record) error {
		if n := numberOf(t, r); n == 0 || n == 1 {
			return kerr.MessageTooLarge
		}
		return nil
	}
	log.mu.Unlock()
	for i := 0; i < 100; i += 2 {
		require.NoError(t, s.store.Append(t.Context(), some(i, i+2)))
	}
	drainedAll(t, s)
	require.Equal(t, numbers(2, 100), log.numbers(t))
	require.Eventually(t, func() bool { return len(segments(t, dir)) == 1 }, 20*time.Second, time.Millisecond, "the drain made no room")
	st, err := s.State()
	require.NoError(t, err)
	require.Equal(t, 2, st.Waiting)
	require.Zero(t, st.RefusedRecords, "half a line was left")
	require.Positive(t, st.Bytes)

	// What a crash leaves: the cursor stands before them.
	at, err := peekCursor(dir)
	require.NoError(t, err)
	require.Equal(t, position{segment: 1}, at)

	full.Store(false)
	require.Eventually(t, func() bool { return s.store.Status().Waiting == 0 }, 20*time.Second, 10*time.Millisecond)
	require.Empty(t, segments(t, dir))
	st, err = s.State()
	require.NoError(t, err)
	require.Equal(t, int64(2), st.RefusedRecords)
	require.Equal(t, int64(2), st.Counts.Aside)
	require.Zero(t, st.Bytes)
	require.NoError(t, s.store.Append(t.Context(), some(100, 101)))
	drainedAll(t, s)
}

// TestRefusedWaitsAcrossRestarts: a record that could not go aside before the
// edge stopped is found again by the next start, though later segments are gone.
func TestRefusedWaitsAcrossRestarts(t *testing.T) {
	var full atomic.Bool
	full.Store(true)
	dir := t.TempDir()
	change := func(c *Config) { c.SegmentBytes = 1000; fullForAside(&full)(c) }
	s := open(t, dir, change)
	for i := 0; i < 40; i += 2 {
		require.NoError(t, s.Append(t.Context(), some(i, i+2)))
	}
	for first := true; ; first = false {
		c, err := s.Next(400)
		require.NoError(t, err)
		if c == nil {
			break
		}
		if first {
			require.NoError(t, s.SetAside(c, 1, errors.New("never")))
		}
		require.NoError(t, s.Ack(c))
	}
	require.Eventually(t, func() bool { return len(segments(t, dir)) == 1 }, 20*time.Second, time.Millisecond)
	newest := s.next - 1
	require.NoError(t, s.Close())

	s = open(t, dir, change)
	c, err := s.Next(400)
	require.NoError(t, err)
	require.Equal(t, 1, numberOf(t, c.Records[0]), "the cursor stands before it")
	full.Store(false)
	require.NoError(t, s.SetAside(c, 0, errors.New("never")))
	require.NoError(t, s.Ack(c))
	require.NoError(t, s.Append(t.Context(), some(40, 41)))
	got := drained(t, s)
	require.Equal(t, 40, got[len(got)-1])
	kept, err := KeptIn(dir)
	require.NoError(t, err)
	require.Equal(t, int64(1), kept.RefusedRecords)
	for _, path := range segments(t, dir) {
		number, _ := segmentNumber(filepath.Base(path))
		require.Greater(t, number, newest, "the number of a segment that is gone was used again")
	}
}

// TestDamageWithoutRoom: damage met while the disk takes no file was logged as
// kept, passed over, and removed with its segment. It waits there instead.
func TestDamageWithoutRoom(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, func(c *Config) { c.SegmentBytes = 1000 })
	require.NoError(t, s.Append(t.Context(), some(0, 4)))
	require.NoError(t, s.Append(t.Context(), some(4, 8)))
	path := segments(t, dir)[0]
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	one := int(frameBytes(record(0)))
	b[one+20] ^= 1
	require.NoError(t, os.WriteFile(path, b, 0o644))
	blocked := filepath.Join(dir, damagedDir)
	require.NoError(t, os.WriteFile(blocked, nil, 0o644)) // a file where the folder would be
	require.Error(t, s.keep("x", nil))

	// The name exists, so it counts as a folder; to make files in it fails.
	require.Equal(t, []int{0, 2, 3, 4, 5, 6, 7}, drained(t, s))
	require.Equal(t, 1, s.Status().Waiting)
	require.FileExists(t, path)
	require.Error(t, s.settle())
	require.NoError(t, os.Remove(blocked))
	require.NoError(t, s.settle())
	require.NoFileExists(t, path)
	kept, err := KeptIn(dir)
	require.NoError(t, err)
	require.Equal(t, Kept{DamagedFiles: 1, DamagedBytes: int64(one)}, kept)
}

// TestUnreadableWithoutRoom: a segment that can't be read and can't be moved
// either holds nobody up.
func TestUnreadableWithoutRoom(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, func(c *Config) { c.SegmentBytes = 1000 })
	require.NoError(t, s.Append(t.Context(), some(0, 10)))
	require.NoError(t, s.Append(t.Context(), some(10, 20)))
	first := segments(t, dir)[0]
	require.NoError(t, os.Truncate(first, 5))
	blocked := filepath.Join(dir, damagedDir)
	require.NoError(t, os.WriteFile(blocked, nil, 0o644))
	for range maxReadErrors - 1 {
		_, err := s.Next(1 << 20)
		require.Error(t, err)
	}
	require.Equal(t, numbers(10, 20), drained(t, s))
	require.FileExists(t, first)
	require.NoError(t, os.Remove(blocked))
	require.NoError(t, s.settle())
	require.NoFileExists(t, first)
	require.FileExists(t, filepath.Join(dir, damagedDir, filepath.Base(first)))
	require.Zero(t, s.Status().Waiting)
}

// TestLineCutOff: a crash in the middle of a line of refused.ndjson made one
// unreadable line of that and of the next.
func TestLineCutOff(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	path := filepath.Join(dir, refusedFile)
	require.NoError(t, os.WriteFile(path, []byte(`{"key":"cut o`), 0o644))
	require.NoError(t, s.refuse(record(1), "never"))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	lines := strings.Split(string(b), "\n")
	require.Len(t, lines, 3)
	require.Contains(t, lines[1], `"value":{"n":1}`)
}

// TestFoldersAreSynced: a file that is synced in a folder that is not may be
// gone after a power failure, and what it promised with it. Of refused.ndjson,
// damaged/ and the spool's own folder nobody had synced the entry.
func TestFoldersAreSynced(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "a", "b")
	var synced []string
	s := open(t, dir, func(c *Config) {
		c.syncDir = func(path string) error { synced = append(synced, path); return syncDir(path) }
	})
	require.Equal(t, []string{base, filepath.Join(base, "a"), dir}, synced)
	synced = nil
	for range 2 {
		require.NoError(t, s.refuse(record(1), "never"))
	}
	require.Equal(t, []string{dir}, synced, "once, when the file is made")
	synced = nil
	damaged := filepath.Join(dir, damagedDir)
	require.NoError(t, s.keep("x", []byte("y")))
	require.Equal(t, []string{dir, damaged}, synced)
}

// TestTornAndDamaged: a flipped bit in the length of a segment's last record
// made its frame look like a write that was cut off, and it was cut at the next
// start, without a word, although its sender had been told that it is kept. What
// was synced is noted beside the segments: up to there it is damage, behind it a
// torn write that nobody was told of.
func TestTornAndDamaged(t *testing.T) {
	one := frameBytes(record(0))
	torn := appendRecord(nil, record(9))[:30]
	rows := map[string]struct {
		change          func(b []byte) []byte
		boot            string // of the note; "" leaves it
		want            []int
		damaged, cutOff int64
	}{
		"torn":             {func(b []byte) []byte { return append(b, torn...) }, "", []int{0, 1, 2}, 0, 30},
		"length":           {func(b []byte) []byte { b[2*one+7] ^= 1; return b }, "", []int{0, 1}, one, 0},
		"mark":             {func(b []byte) []byte { b[2*one] ^= 1; return b }, "", []int{0, 1}, one, 0},
		"length, and torn": {func(b []byte) []byte { b[2*one+6] ^= 1; return append(b, torn...) }, "", []int{0, 1}, one, 30},
		"the end is gone":  {func(b []byte) []byte { return b[:len(b)-10] }, "", []int{0, 1}, one, 0},
		// The note may be older than the last sync: nothing is cut unseen.
		"another boot": {func(b []byte) []byte { return append(b, torn...) }, "another", []int{0, 1, 2}, 30, 0},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			was := t.TempDir()
			s := open(t, was, nil)
			require.NoError(t, s.Append(t.Context(), some(0, 3)))
			path := segments(t, was)[0]
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			note, err := os.ReadFile(filepath.Join(was, syncedFile))
			require.NoError(t, err)
			if row.boot != "" {
				f, err := os.OpenFile(filepath.Join(t.TempDir(), "x"), os.O_RDWR|os.O_CREATE, 0o600)
				require.NoError(t, err)
				m := syncedMark{f, row.boot}
				require.NoError(t, m.write(1, 3*one))
				require.NoError(t, m.close())
				note, err = os.ReadFile(f.Name())
				require.NoError(t, err)
			}

			dir := t.TempDir() // as a crash leaves it
			require.NoError(t, os.WriteFile(filepath.Join(dir, filepath.Base(path)), row.change(slices.Clone(b)), 0o644))
			require.NoError(t, os.WriteFile(filepath.Join(dir, syncedFile), note, 0o644))
			s = open(t, dir, nil)
			require.Equal(t, row.want, drained(t, s))
			counts := s.Status().Counts
			require.Equal(t, row.damaged, counts.DamagedBytes)
			require.Equal(t, row.cutOff, counts.TornBytes)
			if name != "the end is gone" {
				kept, err := KeptIn(dir)
				require.NoError(t, err)
				require.Equal(t, row.damaged, kept.DamagedBytes)
			}
		})
	}
}

// TestFirstWriteCutOff: a folder's very first write, cut off, is no damage.
func TestFirstWriteCutOff(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, open(t, dir, nil).Close())
	require.NoError(t, os.WriteFile(filepath.Join(dir, segmentName(1)), appendRecord(nil, record(9))[:30], 0o644))
	s := open(t, dir, nil)
	require.Empty(t, drained(t, s))
	require.Equal(t, Counts{TornBytes: 30}, s.Status().Counts)
}
