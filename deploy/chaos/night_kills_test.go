//go:build night

package main

import (
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/deploy/chaos/internal/load"
	"sluice/deploy/chaos/internal/plan"
	"sluice/deploy/demo/sample"
	"sluice/schemas/topic"
)

// All of the real events are posted twice while every two seconds one of VICTIMS
// (by default the edge, the three consumers, the broker and the engine) is killed.
// What the log says is what is stored, to the last record.
func TestANightOfKills(t *testing.T) {
	s := newStack(t, func(c *config) { c.batch, c.quiet = 2000, 5*time.Minute })
	victims := strings.Fields(os.Getenv("VICTIMS"))
	if len(victims) == 0 {
		victims = []string{plan.Edge, plan.Consumer(1), plan.Consumer(2), plan.Consumer(3), plan.Broker, plan.Engine}
	}
	var w load.Work
	events, err := sample.Events(os.Getenv("EVENTS"))
	require.NoError(t, err)
	for range 2 {
		for batch := range slices.Chunk(events, 1000) {
			w.Posts = append(w.Posts, load.Post{At: time.Duration(len(w.Posts)) * 300 * time.Millisecond, Batch: true, Events: batch})
		}
	}
	sender := load.Sender{
		Edge: "http://" + s.proxies[plan.Edge].Addr(), Patience: 30 * time.Second, Giveup: 30 * time.Minute,
		Producer: s.producer, Topic: topic.Events, Workers: 4,
	}
	sent := make(chan load.Result, 1)
	go func() { sent <- sender.Send(t.Context(), w) }()
	killed := map[string]int{}
	var result load.Result
	for posting := true; posting; {
		select {
		case result = <-sent:
			posting = false
		case <-time.After(2 * time.Second):
			name := victims[rand.IntN(len(victims))]
			p := s.processes[name]
			require.NotNil(t, p, "VICTIMS: %s is none of %v", name, s.order)
			p.Kill()
			time.Sleep(200 * time.Millisecond)
			require.NoError(t, p.Start())
			killed[name]++
			if name == plan.Broker { // without it nothing moves, and nothing is shown by killing the others
				s.eventually(t, "the broker is back", func() error { return s.log.Ping(t.Context()) })
			}
		}
	}
	t.Logf("%d events posted twice, %d requests tried again; killed: %v", len(events), result.Retries, killed)
	require.Empty(t, result.Faults)
	require.Zero(t, result.Unanswered)
	require.NotEmpty(t, killed)
	require.NoError(t, s.rest(t.Context()))
	var o outcome
	require.NoError(t, s.judge(t.Context(), &o, &promises{edge: result.Promises}))
	require.Empty(t, o.differences)
	t.Logf("%d records, %v", o.records, o.counts)
}
