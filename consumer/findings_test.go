package main

import (
	"encoding/json"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"sluice/consumer/internal/verify"
	"sluice/schemas/topic"
)

// line is a finding in the file.
type line struct {
	Kind      string `json:"kind"`
	TopicID   string `json:"topic_id,omitempty"`
	Partition *int32 `json:"partition,omitempty"`
	Offset    *int64 `json:"offset,omitempty"`
	Key       string `json:"key,omitempty"`
	What      string `json:"what"`
}

// A finding's line is what encoding/json makes of it, to the byte.
func TestFindingsAreJSON(t *testing.T) {
	text := rapid.OneOf(rapid.String(), rapid.StringMatching(`[ -~]*`), rapid.SampledFrom([]string{"", "missing", `a"b\`, "<&>", "\x7f", "\xff", "é\u2028"}))
	rapid.Check(t, func(t *rapid.T) {
		x := verify.Finding{Kind: text.Draw(t, "kind"), Key: text.Draw(t, "key"), What: text.Draw(t, "what")}
		want := line{Kind: x.Kind, Key: x.Key, What: x.What}
		if rapid.Bool().Draw(t, "of a record") {
			id := uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "topic"))
			x.Origin = topic.Origin{TopicID: id, Partition: rapid.Int32().Draw(t, "partition"), Offset: 1 + rapid.Int64Min(0).Draw(t, "offset")/2}
			want.TopicID, want.Partition, want.Offset = id.String(), &x.Origin.Partition, &x.Origin.Offset
		}
		marshaled, err := json.Marshal(want)
		require.NoError(t, err)
		require.Equal(t, string(marshaled)+"\n", string(appendLine(nil, x)))
	})
}
