package complete

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"sluice/ingest/internal/logtest"
	"sluice/schemas/topic"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The last thing said stands, whatever else is in the topic, and never falls; it
// is found again by an edge that starts later.
func TestFollows(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, topic.Control))
	require.NoError(t, err)
	defer cluster.Close()
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.DefaultProduceTopic(topic.Control))
	require.NoError(t, err)
	defer client.Close()
	say := func(key, value []byte) {
		t.Helper()
		require.NoError(t, client.ProduceSync(t.Context(), &kgo.Record{Key: key, Value: value}).FirstErr())
	}
	through := func(s int64) topic.Completeness {
		return topic.Completeness{CompleteThrough: time.Unix(s, 0).UTC(), HeldBy: "b", Edges: 2, At: time.Unix(s+1, 0).UTC()}
	}
	complete := func(s int64) {
		t.Helper()
		key, value, err := through(s).Record()
		require.NoError(t, err)
		say(key, value)
	}
	follow := func() (f *Follower, stop func()) {
		f = NewFollower(logtest.New(io.Discard))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx, topic.Control, kgo.SeedBrokers(cluster.ListenAddrs()...)) }()
		return f, func() { cancel(); require.NoError(t, <-done) }
	}
	reaches := func(f *Follower, want int64) {
		t.Helper()
		require.Eventually(t, func() bool { got, ok := f.Last(); return ok && got == through(want) }, 20*time.Second, time.Millisecond)
	}
	f, stop := follow()
	_, ok := f.Last()
	require.False(t, ok)
	complete(10)
	reaches(f, 10)
	say([]byte(topic.WatermarkKey("a")), []byte("{}"))
	say([]byte(topic.CompleteKey), []byte("{"))
	complete(5)
	complete(20)
	reaches(f, 20)
	stop()
	f, stop = follow()
	defer stop()
	reaches(f, 20)
}
