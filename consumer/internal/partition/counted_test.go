package partition

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/store"
	"sluice/schemas/topic"
)

// lossy is a log of ten records and a ClickHouse that has lost what it had of them.
// Either may fail.
type lossy struct {
	Log
	Store
	log, store error
	counted    int
}

func (l *lossy) Counted(context.Context, topic.Origin) (int, bool, error) {
	return l.counted, true, nil
}

func (l *lossy) RowsIn(context.Context, topic.Origin, int64, int64) (map[int64]uuid.UUID, error) {
	return nil, l.store
}

func (l *lossy) FatesIn(context.Context, topic.Origin, int64, int64) (map[int64]dedup.Fate, error) {
	return nil, nil
}

func (l *lossy) Open(from int64) (Reader, error) { return &lossyReader{lossy: l, at: from}, nil }

type lossyReader struct {
	*lossy
	at int64
}

func (r *lossyReader) Next(context.Context) ([]batch.Raw, error) {
	if r.log != nil && r.at == 5 {
		return nil, r.log
	}
	r.at++
	return []batch.Raw{{Offset: r.at - 1}}, nil
}

func (r *lossyReader) Position() int64 { return r.at }
func (r *lossyReader) Close()          {}

// What the sheet lacks before a gap is told by reading it again. When ClickHouse did not
// answer meanwhile, what had been found until then was taken for all, and the journal
// was wrong by the rest for good.
func TestWhatIsLackingIsToldWholeOrNotAtAll(t *testing.T) {
	away := errors.New("away")
	for _, c := range []struct {
		name       string
		log, store error
		islands    []store.Range
		left       int
		fails      bool
	}{
		{name: "all is read", left: 10},
		{name: "ClickHouse does not answer", store: away, fails: true},
		{name: "the log is broken before the gap", log: away, left: 4},
		{name: "the log is broken beyond the gap", log: away, islands: []store.Range{{First: 4, End: 8}}, fails: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			fake := &lossy{log: c.log, store: c.store}
			limits := batch.DefaultLimits()
			limits.Rows = 2
			o := &Owner{
				cfg: Config{Limits: limits}, log: fake, store: fake, logger: slog.New(slog.DiscardHandler), decoder: batch.NewDecoder(1),
				segments: []segment{{}}, next: 10, islands: c.islands, torn: true, counted: -1,
			}
			left, err := o.countedLeft(t.Context())
			if c.fails {
				require.ErrorIs(t, err, away)
				require.Equal(t, -1, o.counted, "it is asked again")
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.left, left)
		})
	}
}
