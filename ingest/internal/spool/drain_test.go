package spool

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/ingest/internal/delivery"
	"sluice/schemas/topic"
)

// TestOldRecordsAreRenewed: what was spooled through a long outage went into the log
// with the time of its receipt, by which the log's retention could delete it at once.
func TestOldRecordsAreRenewed(t *testing.T) {
	s, log := newSpool(t, nil)
	thaw := log.freeze()
	begun := time.Now()
	outage, young := begun.Add(-30*24*time.Hour).Truncate(time.Millisecond), begun.Add(-oldAfter/2).Truncate(time.Millisecond)
	for i, at := range []time.Time{outage, young} {
		require.Equal(t, delivery.Spooled, received(s, i, at).Status)
	}
	thaw()
	drainedAll(t, s)
	log.mu.Lock()
	defer log.mu.Unlock()
	require.Len(t, log.got, 2)
	said := func(r *kgo.Record) (at []string) {
		for _, h := range r.Headers {
			if h.Key == topic.HeaderReceivedAt {
				at = append(at, string(h.Value))
			}
		}
		return at
	}
	require.False(t, log.got[0].Timestamp.Before(begun))
	require.Equal(t, []string{outage.UTC().Format(topic.TimeFormat)}, said(log.got[0]))
	require.True(t, log.got[1].Timestamp.Equal(young))
	require.Empty(t, said(log.got[1]))
}

// TestARenewedRecordIsNotTooLarge: one that the log takes as it was accepted does not
// go aside for a header of ours.
func TestARenewedRecordIsNotTooLarge(t *testing.T) {
	s, log := newSpool(t, nil)
	log.mu.Lock()
	log.refuse = func(r *kgo.Record) error {
		if slices.ContainsFunc(r.Headers, func(h kgo.RecordHeader) bool { return h.Key == topic.HeaderReceivedAt }) {
			return kerr.MessageTooLarge
		}
		return nil
	}
	log.mu.Unlock()
	require.NoError(t, s.store.Append(t.Context(), some(0, 3))) // of 2023
	drainedAll(t, s)
	require.Equal(t, numbers(0, 3), log.numbers(t))
	st, err := s.State()
	require.NoError(t, err)
	require.Zero(t, st.RefusedRecords)
}
