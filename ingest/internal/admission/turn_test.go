package admission

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestRefusalsWaitTheirTurn: a thousand clients that ask again as soon as they are
// refused had as many refusals made as the machine could make, and half of what was
// got through before. However often they ask, no more are made than the part that
// refusals have; a few are answered at once.
func TestRefusalsWaitTheirTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(DefaultConfig(), nil)
		l.turns.free = 0
		l.rate.Store(100 << 20)
		const perSecond = refusalsPart * (100 << 20) / refusalBytes // 8,192
		for range 60 {
			require.Zero(t, l.Turn(300), "these are few")
			time.Sleep(time.Millisecond)
		}
		clients := func(n int, bytes int64, lasting time.Duration) (refused int, longest time.Duration) {
			var mu sync.Mutex
			var wg sync.WaitGroup
			end := time.Now().Add(lasting)
			for range n {
				wg.Go(func() {
					for time.Now().Before(end) {
						wait := l.Turn(bytes)
						time.Sleep(max(wait, time.Millisecond))
						mu.Lock()
						refused++
						longest = max(longest, wait)
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			return refused, longest
		}
		refused, longest := clients(1000, 0, 2*time.Second)
		require.InEpsilon(t, 2*perSecond, refused, 0.1)
		require.Less(t, longest, 150*time.Millisecond)
		refused, _ = clients(100, 60<<10, 2*time.Second)
		require.InEpsilon(t, 2*perSecond*refusalBytes/(refusalBytes+(60<<10)/refusalBodyPart), refused, 0.15)
		// No one waits longer than that, however many there are.
		_, longest = clients(1000, 1<<20, 3*time.Second)
		require.Equal(t, turnMost, longest)

		// What is got through may be next to nothing because the log is slow: then
		// there is time for refusals.
		time.Sleep(time.Second)
		l.rate.Store(0)
		l.turns = newTurns()
		for range 20 {
			require.Zero(t, l.Turn(300))
			time.Sleep(time.Millisecond)
		}
		require.Zero(t, (*Limiter)(nil).Turn(1))
	})
}
