package plan

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var config = Config{Consumers: 3, Session: 3 * time.Second, Window: 2500 * time.Millisecond}

// A seed must repeat a run: the same seed and number, the same schedule.
func TestRepeatable(t *testing.T) {
	for n := range 50 {
		require.Equal(t, Round(config, 7, n), Round(config, 7, n))
	}
	require.NotEqual(t, Round(config, 7, 1), Round(config, 7, 2))
	require.NotEqual(t, Round(config, 7, 1), Round(config, 8, 1))
}

// What a round does to one victim is undone before the next is done to it, or a
// thawed process would be killed twice and a killed one frozen.
func TestSteps(t *testing.T) {
	seen := map[Action]int{}
	victims := map[string]int{}
	long, short := 0, 0
	for n := range 2000 {
		steps := Round(config, 1, n)
		busy := map[string]time.Duration{}
		last := time.Duration(0)
		for _, s := range steps {
			require.GreaterOrEqual(t, s.At, last, "ordered")
			require.LessOrEqual(t, s.At, config.Window)
			last = s.At
			name := s.Victim
			if name == "" {
				name = s.Link.String()
			} else {
				victims[name]++
			}
			require.GreaterOrEqual(t, s.At, busy[name], "%s\n%s", name, Text(steps))
			busy[name] = s.End()
			seen[s.Action]++
			if s.Action == Freeze && s.For > config.Session {
				long++
			} else if s.Action == Freeze {
				short++
			}
		}
	}
	for _, a := range Actions() {
		require.Greater(t, seen[a], 50, a)
	}
	for _, v := range []string{Edge, Broker, Engine, Consumer(1), Consumer(2), Consumer(3)} {
		require.Greater(t, victims[v], 100, v)
	}
	require.Greater(t, long, 100)
	require.Greater(t, short, 100)
}

// Now and then a consumer's INSERT is held on its way while the consumer is
// frozen past its session, and let go before it wakes: the write of an owner
// that is none any more.
func TestZombie(t *testing.T) {
	found := 0
	for n := range 500 {
		steps := Round(config, 1, n)
		for _, stall := range steps {
			for _, freeze := range steps {
				if stall.Action == Stall && stall.Link.Server == Engine && freeze.Action == Freeze && freeze.Victim == stall.Link.Client &&
					stall.At < freeze.At && freeze.At+config.Session < stall.End() && stall.End() < freeze.End() {
					found++
				}
			}
		}
	}
	require.Greater(t, found, 50)
}
