package intent_test

import (
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/intent"
	"sluice/schemas/commit"
)

func TestMetadata(t *testing.T) {
	b := batch.New(7)
	b.Add(&batch.Record{Raw: batch.Raw{Offset: 9, Epoch: 3, Value: []byte("x")}})
	in := intent.Of(b, uuid.UUID{1}, 12)
	require.Less(t, len(in.Metadata()), 512, "brokers allow 4,096 bytes by default")
	got, ours, err := intent.Parse(in.Metadata())
	require.NoError(t, err)
	require.True(t, ours)
	require.Equal(t, in, got)
	require.EqualValues(t, 9, got.Last)
}

// TestMark: what the contract lets anyone read is what is written.
func TestMark(t *testing.T) {
	at := intent.ClosedAt(7, uuid.UUID{1}, 12)
	mark, ok := commit.Parse(at.Metadata())
	require.True(t, ok)
	require.Equal(t, commit.Mark{Log: uuid.UUID{1}, Topic: uuid.UUID{1}, Partitions: 12}, mark)
	at.Topic = uuid.UUID{2}
	mark, ok = commit.Parse(at.Metadata())
	require.True(t, ok)
	require.Equal(t, commit.Mark{Log: uuid.UUID{1}, Topic: uuid.UUID{2}, Partitions: 12}, mark)
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
