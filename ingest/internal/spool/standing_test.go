package spool

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/ingest/internal/delivery"
	"sluice/ingest/internal/logtest"
	"sluice/schemas/topic"
)

// control is the control topic: what was told, and how it answers.
type control struct {
	mu     sync.Mutex
	err    error    // of telling
	lost   int      // so many answers to what is told are lost
	unread error    // of reading
	values [][]byte // of one key; nil is a tombstone
}

func (c *control) Tell(_ context.Context, key, value []byte) (int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	if _, _, err := topic.ParseWatermark(key, value); err != nil {
		return 0, err
	}
	c.values = append(c.values, value)
	if c.lost > 0 {
		c.lost--
		return 0, errors.New("the answer was lost")
	}
	return int64(len(c.values) - 1), nil
}

func (c *control) History(_ context.Context, _ []byte, end int64, each func([]byte)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unread != nil {
		return c.unread
	}
	for _, v := range c.values[:end] {
		each(v)
	}
	return nil
}

// put writes a record in the edge's place.
func (c *control) put(value []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.values = append(c.values, value)
}

func (c *control) answer(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

func (c *control) all() (told []topic.Watermark) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, v := range c.values {
		var w topic.Watermark
		if json.Unmarshal(v, &w) == nil {
			told = append(told, w)
		}
	}
	return told
}

// startAnnouncing runs an edge's spool in dir as the edge does; stop ends it in
// order, retiring it if retire is set.
func startAnnouncing(t *testing.T, dir string, c *control) (s *Spool, log *fakeLog, stop func(retire bool)) {
	t.Helper()
	cfg := DefaultConfig(dir)
	store, err := Open(cfg, discard)
	require.NoError(t, err)
	log = &fakeLog{}
	s = New(cfg, store, log, discard, prometheus.NewRegistry())
	h := NewHerald(s, c, logtest.New(io.Discard))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	telling, silence := context.WithCancel(ctx)
	var told sync.WaitGroup
	told.Go(func() { h.Run(telling) })
	return s, log, func(retire bool) {
		silence()
		told.Wait()
		if retire {
			require.NoError(t, h.Retire(context.Background()))
		}
		cancel()
		running.Wait()
		require.NoError(t, store.Close())
	}
}

func announced(t *testing.T, s *Spool) {
	t.Helper()
	require.Eventually(t, s.Announced, 20*time.Second, time.Millisecond)
}

// received posts one event received at that moment.
func received(s *Spool, n int, at time.Time) *delivery.Delivery {
	d := deliveries(n, n+1)[0]
	d.Record.Timestamp = at
	s.Send(context.Background(), []*delivery.Delivery{d})
	return d
}

// TestAnnounced: an edge took events before any watermark of it stood in the
// control topic. Who computes up to when the data is whole knew only of the other
// edges, and could say that it is whole up to a moment after the receipt of an
// event that was still on its way, or on this edge's disk. So nothing goes to the
// log before the first watermark is acknowledged, and what was accepted earlier
// counts as received then; but the edge starts, and accepts, without the log.
func TestAnnounced(t *testing.T) {
	c := &control{err: errors.New("no answer")}
	s, log, stop := startAnnouncing(t, t.TempDir(), c)
	defer func() { stop(false) }()
	early := received(s, 1, time.Now())
	require.NoError(t, early.Err)
	require.Equal(t, delivery.Spooled, early.Status)
	require.NoError(t, s.Ready())
	require.Empty(t, log.numbers(t))

	before := time.Now()
	c.answer(nil)
	announced(t, s)
	drainedAll(t, s)
	log.mu.Lock()
	require.Len(t, log.got, 1)
	require.False(t, log.got[0].Timestamp.Before(before), "a reader may have gone past %v", log.got[0].Timestamp)
	log.mu.Unlock()
	// What was on its way when it was announced, its body read before, too.
	d := received(s, 2, before.Add(-time.Second))
	require.Equal(t, delivery.Queued, d.Status)
	require.False(t, d.Record.Timestamp.Before(before))
	for _, w := range c.all() {
		require.False(t, w.Retired)
	}
}

// TestStands: a watermark that stands holds its readers back across a crash, so
// times stand as they are once the edge has seen that it does. One that has retired
// holds nobody, and nor does one of another name.
func TestStands(t *testing.T) {
	dir := t.TempDir()
	c := &control{}
	s, _, stop := startAnnouncing(t, dir, c)
	announced(t, s)
	told := s.LowWater()
	stop(false)

	c.answer(errors.New("no answer"))
	s, log, stop := startAnnouncing(t, dir, c)
	at := time.Now().Add(time.Millisecond)
	d := received(s, 1, at)
	require.Equal(t, delivery.Spooled, d.Status)
	c.answer(nil)
	announced(t, s)
	drainedAll(t, s)
	log.mu.Lock()
	require.True(t, log.got[0].Timestamp.Equal(at))
	log.mu.Unlock()
	// The clock set back between the two: what was promised stands.
	d = received(s, 2, told.Add(-time.Hour))
	require.False(t, d.Record.Timestamp.Before(c.all()[0].LowWater), "received before what was promised")
	require.Equal(t, []int{1, 2}, log.numbers(t))
	stop(true)
	all := c.all()
	require.True(t, all[len(all)-1].Retired)

	c.answer(errors.New("no answer"))
	s, _, stop = startAnnouncing(t, dir, c)
	require.False(t, s.Announced(), "nobody waits for an edge that has retired")
	stop(false)
	n, err := openStanding(dir, "another name")
	require.NoError(t, err)
	require.NoError(t, n.set(func(is *standing) { is.stands = true }, true))
	require.NoError(t, n.close())
	s, _, stop = startAnnouncing(t, dir, c)
	require.False(t, s.Announced())
	stop(false)
	require.FileExists(t, filepath.Join(dir, standingFile))
}

// TestAnnouncedAfterACrash: what was accepted while no watermark stood counts as
// received at the announcement, also when another start brings it to the log.
func TestAnnouncedAfterACrash(t *testing.T) {
	dir := t.TempDir()
	c := &control{err: errors.New("no answer")}
	s, _, stop := startAnnouncing(t, dir, c)
	require.Equal(t, delivery.Spooled, received(s, 1, time.Now()).Status)
	before := time.Now()
	require.NoError(t, s.store.standing.set(func(is *standing) { is.stands, is.from = true, before.UnixNano() }, true))
	stop(false)
	stands(t, s, c)
	c.answer(nil)
	s, log, stop := startAnnouncing(t, dir, c)
	defer func() { stop(false) }()
	require.False(t, s.LowWater().Before(before.Truncate(time.Millisecond)), "what counts as received then holds nobody back")
	drainedAll(t, s)
	log.mu.Lock()
	defer log.mu.Unlock()
	require.True(t, log.got[0].Timestamp.Equal(before))
}

// TestControlRefused: a log that refuses the watermarks (the topic is missing, or
// may not be written to) must not hold the events up for good.
func TestControlRefused(t *testing.T) {
	c := &control{err: kerr.TopicAuthorizationFailed}
	s, log, stop := startAnnouncing(t, t.TempDir(), c)
	defer func() { stop(false) }()
	announced(t, s)
	require.Equal(t, delivery.Queued, received(s, 1, time.Now()).Status)
	require.Equal(t, []int{1}, log.numbers(t))
	require.False(t, s.store.standing.get().stands)
}

// stands puts a watermark of s's edge into the control topic, as another start of it
// told it.
func stands(t *testing.T, s *Spool, c *control) {
	t.Helper()
	_, value, err := topic.Watermark{Edge: s.store.Edge(), Instance: "before", At: time.Now()}.Record()
	require.NoError(t, err)
	c.put(value)
}

// TestRetiredInItsAbsence: an operator gave up an edge that was down, with events on
// its disk, and complete_through went past them. Then the edge came back, with a note
// that its watermark stands, and for a second it brought events to the log that had
// been received before what the readers had been told is whole. Now it looks: when
// nobody has been waiting for it, all that it has counts as received once its new
// watermark stands. A crash on the way there changes nothing of that.
func TestRetiredInItsAbsence(t *testing.T) {
	retired := func(t *testing.T, w topic.Watermark) []byte {
		w.Retired = true
		_, value, err := w.Record()
		require.NoError(t, err)
		return value
	}
	for name, c := range map[string]struct {
		before func(t *testing.T, c *control, last topic.Watermark)
		moved  bool // what is on the disk counts as received later
	}{
		"nothing happened":      {func(*testing.T, *control, topic.Watermark) {}, false},
		"retired":               {func(t *testing.T, c *control, w topic.Watermark) { c.put(retired(t, w)) }, true},
		"a tombstone":           {func(_ *testing.T, c *control, _ topic.Watermark) { c.put(nil) }, true},
		"the topic made anew":   {func(_ *testing.T, c *control, _ topic.Watermark) { c.values = nil }, true},
		"it cannot be read":     {func(_ *testing.T, c *control, _ topic.Watermark) { c.unread = kerr.TopicAuthorizationFailed }, true},
		"an answer is lost":     {func(_ *testing.T, c *control, _ topic.Watermark) { c.lost = 1 }, false},
		"retired, then a crash": {func(t *testing.T, c *control, w topic.Watermark) { c.put(retired(t, w)); c.lost = 1 << 30 }, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			told := &control{}
			s, log, stop := startAnnouncing(t, dir, told)
			announced(t, s)
			log.mu.Lock()
			log.refuse = func(*kgo.Record) error { return delivery.ErrAway }
			log.mu.Unlock()
			d := received(s, 1, time.Now())
			require.Equal(t, delivery.Spooled, d.Status)
			at := d.Record.Timestamp // later than it was sent, if more was promised meanwhile
			stop(false)

			all := told.all()
			c.before(t, told, all[len(all)-1])
			if told.lost > 1 {
				n := len(told.all())
				_, _, stop := startAnnouncing(t, dir, told)
				require.Eventually(t, func() bool { return len(told.all()) > n }, 20*time.Second, time.Millisecond)
				stop(false)
				told.lost = 0
			}
			back := time.Now()
			s, log, stop = startAnnouncing(t, dir, told)
			defer func() { stop(false) }()
			// It has told its low mark, with what is on its disk, before anything else.
			announced(t, s)
			all = told.all()
			require.Equal(t, 1, all[len(all)-1].Spooled)
			require.False(t, all[len(all)-1].LowWater.After(at))
			drainedAll(t, s)
			log.mu.Lock()
			defer log.mu.Unlock()
			if c.moved {
				require.False(t, log.got[0].Timestamp.Before(back), "a reader may have gone past %v", at)
			} else {
				require.True(t, log.got[0].Timestamp.Equal(at))
			}
		})
	}
}
