package admission

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is an edge and a log in a bubble's time: each post of so many bytes takes
// the log delay, and the one server before it bytes/rate, one after the other.
type world struct {
	t     *testing.T
	l     *Limiter
	bytes int64
	rate  float64 // bytes a second; 0: no end
	delay time.Duration

	mu    sync.Mutex
	free  time.Time     // when the server has done all that it has
	stood chan struct{} // while it is not closed, the log answers no one; nil: it does
	wg    sync.WaitGroup
	took  []time.Duration
	done  time.Time
	sheds int
}

// inWorld runs do beside a limiter that measures.
func inWorld(t *testing.T, bytes int64, rate float64, delay time.Duration, do func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w := &world{t: t, l: NewLimiter(DefaultConfig(), prometheus.NewRegistry()), bytes: bytes, rate: rate, delay: delay}
		w.wg.Go(func() { w.l.Run(ctx) })
		do(w)
		cancel()
		w.wg.Wait()
		require.Zero(t, w.l.inside.Load())
	})
}

// offer posts so many a second for lasting, and forgets what came before.
func (w *world) offer(perSecond int, lasting time.Duration) {
	w.mu.Lock()
	w.took, w.sheds = nil, 0
	w.mu.Unlock()
	var wg sync.WaitGroup
	begin := time.Now()
	for n := 0; ; n++ {
		due := time.Duration(n) * time.Second / time.Duration(perSecond)
		if due >= lasting {
			break
		}
		time.Sleep(time.Until(begin.Add(due)))
		if w.l.Full() {
			w.sheds++
			continue
		}
		wg.Go(w.post)
	}
	wg.Wait()
	w.done = time.Now()
}

func (w *world) post() {
	begin := time.Now()
	ticket := w.l.Enter(w.bytes)
	bytes := ticket.bytes
	w.mu.Lock()
	if w.free.Before(begin) {
		w.free = begin
	}
	if w.rate > 0 {
		w.free = w.free.Add(time.Duration(float64(bytes) / w.rate * float64(time.Second)))
	}
	end, stood := w.free.Add(w.delay), w.stood
	w.mu.Unlock()
	time.Sleep(time.Until(end))
	if stood != nil {
		<-stood
	}
	w.l.Leave(&ticket, true)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.took = append(w.took, time.Since(begin))
}

func (w *world) p95() time.Duration {
	slices.Sort(w.took)
	return w.took[len(w.took)*95/100]
}

// TestGoodputStaysUnderOverload: whatever more is offered, as much is got through
// as can be, and those let in do not feel it. Without a limiter ten times the
// capacity made every post wait until it timed out.
func TestGoodputStaysUnderOverload(t *testing.T) {
	for name, bytes := range map[string]int64{"single posts": 300, "batches": 60 << 10, "large batches": 200 << 10} {
		t.Run(name, func(t *testing.T) {
			const rate = 50e6
			capacity := int(rate / float64(bytes+requestBytes))
			inWorld(t, bytes, rate, 3*time.Millisecond, func(w *world) {
				for _, tenths := range []int{5, 9, 10, 20, 100} {
					const lasting = 2 * time.Second
					w.offer(capacity*tenths/10, lasting)
					if tenths < 10 {
						require.Zero(t, w.sheds, "%d tenths of the capacity", tenths)
						continue
					}
					most := float64(capacity) * lasting.Seconds()
					require.Greater(t, float64(len(w.took)), 0.8*most, "%d tenths of the capacity", tenths)
					require.Less(t, w.p95(), 50*time.Millisecond, "%d tenths of the capacity", tenths)
				}
			})
		})
	}
}

// TestSlowLogIsNotOverload: a log that takes long for each, but takes all, is no
// reason to refuse anyone, however suddenly it becomes so.
func TestSlowLogIsNotOverload(t *testing.T) {
	inWorld(t, 300, 0, 3*time.Millisecond, func(w *world) {
		w.offer(5000, 10*time.Second)
		require.Zero(t, w.sheds)
		w.delay = 200 * time.Millisecond
		w.offer(1000, 10*time.Second)
		require.Zero(t, w.sheds)
		// Faster than what is let in unmeasured: it takes a moment to be understood.
		w.offer(8_000, 6*time.Second)
		w.offer(8_000, 6*time.Second)
		require.Zero(t, w.sheds)
	})
}

// TestFrozenLogIsNotOverload: posts that wait for a log that answers no one go to
// the spool after a quarter of a second; until then none may be refused.
func TestFrozenLogIsNotOverload(t *testing.T) {
	inWorld(t, 300, 0, 3*time.Millisecond, func(w *world) {
		w.offer(1000, 10*time.Second)
		stood := make(chan struct{})
		w.stood = stood
		time.AfterFunc(250*time.Millisecond, func() { close(stood) })
		w.offer(1000, 250*time.Millisecond)
		require.Zero(t, w.sheds)
		require.Len(t, w.took, 250)
	})
}

// TestIdleEdgeTakesABurst: what comes at once to an edge that has nothing to do is
// taken.
func TestIdleEdgeTakesABurst(t *testing.T) {
	inWorld(t, 300, 50e6, 3*time.Millisecond, func(w *world) {
		for range 300 {
			require.False(t, w.l.Full())
			w.wg.Go(w.post)
		}
		time.Sleep(time.Minute)
		for range 300 {
			require.False(t, w.l.Full())
			w.wg.Go(w.post)
		}
		time.Sleep(time.Second)
	})
}

// TestLargeBatchDoesNotKeepOthersOut: it counts for part of the bound, whatever
// its size.
func TestLargeBatchDoesNotKeepOthersOut(t *testing.T) {
	l := NewLimiter(DefaultConfig(), nil)
	l.Enter(64 << 20)
	l.Enter(64 << 20)
	require.False(t, l.Full())
	require.LessOrEqual(t, 4*int64(mostBytes), int64(leastBytes))
}

// TestOnlyWhatWasTakenTellsTheTime: a repeat is answered from memory; by its time
// every other would be late.
func TestOnlyWhatWasTakenTellsTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(DefaultConfig(), nil)
		ticket := l.Enter(100)
		l.Leave(&ticket, false)
		l.step(window)
		require.EqualValues(t, firstBase, l.base.Load())
		ticket = l.Enter(100)
		time.Sleep(time.Millisecond)
		l.Leave(&ticket, true)
		l.Leave(&ticket, true)
		require.Zero(t, l.inside.Load())
		l.step(window)
		require.EqualValues(t, time.Millisecond, l.base.Load())
	})
}

func TestOff(t *testing.T) {
	var none *Limiter
	ticket := none.Enter(1)
	none.Leave(&ticket, true)
	require.False(t, none.Full())
	l := NewLimiter(Config{}, nil)
	for range 10_000 {
		l.Enter(1 << 20)
	}
	require.False(t, l.Full())
	require.Error(t, Config{Slack: -1}.Validate())
}

func TestGiveBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		used, freed := int64(0), 0
		set := func(n int64) { mu.Lock(); used = n; mu.Unlock() }
		count := func() int { mu.Lock(); defer mu.Unlock(); return freed }
		done := make(chan struct{})
		go func() {
			defer close(done)
			giveBack(ctx, func() int64 { mu.Lock(); defer mu.Unlock(); return used }, func() { mu.Lock(); freed++; mu.Unlock() })
		}()
		set(muchBytes - 1)
		time.Sleep(10 * time.Second)
		set(0)
		time.Sleep(time.Minute)
		require.Zero(t, count(), "too little to care for")
		set(4 * muchBytes)
		time.Sleep(time.Minute)
		require.Zero(t, count(), "in use")
		set(0)
		time.Sleep(5 * time.Second)
		require.Zero(t, count(), "it may come back")
		time.Sleep(time.Minute)
		require.Equal(t, 1, count(), "once")
		cancel()
		<-done
	})
}
