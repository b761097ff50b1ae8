//go:build night

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"sluice/deploy/chaos/internal/load"
	"sluice/deploy/chaos/internal/plan"
	"sluice/schemas/event"
)

// crowd posts events at a steady rate, whatever the answers take, and tries each
// again until it is taken.
type crowd struct {
	url    string
	client *http.Client

	mu       sync.Mutex
	taken    map[string][]load.Promise // by key, in the order of the answers
	answers  []answered
	statuses map[string]int
}

// answered is when a post was due and how long after that it was taken.
type answered struct {
	due  time.Time
	took time.Duration
}

// post posts one event that was due at a moment, until it is taken.
func (c *crowd) post(ctx context.Context, e event.Event, due time.Time) {
	for ctx.Err() == nil {
		a, err := post(ctx, c.client, c.url, &e)
		c.mu.Lock()
		if err == nil {
			c.statuses[a.status]++
			c.answers = append(c.answers, answered{due, time.Since(due)})
			c.taken[a.Key] = append(c.taken[a.Key], a.Promise)
			c.mu.Unlock()
			return
		}
		c.statuses["no 202"]++
		c.mu.Unlock()
		pause(ctx, 50*time.Millisecond)
	}
}

// has tells whether an event with this key was taken.
func (c *crowd) has(key string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.taken[key]) > 0
}

// run posts rate events a second for a time. Every twentieth contradicts an
// event that was taken about a second before.
func (c *crowd) run(ctx context.Context, rate int, lasting time.Duration) {
	begun := time.Now()
	make := func(n int, payload string) event.Event {
		return event.Event{
			Source: "frozen", EventType: fmt.Sprint("t", n%7), ActorID: fmt.Sprint("a", n%500),
			OccurredAt: begun.Add(time.Duration(n) * time.Microsecond).UTC(), Payload: fmt.Appendf(nil, `{"n":%d,"said":%q}`, n, payload),
		}
	}
	var posts sync.WaitGroup
	for n := 0; ; n++ {
		at := time.Duration(n) * time.Second / time.Duration(rate)
		if at > lasting || !pause(ctx, at-time.Since(begun)) {
			break
		}
		due := begun.Add(at)
		posts.Go(func() { c.post(ctx, make(n, "first"), due) })
		if n%20 == 0 && n > rate {
			if e := make(n-rate, "second"); c.has(e.Key()) {
				posts.Go(func() { c.post(ctx, e, due) })
			}
		}
	}
	posts.Wait()
}

// quantiles tells how long answers took of those posts that were due in a time.
func (c *crowd) quantiles(from, to time.Time) string {
	var all []time.Duration
	for _, a := range c.answers {
		if a.due.After(from) && a.due.Before(to) {
			all = append(all, a.took)
		}
	}
	if len(all) == 0 {
		return "none"
	}
	slices.Sort(all)
	at := func(q float64) time.Duration { return all[int(q*float64(len(all)-1))].Round(10 * time.Microsecond) }
	return fmt.Sprintf("%d posts: P50 %s, P95 %s, P99 %s, most %s", len(all), at(.5), at(.95), at(.99), at(1))
}

// number is a number of the environment, or else a default.
func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, name)
	return n
}

// duration is a duration of the environment, or else a default.
func duration(t *testing.T, name string, otherwise time.Duration) time.Duration {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	d, err := time.ParseDuration(text)
	require.NoError(t, err, name)
	return d
}

// The broker is frozen for TIME (a minute, if it is not given) under 300 posts a
// second to an edge that, in the second half of it, is killed KILLS times. Every
// post is taken, all that was taken is a row, and of each key the row has the
// payload that was taken first.
func TestANightWithTheBrokerFrozen(t *testing.T) {
	frozen, kills := duration(t, "TIME", time.Minute), number(t, "KILLS", 5)
	s := newStack(t, func(c *config) { c.batch, c.quiet = 5000, 5*time.Minute })
	const name = "edge-b"
	edge, url := s.secondEdge(t, name)
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 256}}
	defer client.CloseIdleConnections()
	c := &crowd{url: url, client: client, taken: map[string][]load.Promise{}, statuses: map[string]int{}}
	const before, after = 5 * time.Second, 10 * time.Second
	var posting sync.WaitGroup
	posting.Go(func() { c.run(t.Context(), 300, before+frozen+after) })

	time.Sleep(before)
	broker := s.processes[plan.Broker]
	broker.Freeze()
	froze := time.Now()
	time.Sleep(frozen / 2)
	killing := time.Now()
	for range kills {
		edge.Kill()
		require.NoError(t, edge.Start())
		time.Sleep(frozen / 2 / time.Duration(kills+1))
	}
	time.Sleep(time.Until(froze.Add(frozen)))
	waiting := s.spooled(t, name)
	broker.Thaw()
	thawed := time.Now()
	posting.Wait()
	s.eventually(t, "the spool is empty", func() error {
		if n := s.spooled(t, name); n > 0 {
			return fmt.Errorf("%d records wait in it", n)
		}
		return nil
	})
	t.Logf("answers: %v; %d records waited on the disk when the broker came back, %s later none did", c.statuses, waiting, time.Since(thawed).Round(time.Second))
	t.Logf("frozen, before the first kill: %s", c.quantiles(froze, killing))
	t.Logf("frozen, all of it: %s", c.quantiles(froze, thawed))
	const spans = 10 // in which one sees whether it grows worse, or was something else's doing
	for i := range spans {
		from := froze.Add(frozen * time.Duration(i) / spans)
		t.Logf("  from %s on: %s", from.Sub(froze), c.quantiles(from, from.Add(frozen/spans)))
	}
	require.Positive(t, c.statuses["spooled"])

	done := &promises{}
	second := 0
	for _, all := range c.taken {
		done.edge = append(done.edge, all...)
		second += len(all) - 1
	}
	require.Positive(t, second)
	require.NoError(t, s.rest(t.Context()))
	var o outcome
	require.NoError(t, s.judge(t.Context(), &o, done))
	require.Empty(t, o.differences)
	id, partitions, err := s.log.Topic(t.Context())
	require.NoError(t, err)
	stored, err := s.tables.Stored(t.Context(), id, partitions)
	require.NoError(t, err)
	require.Len(t, stored.Rows, len(c.taken))
	for _, r := range stored.Rows {
		require.Equal(t, c.taken[r.Key][0].Hash, r.Hash, "%s: its row is not what was taken first", r.Key)
	}
	t.Logf("%d records, %v; %d keys of which two payloads were taken: the row has the first", o.records, o.counts, second)
}

// A thousand posts that ask to be told when they are stored: what is answered
// "stored" can be queried at that instant.
func TestANightOfAnswersWaitedFor(t *testing.T) {
	s := newStack(t)
	_, url := s.secondEdge(t, "edge-b")
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	answers := map[string]int{}
	var took []time.Duration
	for n := range 1000 {
		e := event.Event{Source: "waited", EventType: "t", ActorID: fmt.Sprint("a", n), OccurredAt: time.Now().UTC(), Payload: fmt.Appendf(nil, `{"n":%d}`, n)}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/api/events", bytes.NewReader(e.AppendJSON(nil)))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Prefer", "wait=2")
		begun := time.Now()
		resp, err := client.Do(req)
		require.NoError(t, err)
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		took = append(took, time.Since(begun))
		var answer struct {
			ID     uuid.UUID `json:"event_id"`
			Status string    `json:"status"`
		}
		require.NoError(t, json.Unmarshal(text, &answer), "%s", text)
		require.Equal(t, e.ID(), answer.ID)
		require.Equal(t, "wait=2", resp.Header.Get("Preference-Applied"))
		answers[answer.Status]++
		if answer.Status != "stored" {
			continue
		}
		require.Equal(t, http.StatusOK, resp.StatusCode)
		var rows uint64
		require.NoError(t, s.tables.Row(t.Context(), fmt.Sprintf("SELECT count() FROM events WHERE event_id = '%s'", e.ID()), &rows))
		require.EqualValues(t, 1, rows, "answered stored, and not to be queried: %s", e.Key())
	}
	require.Positive(t, answers["stored"])
	slices.Sort(took)
	t.Logf("%v; P50 %s, P99 %s", answers, took[500], took[990])
}
