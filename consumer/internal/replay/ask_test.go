package replay

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/schemas/topic"
)

// An owner is asked for so much at a time, what it has not done is where a stopped
// command goes on, and what is done leaves nothing in the topic. Other partitions'
// owners hold nobody up, and answers to others' requests are none.
func TestAsker(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, topic.Control))
	require.NoError(t, err)
	defer cluster.Close()
	opts := []kgo.Opt{kgo.SeedBrokers(cluster.ListenAddrs()...)}
	heard := make(chan Progress, 99)
	a, err := NewAsker(t.Context(), opts, topic.Control, func(_ Request, p Progress) { heard <- p })
	require.NoError(t, err)
	defer a.Close()
	owner, err := kgo.NewClient(opts...)
	require.NoError(t, err)
	defer owner.Close()
	answer := func(p Progress) {
		value, err := json.Marshal(p)
		require.NoError(t, err)
		require.NoError(t, owner.ProduceSync(t.Context(), &kgo.Record{Topic: topic.Control, Key: []byte(ProgressKey(p.Run, p.Partition)), Value: value}).FirstErr())
	}
	var asked []Request
	ask := func(ctx context.Context, partition int32, from int64) error {
		r := Request{Run: uuid.New(), Partition: partition, From: from, To: from + 10}
		asked = append(asked, r)
		return a.Ask(ctx, r)
	}
	_, busy := a.Undone(1)
	require.False(t, busy)
	for i := range mostOpen {
		require.NoError(t, ask(t.Context(), 1, int64(10*i)))
	}
	require.NoError(t, ask(t.Context(), 2, 500), "another owner has nothing to do")
	full, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	require.ErrorIs(t, ask(full, 1, 90), context.DeadlineExceeded)
	cancel()
	asked = asked[:len(asked)-1]
	orders, err := Look(t.Context(), opts, topic.Control)
	require.NoError(t, err)
	require.Len(t, orders.Replays, mostOpen+1)

	answer(Progress{Run: uuid.New(), Partition: 1, Next: 99, Done: true}) // another command's
	answer(Progress{Run: asked[0].Run, Partition: 1, Next: 4, To: 10})
	require.EqualValues(t, 4, (<-heard).Next)
	lowest, busy := a.Undone(1)
	require.True(t, busy)
	require.EqualValues(t, 4, lowest)
	answer(Progress{Run: asked[0].Run, Partition: 1, Next: 10, To: 10, Done: true})
	require.True(t, (<-heard).Done)
	require.NoError(t, ask(t.Context(), 1, 90), "there is room again")
	lowest, _ = a.Undone(1)
	require.EqualValues(t, 10, lowest)
	for _, r := range asked[1:] {
		answer(Progress{Run: r.Run, Partition: r.Partition, Next: r.To, To: r.To, Done: true})
	}
	require.NoError(t, a.Wait(t.Context()))
	orders, err = Look(t.Context(), opts, topic.Control)
	require.NoError(t, err)
	require.Empty(t, orders.Replays)
	_, busy = a.Undone(1)
	require.False(t, busy)
}
