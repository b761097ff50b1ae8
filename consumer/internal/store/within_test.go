package store_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/store"
	"sluice/schemas/topic"
)

// What a range has is found, all of it and nothing of its neighbours: rows with their
// very ids, single fates, and those of ranges that begin before it or end after it.
func TestWhatARangeHas(t *testing.T) {
	s := migrated(t)
	ctx := t.Context()
	self := topic.Origin{TopicID: uuid.New(), Partition: 3}
	other, log := self, self
	other.Partition, log.TopicID = 2, uuid.New()
	var rows []*batch.Record
	when := at("2026-01-02T03:04:05Z")
	for i := range int64(20) {
		rows = append(rows, record(t, 1000+i, "s", "t", "a", when.Add(time.Duration(i)*time.Hour*24*40))) // many table partitions
	}
	require.NoError(t, s.Rows(ctx, uuid.NewString(), self, rows))
	require.NoError(t, s.Rows(ctx, uuid.NewString(), other, rows[:3]))
	require.NoError(t, s.Rows(ctx, uuid.NewString(), log, rows[3:5]))
	fate := func(first, last int64, f dedup.Fate) store.Entry {
		return store.Entry{Offset: first, Last: last, Fate: f, Records: uint64(last - first + 1)}
	}
	require.NoError(t, s.Journal(ctx, "", "events", self, []store.Entry{
		fate(0, 99, dedup.Lost), fate(100, 100, dedup.Duplicate), fate(150, 150, dedup.Conflict), fate(300, 399, dedup.Skipped),
		{Kind: store.Batch, Offset: 0, Last: 500, Records: 3},
	}))
	require.NoError(t, s.Journal(ctx, "", "events", other, []store.Entry{fate(110, 180, dedup.Lost)}))

	for _, tt := range []struct {
		first, last int64
		rows        int
		fates       map[int64]dedup.Fate
	}{
		{0, 0, 0, map[int64]dedup.Fate{0: dedup.Lost}},
		{98, 150, 0, map[int64]dedup.Fate{98: dedup.Lost, 99: dedup.Lost, 100: dedup.Duplicate, 150: dedup.Conflict}},
		{101, 149, 0, map[int64]dedup.Fate{}},
		{398, 401, 0, map[int64]dedup.Fate{398: dedup.Skipped, 399: dedup.Skipped}},
		{350, 350, 0, map[int64]dedup.Fate{350: dedup.Skipped}},
		{400, 1000, 1, map[int64]dedup.Fate{}},
		{1005, 1010, 6, map[int64]dedup.Fate{}},
		{900, 2000, 20, map[int64]dedup.Fate{}},
		{2000, 3000, 0, map[int64]dedup.Fate{}},
	} {
		fates, err := s.FatesIn(ctx, self, tt.first, tt.last)
		require.NoError(t, err)
		require.Equal(t, tt.fates, fates, "%d to %d", tt.first, tt.last)
		got, err := s.RowsIn(ctx, self, tt.first, tt.last)
		require.NoError(t, err)
		want := map[int64]uuid.UUID{}
		for _, r := range rows {
			if r.Offset >= tt.first && r.Offset <= tt.last {
				want[r.Offset] = r.ID
			}
		}
		require.Equal(t, want, got)
		require.Len(t, got, tt.rows)
	}
}
