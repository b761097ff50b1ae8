package monitor

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lags are the metric, by partition.
func lags(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	out := map[string]float64{}
	for _, f := range families {
		if f.GetName() == "sluice_consumer_lag_records" {
			for _, m := range f.GetMetric() {
				out[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
			}
		}
	}
	return out
}

func TestLagOfEveryPartitionOwnedOrNot(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "events"))
	require.NoError(t, err)
	defer cluster.Close()
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic("events"))
	require.NoError(t, err)
	defer client.Close()
	for _, p := range []int32{0, 0, 0, 1, 1} {
		require.NoError(t, client.ProduceSync(t.Context(), &kgo.Record{Partition: p, Value: []byte("{}")}).FirstErr())
	}
	admin := kadm.NewClient(client)
	reg := prometheus.NewRegistry()
	l := New(reg).NewLag(LagConfig{Topic: "events", Group: "sluice", Interval: time.Millisecond}, admin, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { l.Run(ctx); close(done) }()
	shows := func(want map[string]float64) {
		t.Helper()
		require.EventuallyWithT(t, func(c *assert.CollectT) { require.Equal(c, want, lags(t, reg)) }, 10*time.Second, time.Millisecond)
	}
	shows(map[string]float64{"0": 3, "1": 2, "2": 0}) // no group yet: the log's start

	var commit kadm.Offsets
	commit.Add(kadm.Offset{Topic: "events", Partition: 0, At: 1, LeaderEpoch: -1})
	commit.Add(kadm.Offset{Topic: "events", Partition: 1, At: 9, LeaderEpoch: -1}) // past the end
	require.NoError(t, admin.CommitAllOffsets(t.Context(), "sluice", commit))
	shows(map[string]float64{"0": 2, "1": 0, "2": 0})

	// What is not known is not shown: an old figure would look like one that holds.
	cluster.ControlKey(int16(kmsg.ListOffsets), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		resp := req.ResponseKind().(*kmsg.ListOffsetsResponse)
		topic := kmsg.ListOffsetsResponseTopic{Topic: "events"}
		for p := range int32(3) {
			topic.Partitions = append(topic.Partitions, kmsg.ListOffsetsResponseTopicPartition{Partition: p, ErrorCode: kerr.TopicAuthorizationFailed.Code})
		}
		resp.Topics = append(resp.Topics, topic)
		return resp, nil, true
	})
	shows(map[string]float64{})
	cancel()
	<-done
	l.Close()
	_, again := reg.Gather()
	require.NoError(t, again)
	require.NotPanics(t, func() { New(prometheus.NewRegistry()).NewLag(LagConfig{}, admin, nil).Close() })
}
