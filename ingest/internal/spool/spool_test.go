package spool

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/ingest/internal/delivery"
)

// fakeLog is a log that acknowledges, freezes, is away or refuses.
type fakeLog struct {
	mu     sync.Mutex
	frozen chan struct{} // closed when it thaws; nil when it is well
	away   error
	refuse func(*kgo.Record) error
	got    []*kgo.Record // in the order of their acknowledgement
	asked  int           // records handed to it by posts
}

func (f *fakeLog) freeze() (thaw func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := make(chan struct{})
	f.frozen = c
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.frozen == c {
			f.frozen = nil
			close(c)
		}
	}
}

func (f *fakeLog) SendWithin(ctx context.Context, ds []*delivery.Delivery, wait time.Duration, leave <-chan struct{}) bool {
	f.mu.Lock()
	frozen, away := f.frozen, f.away
	f.asked += len(ds)
	f.mu.Unlock()
	if away != nil {
		delivery.Fail(ds, away)
		return true
	}
	if frozen != nil {
		delivery.Fail(ds, delivery.ErrNoAck)
		select {
		case <-ctx.Done():
		case <-leave:
		case <-time.After(wait):
		}
		return false
	}
	for _, d := range ds {
		d.Err, d.Status = f.write(&d.Record), delivery.Queued
	}
	return true
}

func (f *fakeLog) write(r *kgo.Record) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse != nil {
		if err := f.refuse(r); err != nil {
			return err
		}
	}
	c := *r
	c.Key, c.Value = slices.Clone(r.Key), slices.Clone(r.Value)
	f.got = append(f.got, &c)
	return nil
}

func (f *fakeLog) Deliver(records []*kgo.Record) []error {
	f.mu.Lock()
	frozen := f.frozen
	f.mu.Unlock()
	if frozen != nil {
		<-frozen
	}
	errs, failed := make([]error, len(records)), false
	for i, r := range records {
		errs[i] = f.write(r)
		failed = failed || errs[i] != nil
	}
	if !failed {
		return nil
	}
	return errs
}

func (f *fakeLog) Ready() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.away
}

func (f *fakeLog) numbers(t *testing.T) []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []int
	for _, r := range f.got {
		out = append(out, numberOf(t, r))
	}
	return out
}

// newSpool is a running spool before a log.
func newSpool(t *testing.T, change func(*Config)) (*Spool, *fakeLog) {
	t.Helper()
	cfg := DefaultConfig(t.TempDir())
	cfg.After = 20 * time.Millisecond
	if change != nil {
		change(&cfg)
	}
	store, err := Open(cfg, discard)
	require.NoError(t, err)
	log := &fakeLog{}
	s := New(cfg, store, log, discard, prometheus.NewRegistry())
	s.goUnannounced()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		log.mu.Lock()
		if log.frozen != nil {
			close(log.frozen)
			log.frozen = nil
		}
		log.mu.Unlock()
		<-done
		require.NoError(t, store.Close())
	})
	return s, log
}

func deliveries(from, to int) []*delivery.Delivery {
	var out []*delivery.Delivery
	for _, r := range some(from, to) {
		out = append(out, &delivery.Delivery{Record: *r, Err: errors.New("left from before")})
	}
	return out
}

func post(s *Spool, n int) *delivery.Delivery {
	d := deliveries(n, n+1)
	s.Send(context.Background(), d)
	return d[0]
}

func drainedAll(t *testing.T, s *Spool) {
	t.Helper()
	require.Eventually(t, func() bool { return s.store.empty() }, 20*time.Second, time.Millisecond)
}

// TestWays: where a delivery goes, and what it is told.
func TestWays(t *testing.T) {
	s, log := newSpool(t, nil)
	d := post(s, 0)
	require.NoError(t, d.Err)
	require.Equal(t, delivery.Queued, d.Status)
	require.True(t, s.store.empty())

	thaw := log.freeze()
	d = post(s, 1)
	require.NoError(t, d.Err)
	require.Equal(t, delivery.Spooled, d.Status)
	asked := log.asked
	for i := 2; i < 50; i++ { // they don't wait, each, to find the same
		d := post(s, i)
		require.NoError(t, d.Err)
		require.Equal(t, delivery.Spooled, d.Status)
	}
	require.Equal(t, asked, log.asked, "posts were handed to a log that does not acknowledge")
	thaw()
	drainedAll(t, s)
	require.Eventually(t, func() bool { _, open := s.flow.state(); return !open }, 20*time.Second, time.Millisecond)
	require.Equal(t, delivery.Queued, post(s, 50).Status)
	require.Equal(t, numbers(0, 51), log.numbers(t), "oldest first")

	log.mu.Lock()
	log.away = delivery.ErrAway
	log.mu.Unlock()
	require.Equal(t, delivery.Spooled, post(s, 51).Status)
}

// TestLeave: one wait without an acknowledgement ends all of them.
func TestLeave(t *testing.T) {
	s, log := newSpool(t, func(c *Config) { c.After = time.Hour })
	defer log.freeze()()
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			d := post(s, i)
			require.NoError(t, d.Err)
			require.Equal(t, delivery.Spooled, d.Status)
		})
	}
	require.Eventually(t, func() bool { log.mu.Lock(); defer log.mu.Unlock(); return log.asked == 10 }, 20*time.Second, time.Millisecond)
	s.flow.trip()
	wg.Wait()
}

// TestTheLogsErrors: what a delivery that the log settled with an error is told.
func TestTheLogsErrors(t *testing.T) {
	for _, r := range []struct {
		err     error
		spooled bool
	}{
		{kerr.NotEnoughReplicas, true},
		{kerr.TopicAuthorizationFailed, true},
		{delivery.ErrFull, true},
		{delivery.ErrStopped, false},
		{kerr.MessageTooLarge, false},
		{kerr.InvalidRecord, false},
	} {
		s, log := newSpool(t, nil)
		log.refuse = func(*kgo.Record) error {
			if log.asked == 1 && len(log.got) == 0 {
				log.asked++
				return r.err
			}
			return nil
		}
		d := post(s, 1)
		if r.spooled {
			require.NoError(t, d.Err)
			require.Equal(t, delivery.Spooled, d.Status)
			drainedAll(t, s)
			require.Equal(t, []int{1}, log.numbers(t))
		} else {
			require.ErrorIs(t, d.Err, r.err)
			require.True(t, s.store.empty())
		}
	}
}

// TestOrder: while an older event of a key is spooled, a later one goes behind it,
// though the log would take it; other keys don't wait.
func TestOrder(t *testing.T) {
	s, log := newSpool(t, func(c *Config) { c.DrainBytes, c.After = 1<<20, time.Minute })
	require.NoError(t, s.limit.WaitN(t.Context(), s.limit.Burst())) // the drain has to wait
	s.limit.SetLimit(0.001)
	require.NoError(t, s.store.Append(t.Context(), some(1, 2)))
	later := deliveries(1, 2)[0]
	later.Record.Value = []byte(`{"n":1001}`)
	ds := []*delivery.Delivery{deliveries(5, 6)[0], later}
	require.True(t, s.Send(t.Context(), ds))
	require.NoError(t, ds[0].Err)
	require.Equal(t, delivery.Queued, ds[0].Status)
	require.NoError(t, ds[1].Err)
	require.Equal(t, delivery.Spooled, ds[1].Status)
	left := make(chan int)
	go func() { left <- s.Finish(context.Background()) }() // the bound does not hold a farewell up
	require.Zero(t, <-left)
	require.Equal(t, []int{5, 1, 1001}, log.numbers(t))
}

// TestRefused: a record that the log refuses for good is set aside, alone, and
// blocks nobody; one that is refused because of its neighbour is not.
func TestRefused(t *testing.T) {
	s, log := newSpool(t, nil)
	thaw := log.freeze()
	post(s, 0)
	for i := 1; i < 10; i++ {
		post(s, i)
	}
	batch := 0
	log.refuse = func(r *kgo.Record) error {
		batch++
		switch numberOf(t, r) {
		case 4:
			return kerr.MessageTooLarge
		case 6:
			return kerr.InvalidRecord
		case 7:
			if batch < 12 { // its batch had 6 in it
				return kerr.InvalidRecord
			}
		}
		return nil
	}
	thaw()
	drainedAll(t, s)
	require.Subset(t, log.numbers(t), []int{0, 1, 2, 3, 5, 7, 8, 9})
	require.NotContains(t, log.numbers(t), 4)
	require.NotContains(t, log.numbers(t), 6)
	st, err := s.State()
	require.NoError(t, err)
	require.Equal(t, int64(2), st.RefusedRecords)
}

// TestFull: the answer when nothing has room says when to try again.
func TestFull(t *testing.T) {
	s, log := newSpool(t, func(c *Config) { c.Bytes, c.SegmentBytes = MinBytes, 1<<20 })
	thaw := log.freeze()
	big := func() *delivery.Delivery {
		d := deliveries(1, 2)[0]
		d.Record.Value = append([]byte(`{"n":1}`), make([]byte, 900_000)...)
		s.Send(context.Background(), []*delivery.Delivery{d})
		return d
	}
	var d *delivery.Delivery
	for d = big(); d.Err == nil; d = big() {
	}
	require.ErrorIs(t, d.Err, delivery.ErrSpoolFull)
	var later *delivery.LaterError
	require.ErrorAs(t, d.Err, &later)
	require.GreaterOrEqual(t, later.After, time.Second)
	require.LessOrEqual(t, later.After, 5*time.Minute)
	thaw()
	drainedAll(t, s)
	require.NoError(t, big().Err)
}

// TestRetryAfter: by the rate of the drain; by how long nothing drained when
// nothing does.
func TestRetryAfter(t *testing.T) {
	s, _ := newSpool(t, nil)
	require.Equal(t, time.Second, s.RetryAfter())
	s.lastAck.Store(int64(time.Since(s.begun) - 40*time.Second))
	require.InDelta(t, 40, s.RetryAfter().Seconds(), 5)
	s.lastAck.Store(int64(time.Since(s.begun) - time.Hour))
	require.Equal(t, 5*time.Minute, s.RetryAfter())
	now := time.Now()
	for i := range 100 { // 1,000 bytes a second
		s.speed.add(now.Add(time.Duration(i-100)*time.Second), 1000)
	}
	s.store.mu.Lock()
	s.store.segments = []*segment{{number: 1, end: 60_000}}
	s.store.at = position{segment: 1}
	s.store.mu.Unlock()
	require.InDelta(t, 60, s.RetryAfter().Seconds(), 15)
	s.store.mu.Lock()
	s.store.segments = nil
	s.store.mu.Unlock()
}

// TestLowWater: it never passes what is not in the log, never falls, and what
// comes later is received later.
func TestLowWater(t *testing.T) {
	s, log := newSpool(t, nil)
	begin := time.Now()
	low := s.LowWater()
	require.WithinDuration(t, begin, low, time.Minute)

	thaw := log.freeze()
	at := time.Now()
	d := deliveries(1, 2)
	d[0].Record.Timestamp = at
	s.Send(t.Context(), d)
	require.Equal(t, delivery.Spooled, d[0].Status)
	for range 3 {
		got := s.LowWater()
		require.False(t, got.After(at), "the promise covers what is spooled")
		require.False(t, got.Before(low), "it fell")
		low = got
	}
	thaw()
	drainedAll(t, s)
	require.Eventually(t, func() bool { return s.LowWater().After(at) }, 20*time.Second, time.Millisecond)

	promised := s.LowWater()
	late := deliveries(2, 3)
	late[0].Record.Timestamp = promised.Add(-time.Hour) // its body took that long
	s.Send(t.Context(), late)
	require.False(t, late[0].Record.Timestamp.Before(promised))

	hold := s.water.enter(late)
	require.False(t, s.LowWater().After(late[0].Record.Timestamp), "the promise covers what is on its way")
	s.water.leave(hold)
}
