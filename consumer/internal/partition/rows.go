package partition

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/failure"
	"sluice/consumer/internal/mutant"
	"sluice/schemas/topic"
)

const (
	// mends is how many tokens the sequence of a range's mends has. Each time
	// rows are deleted and the same range is read again takes one more.
	mends = 16
	// mostRefused is how many rows of one batch ClickHouse may refuse before the
	// table is taken to be at fault.
	mostRefused = 100
)

// rows writes rows under token. When earlier attempts may have been made, the
// table is compared afterwards: a block under a token that was used before is
// dropped, and reported as written. What is missing then goes under the next
// token of a sequence that is the same for whoever mends this range, so that a
// late copy of a frozen member meets a used token.
//
// It returns the rows that ClickHouse refuses, each marked with the reason; all
// others stand then.
func (o *Owner) rows(ctx context.Context, token string, w *writing, rows []*batch.Record) (refused []*batch.Record, err error) {
	compare := w.compare
	for attempt := 0; len(rows) > 0; attempt++ {
		if attempt > Mends {
			return nil, fmt.Errorf("%d rows are not in event_log although ClickHouse took them", len(rows))
		}
		err := o.insert(ctx, MendToken(token, attempt), rows)
		if err != nil && failure.Of(err) == failure.Refused {
			refused, err := o.halve(ctx, token, rows, w.b.First, w.in.Last, err)
			if err != nil || len(refused) > 0 {
				return refused, err
			}
			compare = true // each half was taken; whether it was written is another thing
		} else if err != nil {
			return nil, err
		}
		if !compare || mutant.On("partial-block-not-compared") || mutant.On("no-comparison") {
			return nil, nil
		}
		if rows, err = o.absent(ctx, rows); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// Mends is after how many attempts no token of a sequence is left.
const Mends = mends + 2

// MendToken is the nth token of the sequence that whoever mends a batch walks: its
// own first.
func MendToken(token string, attempt int) string {
	switch {
	case attempt == 0:
		return token
	case attempt <= mends:
		return fmt.Sprintf("%s/mend/%d", token, attempt-1)
	}
	return token + "/mend/" + uuid.NewString()
}

// insert is one INSERT, if the intent is fresh.
func (o *Owner) insert(ctx context.Context, token string, rows []*batch.Record) error {
	if err := o.fresh(ctx); err != nil {
		return err
	}
	if err := o.at(PointInsert); err != nil {
		return err
	}
	if err := o.store.Rows(ctx, token, o.self, rows); err != nil {
		return err
	}
	return o.at(PointInserted)
}

// absent are the rows that the table does not have.
func (o *Owner) absent(ctx context.Context, rows []*batch.Record) ([]*batch.Record, error) {
	have, err := o.store.RowsIn(ctx, o.self, rows[0].Offset, rows[len(rows)-1].Offset)
	if err != nil {
		return nil, err
	}
	var out []*batch.Record
	for _, r := range rows {
		if have[r.Offset] != r.ID {
			out = append(out, r)
		}
	}
	return out, nil
}

// halve finds the rows that make an INSERT of rows, all of offsets first to last,
// fail: it halves the range of offsets and writes what is absent of each half
// under the token of that half, and halves again what fails. A row that fails
// alone is the fault, and cause says why.
//
// Ranges are halved rather than what is absent of them: whoever mends this batch
// walks the same ranges, so a late half of a frozen member meets a used token.
func (o *Owner) halve(ctx context.Context, token string, rows []*batch.Record, first, last int64, cause error) (refused []*batch.Record, err error) {
	if len(rows) == 1 {
		rows[0].Reason, rows[0].Detail = topic.ReasonRefused, cause.Error()
		o.logger.Warn("ClickHouse refuses a row: it becomes a dead letter", "offset", rows[0].Offset, "event_id", rows[0].ID, "error", cause)
		return rows, nil
	}
	middle, at := first, 0
	for at == 0 || at == len(rows) { // narrow to the range that parts them
		middle = first + (last-first)/2
		at, _ = slices.BinarySearchFunc(rows, middle+1, func(r *batch.Record, offset int64) int { return cmp.Compare(r.Offset, offset) })
		if at == 0 {
			first = middle + 1
		} else if at == len(rows) {
			last = middle
		}
	}
	if mutant.On("halves-of-what-is-absent") {
		at = len(rows) / 2
		first, middle, last = rows[0].Offset, rows[at].Offset-1, rows[len(rows)-1].Offset
	}
	for _, half := range []struct {
		rows        []*batch.Record
		first, last int64
	}{{rows[:at], first, middle}, {rows[at:], middle + 1, last}} {
		rows, err := o.absent(ctx, half.rows)
		if err != nil {
			return nil, err
		}
		if len(rows) == 0 {
			continue
		}
		err = o.insert(ctx, fmt.Sprintf("%s/part/%d-%d", token, half.first, half.last), rows)
		switch {
		case err == nil: // dropped under a used token or not: the batch is compared again
		case failure.Of(err) == failure.Refused:
			more, err := o.halve(ctx, token, rows, half.first, half.last, err)
			if err != nil {
				return nil, err
			}
			if refused = append(refused, more...); len(refused) > mostRefused {
				return refused, nil
			}
		default:
			return nil, err
		}
	}
	return refused, nil
}
