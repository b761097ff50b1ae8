package intent_test

import (
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/intent"
)

func TestMetadata(t *testing.T) {
	b := batch.New(7)
	b.Add(batch.Record{Raw: batch.Raw{Offset: 9, Epoch: 3, Value: []byte("x")}})
	in := intent.Of(b, uuid.UUID{1}, 12)
	require.Less(t, len(in.Metadata()), 512, "brokers allow 4,096 bytes by default")
	got, ours, err := intent.Parse(in.Metadata())
	require.NoError(t, err)
	require.True(t, ours)
	require.Equal(t, in, got)
	require.EqualValues(t, 9, got.Last)
}

func TestNotOurs(t *testing.T) {
	for _, text := range []string{"", "some tool", `{"last":1}`, "sluice/", "sluice/x {}"} {
		_, ours, err := intent.Parse(text)
		require.NoError(t, err)
		require.False(t, ours, text)
	}
	_, ours, err := intent.Parse("sluice/2 {}")
	require.False(t, ours)
	require.ErrorIs(t, err, intent.ErrNewer)
	_, ours, err = intent.Parse(`sluice/1 {"last":12`)
	require.False(t, ours)
	require.ErrorContains(t, err, "cannot be read")
}
