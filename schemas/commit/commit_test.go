package commit_test

import (
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"sluice/schemas/commit"
)

func TestParse(t *testing.T) {
	a, b := uuid.UUID{1}, uuid.UUID{2}
	for text, want := range map[string]commit.Mark{
		`sluice/1 {"last":9,"topic_id":"` + a.String() + `","partitions":3}`:                                           {Log: a, Topic: a, Partitions: 3},
		`sluice/1 {"topic_id":"` + a.String() + `","topic":"` + b.String() + `","partitions":1,"closed":true,"new":1}`: {Log: a, Topic: b, Partitions: 1},
	} {
		got, ok := commit.Parse(text)
		require.True(t, ok, text)
		require.Equal(t, want, got)
	}
	for _, text := range []string{
		"", "kafka-consumer-groups", `{"topic_id":"` + a.String() + `","partitions":3}`, "sluice/", "sluice/1 ", "sluice/1 {}", "sluice/1 null",
		`sluice/1 {"topic_id":"` + a.String() + `"}`, `sluice/1 {"topic_id":"x","partitions":3}`, `sluice/1 {"topic_id":"` + a.String() + `","partitions":3`,
		`sluice/2 {"topic_id":"` + a.String() + `","partitions":3}`, `sluice/1{"topic_id":"` + a.String() + `","partitions":3}`,
	} {
		_, ok := commit.Parse(text)
		require.False(t, ok, text)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`sluice/1 {"topic_id":"00000000-0000-0000-0000-000000000001","partitions":3}`)
	f.Fuzz(func(t *testing.T, text string) {
		m, ok := commit.Parse(text)
		require.Equal(t, ok, m != commit.Mark{}, "a mark with nothing in it")
	})
}
