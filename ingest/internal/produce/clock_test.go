package produce

import (
	"io"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"sluice/ingest/internal/clocktest"
	"sluice/ingest/internal/logtest"
)

// TestClockJumps: whether the log has acknowledged anything since a probe began
// was decided by the wall clock. When that was set back by an hour, the last
// acknowledgement lay in the future, and for an hour no probe could say that the
// log was away.
func TestClockJumps(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, topicName))
	require.NoError(t, err)
	defer cluster.Close()
	p, err := New(DefaultConfig(topicName), logtest.New(io.Discard), prometheus.NewRegistry(), kgo.SeedBrokers(cluster.ListenAddrs()...))
	require.NoError(t, err)
	defer func() { require.NoError(t, p.Stop(t.Context())) }()
	require.NoError(t, p.Check(t.Context()))
	require.NoError(t, sendOne(t, p))

	p.begun = clocktest.Shift(p.begun, time.Hour) // seen from there, it is an hour earlier
	cluster.ControlKey(int16(kmsg.Metadata), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		resp := req.ResponseKind().(*kmsg.MetadataResponse)
		topic := kmsg.NewMetadataResponseTopic()
		topic.Topic, topic.ErrorCode = kmsg.StringPtr(topicName), kerr.TopicAuthorizationFailed.Code
		resp.Topics = append(resp.Topics, topic)
		return resp, nil, true
	})
	require.ErrorIs(t, p.Check(t.Context()), kerr.TopicAuthorizationFailed)
	require.Error(t, p.Ready())
}
