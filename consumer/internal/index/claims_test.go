package index_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/index"
	"sluice/schemas/topic"
)

// A claimed key is free once, and known to be taken only when its row is stored.
func TestAClaim(t *testing.T) {
	x := open(t, newTable(), index.NewBudget(64<<20, 1))
	loaded(t, x)
	rows := []*batch.Record{record(noon, 1), record(noon, 2), record(noon, 1), record(noon.AddDate(-1, 0, 0), 3)}
	var answers []index.Answer
	claim := func() []index.Answer {
		answers = nil
		x.Claim(rows, func(_ *batch.Record, _ dedup.First, a index.Answer) { answers = append(answers, a) })
		return answers
	}
	round := x.Round()
	require.Equal(t, []index.Answer{index.Free, index.Free, index.Ask, index.Ask}, claim())
	require.Equal(t, []index.Answer{index.Ask, index.Ask, index.Ask, index.Ask}, claim())
	x.Written(rows[:1], topic.Origin{}, round)
	require.Equal(t, []index.Answer{index.Taken, index.Ask, index.Taken, index.Ask}, claim())
	require.Equal(t, 2, x.Stats().Keys)
}

// Rows whose keys were claimed in pages that have gone since are added to what has
// come in their place.
func TestClaimsEndWithTheirPages(t *testing.T) {
	s := newTable()
	x := open(t, s, index.NewBudget(64<<20, 1))
	loaded(t, x)
	rows := make([]*batch.Record, 5000)
	for i := range rows {
		rows[i] = record(noon.Add(time.Duration(i)*time.Millisecond), uint64(i))
	}
	round := x.Round()
	x.Claim(rows, func(*batch.Record, dedup.First, index.Answer) {})
	for i := range rows { // as if they had been there and were taken out: the page is dropped
		x.Gone(rows[i].Event.OccurredAt, rows[i].ID)
	}
	loaded(t, x)
	require.NotEqual(t, round, x.Round())
	require.Equal(t, index.Free, answer(x, noon, 1))
	x.Written(rows, topic.Origin{}, round)
	for i := range rows {
		require.NotEqual(t, index.Free, answer(x, rows[i].Event.OccurredAt, uint64(i)))
	}
}
