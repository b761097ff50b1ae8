package replay_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/consumer/internal/replay"
)

// A produce has no end of its own: erase, retention and redrive waited for ever for a
// broker that is away.
func TestALeaseDoesNotWaitForABrokerThatIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := []kgo.Opt{kgo.SeedBrokers("away:1"), kgo.Dialer(func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("away") })}
		began := time.Now()
		_, err := replay.Take(t.Context(), opts, "control", replay.Lease{Kind: "x", Run: uuid.New()})
		require.ErrorContains(t, err, "no answer from Kafka for 15s")
		require.Equal(t, 15*time.Second, time.Since(began))
	})
}
