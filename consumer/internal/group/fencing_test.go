package group_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"sluice/consumer/internal/group"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// assigned are the partitions that a member was given, with their commits: those
// of assignments that are over, too.
type assigned struct {
	mu      sync.Mutex
	commits map[int32]group.CommitFunc
	over    map[int32]bool
}

func (a *assigned) own(ctx context.Context, stop <-chan struct{}, p int32, commit group.CommitFunc) {
	a.mu.Lock()
	a.commits[p] = commit
	a.over[p] = false
	a.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-stop:
	}
	a.mu.Lock()
	a.over[p] = true
	a.mu.Unlock()
}

func (a *assigned) lost() (p int32, commit group.CommitFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for p, over := range a.over {
		if over {
			return p, a.commits[p]
		}
	}
	return -1, nil
}

func (a *assigned) has(p int32) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	over, ok := a.over[p]
	return ok && !over
}

func (a *assigned) len() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.commits)
}

// A member that lives and has given a partition up is still a member of the
// current generation: the classic coordinator would take its commit for any
// partition. So the commit of an assignment that is over is refused here.
func TestAnAssignmentThatIsOverCommitsNothing(t *testing.T) {
	const topic, id = "events", "sluice"
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, topic))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	opts := []kgo.Opt{kgo.SeedBrokers(cluster.ListenAddrs()...)}
	client, err := kgo.NewClient(opts...)
	require.NoError(t, err)
	t.Cleanup(client.Close)
	admin := kadm.NewClient(client)

	join := func() *assigned {
		a := &assigned{commits: map[int32]group.CommitFunc{}, over: map[int32]bool{}}
		ctx, cancel := context.WithCancel(t.Context())
		m, err := group.Join(ctx, group.Config{
			Topic: topic, ID: id, Protocol: group.Classic, Admin: admin, SessionTimeout: 6 * time.Second, RevokeTimeout: time.Second,
		}, opts, slog.New(slog.DiscardHandler), a.own)
		require.NoError(t, err)
		done := make(chan struct{})
		go func() { defer close(done); m.Run(ctx) }()
		t.Cleanup(func() { m.Leave(); cancel(); <-done })
		return a
	}
	first := join()
	require.Eventually(t, func() bool { return first.len() == 2 }, 30*time.Second, 10*time.Millisecond)
	second := join()
	var p int32
	var commit group.CommitFunc
	require.Eventually(t, func() bool { p, commit = first.lost(); return commit != nil && second.has(p) }, 60*time.Second, 10*time.Millisecond)

	require.NoError(t, second.commits[p](t.Context(), 7, "the owner's"))
	for range 20 {
		require.ErrorIs(t, commit(t.Context(), 3, "of an assignment that is over"), group.ErrAssignmentOver)
	}
	offsets, err := admin.FetchOffsets(t.Context(), id)
	require.NoError(t, err)
	stands, ok := offsets.Lookup(topic, p)
	require.True(t, ok)
	require.EqualValues(t, 7, stands.At)
	require.Equal(t, "the owner's", stands.Metadata)
}
