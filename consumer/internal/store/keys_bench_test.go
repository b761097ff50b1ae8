package store_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/index"
	"sluice/consumer/internal/migrate"
	"sluice/consumer/internal/store"
	"sluice/deploy/local/enginetest"
)

const (
	benchRows  = 10_000_000
	benchYears = 10
)

var benchBegin = time.Date(2016, 1, 1, 0, 0, 0, 0, time.UTC)

// tenYears is a table of 10 million rows, evenly spread over ten years; to fill
// it takes about a minute. Its event ids are random: nothing here derives them.
func tenYears(b *testing.B) *store.Store {
	b.Helper()
	dsn := enginetest.Start(b).URL + "/sluice"
	require.NoError(b, migrate.Up(b.Context(), dsn, func(string) {}))
	s, err := store.Open(dsn)
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, s.Close()) })
	for year := range benchYears {
		require.NoError(b, s.Conn().Exec(b.Context(), fmt.Sprintf(`
			INSERT INTO event_log (event_id, source, event_type, actor_id, occurred_at, payload_text, received_at, topic_id, partition, offset, record_timestamp)
			SELECT generateUUIDv4(), concat('source-', toString(number %% 5)), concat('type-', toString(cityHash64(number, 2) %% 20)), concat('user-', toString(cityHash64(number, 3) %% 200000)),
				fromUnixTimestamp64Nano(toInt64(%d) + toInt64(cityHash64(number, 4) %% 31536000000000) * 1000, 'UTC') AS at,
				'{"path":"/a/b","n":1}', at, toUUID('00000000-0000-0000-0000-000000000001'), 0, number, at
			FROM numbers(%d, %d)`,
			benchBegin.AddDate(year, 0, 0).UnixNano(), year*benchRows/benchYears, benchRows/benchYears)))
	}
	return s
}

// BenchmarkRebuild is the time from nothing to 10 million keys in the index.
func BenchmarkRebuild(b *testing.B) {
	s := tenYears(b)
	b.Run("10M keys", func(b *testing.B) {
		for b.Loop() {
			x := index.New(index.Config{
				Source: func(ctx context.Context, from, to time.Time, add func(int32, uuid.UUID)) error {
					return s.Keys(ctx, from, to, 0, 1, add)
				},
				Budget: index.NewBudget(512<<20, 1), Now: benchBegin.AddDate(benchYears, 0, 0), Live: benchYears * 366 * 24 * time.Hour,
			})
			require.NoError(b, x.Take(b.Context()))
			require.NoError(b, x.Wait(b.Context()))
			require.Equal(b, benchRows, x.Stats().Keys)
			x.Close()
		}
	})
}

// BenchmarkFirstOf is a batch of 50,000 records of which some have to be asked
// for, their times anywhere in ten years or in one month: none of them stored,
// as in a backfill, or all, as when it is sent again.
func BenchmarkFirstOf(b *testing.B) {
	s := tenYears(b)
	for _, months := range []int{1, 12 * benchYears} {
		for _, keys := range []int{500, 25_000, 50_000} {
			for _, stored := range []bool{false, true} {
				asked := toAsk(b, s, months, keys, stored)
				name := fmt.Sprintf("%d months/%d%% cold/stored=%v", months, keys/500, stored)
				b.Run(name, func(b *testing.B) {
					for b.Loop() {
						got, err := s.FirstOf(b.Context(), asked)
						require.NoError(b, err)
						if stored {
							require.Len(b, got, len(asked))
						}
					}
					b.ReportMetric(50_000*float64(b.N)/b.Elapsed().Seconds(), "records/s")
				})
			}
		}
	}
}

func toAsk(b *testing.B, s *store.Store, months, keys int, stored bool) []*batch.Record {
	b.Helper()
	var out []*batch.Record
	if !stored {
		span := int64(benchBegin.AddDate(0, months, 0).Sub(benchBegin))
		for range keys {
			r := &batch.Record{ID: uuid.New()}
			r.Event.Source, r.Event.EventType = fmt.Sprint("source-", rand.IntN(5)), fmt.Sprint("type-", rand.IntN(20))
			r.Event.ActorID, r.Event.OccurredAt = fmt.Sprint("user-", rand.IntN(200_000)), benchBegin.Add(time.Duration(rand.Int64N(span)))
			out = append(out, r)
		}
		return out
	}
	rows, err := s.Conn().Query(b.Context(), `SELECT event_id, source, event_type, actor_id, occurred_at FROM event_log
		WHERE occurred_at < ? ORDER BY cityHash64(event_id) LIMIT ?`, benchBegin.AddDate(0, months, 0), keys)
	require.NoError(b, err)
	for rows.Next() {
		r := &batch.Record{}
		require.NoError(b, rows.Scan(&r.ID, &r.Event.Source, &r.Event.EventType, &r.Event.ActorID, &r.Event.OccurredAt))
		out = append(out, r)
	}
	require.NoError(b, rows.Err())
	require.NoError(b, rows.Close())
	return out
}
