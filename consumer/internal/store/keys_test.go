package store_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/migrate"
	"sluice/consumer/internal/store"
	"sluice/deploy/local/enginetest"
	"sluice/schemas/event"
	"sluice/schemas/topic"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const partitions = 4

func at(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		panic(err)
	}
	return t
}

// migrated is the store of an engine of the test's own.
func migrated(t *testing.T) *store.Store {
	t.Helper()
	dsn := enginetest.Start(t).URL + "/sluice"
	require.NoError(t, migrate.Up(t.Context(), dsn, func(string) {}))
	s, err := store.Open(dsn)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// record decodes an event as the consumer does.
func record(t *testing.T, offset int64, source, eventType, actor string, occurredAt time.Time) *batch.Record {
	t.Helper()
	value, err := json.Marshal(map[string]any{"source": source, "event_type": eventType, "actor_id": actor, "occurred_at": occurredAt, "payload": map[string]any{"n": offset}})
	require.NoError(t, err)
	r := batch.NewDecoder(partitions).Decode(batch.Raw{Offset: offset, Timestamp: time.UnixMilli(1_760_000_000_000 + offset), Value: value})
	require.Empty(t, r.Reason, r.Detail)
	return &r
}

// odd are tuples that differ in what SQL, TSV and the key treat in a way of
// their own, at the ends of the time that can be stored and around 1970.
func odd(t *testing.T) []*batch.Record {
	t.Helper()
	var out []*batch.Record
	for i, name := range []string{"plain", "a:b", "a%3Ab", "100%", `back\slash`, "it's", "tab\tline\nreturn\r", "Ünïcødé 🙂 日本", `\N`, "(?)"} {
		for j, when := range []string{
			"1900-01-01T00:00:00Z", "1969-12-31T23:59:59.999999999Z", "1970-01-01T00:00:00Z", "2026-01-02T03:04:05.000000001Z",
			"2106-02-07T06:28:16Z", "2262-04-11T23:47:16Z",
		} {
			out = append(out, record(t, int64(10*i+j), name, "type:"+name, "%"+name, at(when)))
		}
	}
	return out
}

func TestKeysAreThoseOfThePartitionAndTheRange(t *testing.T) {
	s := migrated(t)
	ctx := t.Context()
	rows := odd(t)
	self := topic.Origin{TopicID: uuid.New()}
	require.NoError(t, s.Rows(ctx, "rows", self, rows))

	for _, tt := range []struct{ name, from, to string }{
		{"all that can be stored", "1900-01-01T00:00:00Z", "2300-01-01T00:00:00Z"},
		{"more than 64 bits of nanoseconds", "0001-01-01T00:00:00Z", "9999-01-01T00:00:00Z"},
		{"the last minute before 1970", "1969-12-31T23:59:00Z", "1970-01-01T00:00:00Z"},
		{"the first minute of 1970", "1970-01-01T00:00:00Z", "1970-01-01T00:01:00Z"},
		{"1900", "1900-01-01T00:00:00Z", "1901-01-01T00:00:00Z"},
		{"the end of time", "2262-04-11T23:47:00Z", "2262-04-11T23:48:00Z"},
		{"nothing", "2000-01-01T00:00:00Z", "2001-01-01T00:00:00Z"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			from, to := at(tt.from), at(tt.to)
			of := map[int32]map[uuid.UUID]int32{}
			want := map[int32]map[uuid.UUID]int32{}
			for p := range int32(partitions) {
				of[p], want[p] = map[uuid.UUID]int32{}, map[uuid.UUID]int32{}
				require.NoError(t, s.Keys(ctx, from, to, p, partitions, func(minute int32, id uuid.UUID) { of[p][id] = minute }))
			}
			for _, r := range rows {
				if o := r.Event.OccurredAt; !o.Before(from) && o.Before(to) {
					want[r.Home][r.ID] = int32(math.Floor(float64(o.Unix()) / 60))
				}
			}
			require.Equal(t, want, of)
		})
	}
}

func TestFirstOfFindsEveryKeyAndNoOther(t *testing.T) {
	s := migrated(t)
	ctx := t.Context()
	rows := odd(t)
	self := topic.Origin{TopicID: uuid.New(), Partition: 3}
	require.NoError(t, s.Rows(ctx, "rows", self, rows))

	none, err := s.FirstOf(ctx, nil)
	require.NoError(t, err)
	require.Empty(t, none)

	asked := append([]*batch.Record{}, rows...)
	for i, r := range rows { // neighbours: a nanosecond away, or another actor
		e := r.Event
		asked = append(asked, record(t, int64(1000+i), e.Source, e.EventType, e.ActorID+"'", e.OccurredAt))
		if e.OccurredAt.Before(event.Latest) {
			asked = append(asked, record(t, int64(2000+i), e.Source, e.EventType, e.ActorID, e.OccurredAt.Add(time.Nanosecond)))
		}
	}
	want := map[uuid.UUID]dedup.First{}
	for _, r := range rows {
		want[r.ID] = dedup.First{Origin: topic.Origin{TopicID: self.TopicID, Partition: 3, Offset: r.Offset}, Hash: r.Hash}
	}
	got, err := s.FirstOf(ctx, asked)
	require.NoError(t, err)
	require.Equal(t, want, got)

	for _, r := range rows {
		got, err := s.FirstOf(ctx, []*batch.Record{r})
		require.NoError(t, err)
		require.Equal(t, map[uuid.UUID]dedup.First{r.ID: want[r.ID]}, got, "alone: %s", r.Event.Key())
	}
}

// What a merge would keep is the earliest record: by its timestamp, then by its
// offset. Answered otherwise, a repeat could name a row that is gone later.
func TestFirstOfSeveralRowsIsTheOneThatStays(t *testing.T) {
	s := migrated(t)
	ctx := t.Context()
	require.NoError(t, s.Conn().Exec(ctx, "SYSTEM STOP MERGES event_log"))
	when := at("2026-01-02T03:04:05Z")
	self := topic.Origin{TopicID: uuid.New()}
	// By offset: 7 is stamped like 5, and 3 later than both.
	for i, offset := range []int64{7, 5, 3} {
		r := record(t, offset, "s", "t", "a", when)
		r.Timestamp = time.UnixMilli(1000)
		if offset == 3 {
			r.Timestamp = time.UnixMilli(2000)
		}
		require.NoError(t, s.Rows(ctx, fmt.Sprint("row ", i), self, []*batch.Record{r}))
	}
	r := record(t, 9, "s", "t", "a", when)
	got, err := s.FirstOf(ctx, []*batch.Record{r})
	require.NoError(t, err)
	require.EqualValues(t, 5, got[r.ID].Origin.Offset)

	require.NoError(t, s.Conn().Exec(ctx, "SYSTEM START MERGES event_log"))
	require.NoError(t, s.Conn().Exec(ctx, "OPTIMIZE TABLE event_log FINAL"))
	merged, err := s.FirstOf(ctx, []*batch.Record{r})
	require.NoError(t, err)
	require.Equal(t, got, merged)
}

func TestKeysSaysWhenItCouldNotReadAll(t *testing.T) {
	s := migrated(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := s.Keys(ctx, event.Earliest, event.Latest, 0, 1, func(int32, uuid.UUID) {})
	require.ErrorIs(t, err, context.Canceled)
}
