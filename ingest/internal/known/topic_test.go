package known

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"sluice/ingest/internal/delivery"
)

// TestTopicMadeAgainDuringSend: a Send that began before the topic was deleted
// and made again, and ended after another had made the memory forget the old
// one, was remembered as if the new topic had its records. A batch waits for its
// slowest partition, so that can be seconds. Its keys' repeats were then answered
// as known for as long as the memory lasts, and none was written: the event was
// in no log.
func TestTopicMadeAgainDuringSend(t *testing.T) {
	var n atomic.Int64
	var topic atomic.Pointer[uuid.UUID]
	topic.Store(&uuid.UUID{1})
	log := acknowledges(&n)
	var k *Known
	k, err := New(DefaultConfig(), logFunc(func(ctx context.Context, ds []*delivery.Delivery) bool {
		if n.Load() > 0 {
			return log(ctx, ds)
		}
		settled := log(ctx, ds) // by the old topic
		topic.Store(&uuid.UUID{2})
		return send(k, of("other", a)) && settled // which notices
	}), func() uuid.UUID { return *topic.Load() }, prometheus.NewRegistry())
	require.NoError(t, err)

	require.True(t, send(k, of("k", a)))
	again := of("k", a)
	require.True(t, send(k, again))
	require.False(t, again.Repeat, "the new topic has no such record")
	require.EqualValues(t, 3, n.Load())
	third := of("k", a)
	require.True(t, send(k, third))
	require.True(t, third.Repeat, "now it has")
}
