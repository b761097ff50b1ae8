package control

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What stood under one key before a moment, and nothing that came later.
func TestHistory(t *testing.T) {
	const name = "control"
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, name))
	require.NoError(t, err)
	defer cluster.Close()
	seeds := kgo.SeedBrokers(cluster.ListenAddrs()...)
	client, err := kgo.NewClient(seeds, kgo.DefaultProduceTopic(name))
	require.NoError(t, err)
	defer client.Close()
	say := func(key string, value []byte) int64 {
		t.Helper()
		r, err := client.ProduceSync(t.Context(), &kgo.Record{Key: []byte(key), Value: value}).First()
		require.NoError(t, err)
		return r.Offset
	}
	before := func(key string, end int64) (all []string) {
		t.Helper()
		require.NoError(t, History(t.Context(), name, []byte(key), end, func(v []byte) {
			if v == nil {
				v = []byte("tombstone")
			}
			all = append(all, string(v))
		}, seeds))
		return all
	}
	first := say("a", []byte("1"))
	require.Empty(t, before("a", first))
	say("b", []byte("2"))
	say("a", nil)
	end := say("a", []byte("3"))
	say("a", []byte("4"))
	require.Equal(t, []string{"1", "tombstone"}, before("a", end))
	require.Empty(t, before("c", end))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, History(ctx, name, []byte("a"), end, func([]byte) {}, seeds), context.Canceled)
	require.Error(t, History(t.Context(), name, nil, end, nil, seeds, kgo.MaxBufferedRecords(-1)), "options that are none")
}
