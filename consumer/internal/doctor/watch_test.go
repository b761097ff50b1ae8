package doctor

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// installation is a cluster and a server that a test can spoil.
type installation struct {
	mu    sync.Mutex
	facts Facts
	asked int

	refused  error
	findings map[string]int
}

func (i *installation) gather(context.Context) Facts {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.asked++
	return i.facts
}

func (i *installation) Doctor(refused error, findings map[string]int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.refused, i.findings = refused, findings
}

func (i *installation) set(change func(*Facts)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	change(&i.facts)
}

// well is an installation as it should be, as far as Kafka goes; of ClickHouse
// nothing is known, which stops nothing.
func well() *installation {
	topics, configs := map[string]Known[Topic]{}, map[string]Known[map[string]string]{}
	for _, name := range []string{"events", "events.dlq", "events.control"} {
		topics[name] = Known[Topic]{Value: Topic{ID: uuid.New(), Partitions: 3, Replicas: 1}}
		configs[name] = Known[map[string]string]{Value: map[string]string{
			"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1", "max.message.bytes": "4194304",
			"message.timestamp.type": "CreateTime", "min.insync.replicas": "1",
		}}
	}
	hidden := errors.New("hidden")
	return &installation{facts: Facts{
		Kafka: Kafka{Topics: topics, Configs: configs},
		ClickHouse: ClickHouse{
			Version: Known[string]{Err: hidden}, Schema: Known[error]{Err: hidden}, Tables: Known[map[string]Table]{Err: hidden},
			Settings: Known[map[string]string]{Err: hidden}, Inserts: Known[map[string]string]{Err: hidden},
			Policies: Known[[]Policy]{Err: hidden}, Detached: Known[[]Detached]{Err: hidden}, Disks: Known[[]Disk]{Err: hidden}, ReadOnly: Known[[]string]{Err: hidden},
		},
	}}
}

func compacted(policy string) func(*Facts) {
	return func(f *Facts) {
		values := map[string]string{}
		for k, v := range f.Kafka.Configs["events"].Value {
			values[k] = v
		}
		values["cleanup.policy"] = policy
		configs := map[string]Known[map[string]string]{}
		for k, v := range f.Kafka.Configs {
			configs[k] = v
		}
		configs["events"] = Known[map[string]string]{Value: values}
		f.Kafka.Configs = configs
	}
}

func away(f *Facts) { f.Kafka = Kafka{Away: errors.New("no broker answers")} }

func watching(i *installation) *Watch {
	return NewWatch(setup(), i.gather, i, slog.New(slog.DiscardHandler))
}

func TestStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := well()
		require.NoError(t, watching(i).Start(t.Context(), nil))
		require.Equal(t, 0, i.findings["refuse"])
		require.Positive(t, i.findings["unknown"])

		i.set(compacted("compact"))
		require.ErrorIs(t, watching(i).Start(t.Context(), nil), ErrRefused)

		// It waits for a side that is away, so that nothing is written unchecked.
		seen := i.facts.Kafka
		i.set(away)
		var waited []error
		began := time.Now()
		time.AfterFunc(90*time.Second, func() { i.set(func(f *Facts) { f.Kafka = seen }) })
		require.ErrorIs(t, watching(i).Start(t.Context(), func(err error) { waited = append(waited, err) }), ErrRefused)
		require.GreaterOrEqual(t, time.Since(began), 90*time.Second)
		require.ErrorContains(t, waited[0], "no broker answers")

		i.set(away)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.ErrorIs(t, watching(i).Start(ctx, nil), context.DeadlineExceeded)
	})
}

// A setting changed under the running service ends the owners before the next
// minute is over; mended, they go on; a broker that is away changes nothing.
func TestGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := well()
		w := watching(i)
		require.NoError(t, w.Start(t.Context(), nil))
		ctx, cancel := context.WithCancel(t.Context())
		running := make(chan struct{})
		go func() { defer close(running); w.Run(ctx) }()

		var mu sync.Mutex
		runs, alive := 0, false
		stop, guarded := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(guarded)
			w.Guard(ctx, stop, func(ctx context.Context) {
				mu.Lock()
				runs++
				alive = true
				mu.Unlock()
				select {
				case <-ctx.Done():
				case <-stop:
				}
				mu.Lock()
				alive = false
				mu.Unlock()
			})
		}()
		state := func() (int, bool) {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return runs, alive
		}
		expect := func(wantRuns int, wantAlive bool) {
			t.Helper()
			gotRuns, gotAlive := state()
			require.Equal(t, wantRuns, gotRuns)
			require.Equal(t, wantAlive, gotAlive)
		}
		expect(1, true)

		i.set(compacted("compact"))
		time.Sleep(w.setup.Every + time.Millisecond)
		expect(1, false)
		require.ErrorIs(t, i.refused, ErrRefused)
		require.Equal(t, 1, i.findings["refuse"])
		seen := i.facts.Kafka

		// Away: the verdict stands, though nothing more is known.
		i.set(away)
		time.Sleep(10 * time.Minute)
		expect(1, false)
		require.NotEmpty(t, w.Last().Away)

		i.set(func(f *Facts) { f.Kafka = seen })
		i.set(compacted("delete"))
		time.Sleep(recheck + time.Millisecond)
		expect(2, true)
		require.NoError(t, i.refused)

		// Away while all is well: the owners go on, and halt by themselves.
		i.set(away)
		time.Sleep(10 * time.Minute)
		expect(2, true)

		close(stop)
		<-guarded
		cancel()
		<-running
	})
}

func TestGuardIsStoppedWhileHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := well()
		i.set(compacted("compact"))
		w := watching(i)
		w.Check(t.Context())
		never := func(context.Context) { t.Error("an owner ran although it was refused") }
		stop := make(chan struct{})
		close(stop)
		w.Guard(t.Context(), stop, never)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		w.Guard(ctx, nil, never)
	})
}

// Before a recovery it asks, but the partitions of a process share one answer.
func TestBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := well()
		w := watching(i)
		var all sync.WaitGroup
		for range 96 {
			all.Go(func() {
				if err := w.Before(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		require.Equal(t, 1, i.asked)
		i.set(compacted("compact"))
		time.Sleep(fresh)
		require.ErrorIs(t, w.Before(t.Context()), ErrRefused)
		require.Equal(t, 2, i.asked)
	})
}

// Rounds that the process gave up on say nothing.
func TestAnEndedRoundIsNoVerdict(t *testing.T) {
	i := well()
	w := watching(i)
	require.NoError(t, w.Start(t.Context(), nil))
	i.set(compacted("compact"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, w.Check(ctx).Refused())
	require.NoError(t, w.Last().Refused())
}
