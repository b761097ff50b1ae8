package partition

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/index"
	"sluice/schemas/event"
)

// empty is a ClickHouse that has no row, and counts the keys that it is asked for.
type empty struct {
	Store
	asked int
}

func (*empty) Keys(context.Context, time.Time, time.Time, int32, int32, func(int32, uuid.UUID)) error {
	return nil
}

func (e *empty) FirstOf(_ context.Context, records []*batch.Record) (map[uuid.UUID]dedup.First, error) {
	e.asked += len(records)
	return nil, nil
}

// took is what was taken on purpose: all, or nothing.
type took bool

func (t took) Fate(*event.Event) (dedup.Fate, bool) { return dedup.Erased, bool(t) }

func claiming(t *testing.T, gone *took) (*Owner, *empty) {
	t.Helper()
	st := &empty{}
	o := &Owner{store: st, logger: slog.New(slog.DiscardHandler), cfg: Config{
		Index: index.NewBudget(256<<20, 1), Gone: func(context.Context) (Gone, error) { return *gone, nil },
	}}
	o.load(t.Context())
	t.Cleanup(o.index.Close)
	require.NoError(t, o.index.Wait(t.Context()))
	return o, st
}

func batchOf(from int64, ids ...uuid.UUID) *batch.Batch {
	b := batch.New(from)
	for i, id := range ids {
		r := &batch.Record{Raw: batch.Raw{Offset: from + int64(i)}, ID: id}
		r.Event.OccurredAt = time.Now()
		b.Add(r)
	}
	return b
}

func newIDs(n int) []uuid.UUID {
	ids := make([]uuid.UUID, n)
	for i := range ids {
		ids[i] = uuid.New()
	}
	return ids
}

// A batch is decided again when something was erased between its decision and its
// intent. All of its claims looked like keys of lost rows: each was asked for, and the
// index of 45 days was dropped.
func TestABatchDecidedAgainAsksForNothing(t *testing.T) {
	gone := took(false)
	o, st := claiming(t, &gone)
	ids := newIDs(10_000)
	w := &writing{b: batchOf(0, append(ids, ids[:100]...)...), live: true}
	for range 3 {
		decisions, err := o.decide(t.Context(), w)
		require.NoError(t, err)
		require.Equal(t, dedup.Row, decisions[0].Fate)
		require.Equal(t, dedup.Duplicate, decisions[len(ids)].Fate)
	}
	o.remember(w, o.sort(w.b, o.decisions))
	_, err := o.decide(t.Context(), &writing{b: batchOf(20_000, newIDs(10_000)...), live: true})
	require.NoError(t, err)
	require.Zero(t, st.asked)
	require.Zero(t, o.index.Stats().Stale)

	gone = true
	decisions, err := o.decide(t.Context(), w)
	require.NoError(t, err)
	require.Equal(t, dedup.Erased, decisions[0].Fate)
}

// What was erased, or has expired, claims nothing: it may be sent for ever.
func TestWhatIsGoneClaimsNothing(t *testing.T) {
	gone := took(true)
	o, st := claiming(t, &gone)
	ids := newIDs(5_000)
	for n := range 3 {
		decisions, err := o.decide(t.Context(), &writing{b: batchOf(int64(n*len(ids)), ids...), live: true})
		require.NoError(t, err)
		require.Equal(t, dedup.Erased, decisions[0].Fate)
	}
	require.Zero(t, st.asked)
	require.Zero(t, o.index.Stats().Keys)
}
