package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// What waits while an INSERT is under way shares the next; who is lost meanwhile
// writes nothing; an error is everyone's who shared it, and no one else's.
func TestTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTogether()
		var mu sync.Mutex
		var inserts [][]string
		failing := errors.New("no")
		write := func(_ context.Context, all []*journaling) error {
			time.Sleep(time.Second)
			mu.Lock()
			defer mu.Unlock()
			var names []string
			for _, j := range all {
				names = append(names, j.token)
			}
			inserts = append(inserts, names)
			if len(inserts) == 2 {
				return failing
			}
			return nil
		}
		lost, lose := context.WithCancel(t.Context())
		errs := map[string]error{}
		var wg sync.WaitGroup
		send := func(ctx context.Context, name string) {
			wg.Go(func() {
				err := x.do(&journaling{ctx: ctx, token: name}, write)
				mu.Lock()
				defer mu.Unlock()
				errs[name] = err
			})
			synctest.Wait()
		}
		send(t.Context(), "a")
		for i := range 3 {
			send(t.Context(), fmt.Sprint("b", i))
		}
		send(lost, "lost")
		lose()
		time.Sleep(1500 * time.Millisecond)
		send(t.Context(), "c")
		wg.Wait()
		require.Equal(t, [][]string{{"a"}, {"b0", "b1", "b2"}, {"c"}}, inserts)
		require.NoError(t, errs["a"])
		require.NoError(t, errs["c"])
		require.ErrorIs(t, errs["b1"], failing)
		require.ErrorIs(t, errs["lost"], context.Canceled)
	})
}

// The INSERT goes on for as long as anyone it is for is there.
func TestWhileAny(t *testing.T) {
	one, endOne := context.WithCancel(t.Context())
	two, endTwo := context.WithCancel(t.Context())
	ctx, cancel := whileAny([]*journaling{{ctx: one}, {ctx: two}})
	endOne()
	require.NoError(t, ctx.Err())
	endTwo()
	<-ctx.Done()
	cancel()
	three, endThree := context.WithCancel(t.Context())
	defer endThree()
	ctx, cancel = whileAny([]*journaling{{ctx: three}})
	require.NoError(t, ctx.Err())
	cancel()
	require.Error(t, ctx.Err())
}
