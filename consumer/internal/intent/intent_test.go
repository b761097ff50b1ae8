package intent_test

import (
	"encoding/hex"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/intent"
	"sluice/schemas/commit"
	"sluice/schemas/event"
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

// An intent tells whether a batch is the one that it was sent for, also one of the first
// rule version, whose hash was of the records' bytes. Of a version that is not known it
// tells only where the batch ends.
func TestBegun(t *testing.T) {
	of := func(id, text byte, last int64) *batch.Batch {
		b := batch.New(7)
		b.Add(&batch.Record{Raw: batch.Raw{Offset: last, Value: []byte{text}}, ID: uuid.UUID{id}})
		return b
	}
	now := intent.Of(of(1, 'x', 9), uuid.UUID{1}, 12)
	old := now
	raw := of(1, 'x', 9).RawHash()
	old.Rules, old.Hash = 1, hex.EncodeToString(raw[:])
	unknown := now
	unknown.Rules, unknown.Hash = event.RuleVersion+1, "?"
	for _, c := range []struct {
		what              string
		b                 *batch.Batch
		now, old, unknown bool
	}{
		{"the same", of(1, 'x', 9), true, true, true},
		{"another end", of(1, 'x', 10), false, false, false},
		{"another event", of(2, 'x', 9), false, true, true},
		{"other bytes", of(1, 'y', 9), true, false, true},
	} {
		require.Equal(t, c.now, now.Begun(c.b), c.what)
		require.Equal(t, c.old, old.Begun(c.b), c.what)
		require.Equal(t, c.unknown, unknown.Begun(c.b), c.what)
	}
	crossed := old
	crossed.Rules = event.RuleVersion
	require.False(t, crossed.Begun(of(1, 'x', 9)), "a hash is read by the version it was made by")
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
