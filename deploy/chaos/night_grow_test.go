//go:build night

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/deploy/chaos/internal/plan"
	"sluice/schemas/event"
	"sluice/schemas/topic"
)

// command is one of the consumer's commands that can be killed on its way.
func (s *stack) command(t *testing.T, out *lines, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(s.dir, "bin", "consumer"), args...)
	cmd.Env = append(os.Environ(), s.consumerEnv(s.engine, observer)...)
	cmd.Stdout, cmd.Stderr = out, out
	require.NoError(t, cmd.Start())
	return cmd
}

// lines is what a command has printed so far.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// crossing are producers past the edge: one that knows how many partitions there
// are and one that never hears of more than six. Both repeat what was sent before.
type crossing struct {
	s      *stack
	client *kgo.Client
	wrote  int
}

func (c *crossing) run(ctx context.Context, t *testing.T) {
	for n := 0; ctx.Err() == nil; n++ {
		_, count, err := c.s.log.Topic(t.Context())
		if err != nil {
			continue
		}
		var records []*kgo.Record
		for _, partitions := range []int32{6, count} {
			for _, k := range []int{n, n / 2, n / 7} { // a new one, and repeats from long before
				e := event.Event{Source: "past", EventType: "t", ActorID: fmt.Sprint("p-", k), OccurredAt: time.Date(2026, 1, 2, 3, 4, 5, k, time.UTC), Payload: fmt.Appendf(nil, `{"k":%d}`, k)}
				key := e.AppendKey(nil)
				records = append(records, &kgo.Record{Topic: topic.Events, Partition: event.Partition(key, partitions), Key: key, Value: e.AppendJSON(nil)})
			}
		}
		for _, r := range c.client.ProduceSync(t.Context(), records...) {
			if r.Err == nil { // it may not have heard of a partition yet
				c.wrote++
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(15 * time.Millisecond):
		}
	}
}

// The topic grows from 6 to 12 partitions under load, with repeats of what came
// before from producers that know the new count and from some that do not; the
// command is killed in the middle, twice, and so is a consumer. Every event is one
// row, and every record is accounted for.
func TestANightInWhichTheTopicGrows(t *testing.T) {
	s := newStack(t)
	client, err := kgo.NewClient(kgo.SeedBrokers(s.kafka), kgo.ClientID(observer), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(100*time.Millisecond), kgo.MetadataMaxAge(time.Second))
	require.NoError(t, err)
	t.Cleanup(client.Close)
	c := &crossing{s: s, client: client}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var loading sync.WaitGroup
	loading.Go(func() { c.run(ctx, t) })
	edge := "http://" + s.proxies[plan.Edge].Addr()
	var posters []*poster
	for range 2 { // each repeats what the other has posted
		p := &poster{url: edge, every: 10 * time.Millisecond, next: func(n int) event.Event {
			k := n
			if n%3 == 2 {
				k = n / 4
			}
			return event.Event{Source: "posted", EventType: "t", ActorID: fmt.Sprint("e-", k), OccurredAt: time.Date(2026, 2, 3, 4, 5, 6, k, time.UTC), Payload: fmt.Appendf(nil, `{"k":%d}`, k)}
		}}
		p.start(t.Context())
		posters = append(posters, p)
	}
	time.Sleep(3 * time.Second) // so that there is something to repeat

	for i, at := range []string{"1  every partition", "2  the topic has 12"} {
		var out lines
		grow := s.command(t, &out, "topics", "grow", "--to", "12", "--yes")
		s.eventually(t, at, func() error {
			if strings.Contains(out.String(), at) {
				return nil
			}
			return fmt.Errorf("it has printed %q", out.String())
		})
		require.NoError(t, grow.Process.Kill())
		_ = grow.Wait() // it was killed
		t.Logf("grow is killed: %q", out.String())
		victim := s.processes[plan.Consumer(2+i)]
		victim.Kill()
		time.Sleep(300 * time.Millisecond)
		require.NoError(t, victim.Start())
		s.eventually(t, "all are back", func() error {
			if err := s.ready(t.Context()); err != nil {
				return err
			}
			out, err := s.consumer("topics", "describe")
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
	}
	var out string
	s.eventually(t, "grow is called again", func() error {
		var err error
		out, err = s.consumer("topics", "grow", "--to", "12", "--yes")
		return err
	})
	t.Log(out)
	require.Contains(t, out, "4  the balance adds up")
	_, count, err := s.log.Topic(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 12, count)
	time.Sleep(5 * time.Second) // under the new count
	cancel()
	loading.Wait()
	require.Positive(t, c.wrote)
	for _, p := range posters {
		p.stop()
		require.Positive(t, len(p.all()))
	}
	require.NoError(t, s.rest(t.Context()))
	s.grown(t, posters)
}

// grown compares what is stored with the log, key by key. By which count a record
// was decided depends on when its owner learned of the new one, so fates are left
// to verify; what must hold of each key and of the sums does not depend on it.
func (s *stack) grown(t *testing.T, posters []*poster) {
	t.Helper()
	ends, err := s.log.Ends(t.Context(), topic.Events)
	require.NoError(t, err)
	events := map[string]event.Hash{} // by id
	records, elsewhere := 0, 0
	decoder := event.NewDecoder(event.Ceiling())
	require.NoError(t, s.log.Read(t.Context(), topic.Events, ends, func(r *kgo.Record) {
		e, faults := decoder.Decode(r.Value, time.Time{})
		if len(faults) > 0 {
			t.Errorf("%v", faults)
			return
		}
		records++
		if event.Partition(r.Key, 12) != r.Partition {
			elsewhere++
		}
		events[e.ID().String()] = event.PayloadHash(e.Payload)
	}))
	id, partitions, err := s.log.Topic(t.Context())
	require.NoError(t, err)
	stored, err := s.tables.Stored(t.Context(), id, partitions)
	require.NoError(t, err)
	require.Len(t, stored.Rows, len(events), "a physical row for each event, no more")
	for _, r := range stored.Rows {
		require.Equal(t, events[r.ID.String()], r.Hash, r.Key)
	}
	require.Len(t, stored.View, len(events))
	var sum uint64
	for _, b := range stored.Balance {
		require.Zero(t, b.Difference, "partition %d", b.Partition)
		sum += b.Records
	}
	require.EqualValues(t, records, sum)
	for _, p := range posters {
		for _, a := range p.all() {
			require.Equal(t, a.Hash, events[a.ID.String()], "the edge answered 202 for %s", a.Key)
		}
	}
	verified, err := s.consumer("verify", "--json")
	require.NoError(t, err, verified)
	t.Logf("%d records, %d of them where their keys no longer belong; %d events; %s", records, elsewhere, len(events), verified)
}
