package partition

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/index"
)

// slowKeys is a ClickHouse whose keys come when let says so, and which knows a row
// of every key it is asked for.
type slowKeys struct {
	Store
	let   chan struct{}
	asked int
}

func (s *slowKeys) Keys(ctx context.Context, _, _ time.Time, _, _ int32, _ func(int32, uuid.UUID)) error {
	select {
	case <-s.let:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *slowKeys) FirstOf(_ context.Context, records []*batch.Record) (map[uuid.UUID]dedup.First, error) {
	s.asked += len(records)
	out := map[uuid.UUID]dedup.First{}
	for _, r := range records {
		out[r.ID] = dedup.First{Hash: r.Hash}
	}
	return out, nil
}

// A batch with many keys waits for the load that is under way rather than ask for
// all of them; when the load takes too long it asks.
func TestManyKeysWaitForTheLoad(t *testing.T) {
	for _, c := range []struct {
		name    string
		records int
		loaded  bool // in time
		bound   time.Duration
		asked   int
	}{
		{"many, and the load comes", askFirst, true, time.Hour, 0},
		{"many, and it does not", askFirst, false, time.Millisecond, askFirst},
		{"few", askFirst - 1, false, time.Hour, askFirst - 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer func(was time.Duration) { loadWait = was }(loadWait)
			loadWait = c.bound
			st := &slowKeys{let: make(chan struct{})}
			o := &Owner{store: st, cfg: Config{Index: index.NewBudget(1<<20, 1)}}
			o.load(t.Context())
			defer o.index.Close()
			b := batch.New(0)
			for i := range c.records {
				at := time.Now()
				b.Add(&batch.Record{Raw: batch.Raw{Offset: int64(i) + 1, Timestamp: at}, ID: uuid.New()})
				b.Records[i].Event.OccurredAt = at
			}
			if c.loaded {
				time.AfterFunc(20*time.Millisecond, func() { close(st.let) })
			}
			decisions, err := o.decide(t.Context(), &writing{b: b, live: true})
			require.NoError(t, err)
			require.Equal(t, c.asked, st.asked)
			want := dedup.Row
			if c.asked > 0 {
				want = dedup.Duplicate
			}
			for _, d := range decisions {
				require.Equal(t, want, d.Fate)
			}
		})
	}
}
