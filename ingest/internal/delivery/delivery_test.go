package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/ingest/internal/delivery"
)

// TestPermanent: of what Kafka can answer, only size is for good.
func TestPermanent(t *testing.T) {
	for code := int16(1); code < 130; code++ {
		err := kerr.ErrorForCode(code)
		want := errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge)
		require.Equal(t, want, delivery.Permanent(err), "%v", err)
	}
	for _, err := range []error{
		delivery.ErrFull, delivery.ErrAway, delivery.ErrStopped, delivery.ErrNoAck,
		kgo.ErrClientClosed, kgo.ErrRecordTimeout, kgo.ErrRecordRetries, kgo.ErrMaxBuffered, context.Canceled,
	} {
		require.False(t, delivery.Permanent(err), "%v", err)
	}
}

func TestLaterError(t *testing.T) {
	var err error = &delivery.LaterError{Err: delivery.ErrFull, After: time.Minute}
	require.ErrorIs(t, fmt.Errorf("spool: %w", err), delivery.ErrFull)
	require.ErrorContains(t, err, "try again in 1m0s")
}

func TestFail(t *testing.T) {
	ds := []*delivery.Delivery{{}, {}}
	delivery.Fail(ds, delivery.ErrAway)
	for _, d := range ds {
		require.ErrorIs(t, d.Err, delivery.ErrAway)
	}
}
