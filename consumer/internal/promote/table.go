package promote

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	schema "sluice/schemas/clickhouse"
)

// Existing is a column of event_log.
type Existing struct{ Name, Type, Kind, Comment string }

// Promoted tells whether it was promoted, and of which member.
func (e Existing) Promoted() (member string, ok bool) {
	member, ok = strings.CutPrefix(e.Comment, schema.PromotedComment)
	return member, ok && e.Kind == "MATERIALIZED"
}

// Table is event_log, and its views.
type Table struct{ Conn driver.Conn }

// Columns are all of event_log's, in its order.
func (t Table) Columns(ctx context.Context) ([]Existing, error) {
	return query(ctx, t.Conn, "SELECT name, type, toString(default_kind), comment FROM system.columns WHERE database = currentDatabase() AND table = ? ORDER BY position",
		[]any{schema.EventLog}, func(r driver.Rows, e *Existing) error { return r.Scan(&e.Name, &e.Type, &e.Kind, &e.Comment) })
}

// ErrTaken: the column can't be made under its name.
var ErrTaken = errors.New("the name is taken")

// Judge compares a column with those that are there: whether it is there already,
// and the names of those promoted before it. [ErrTaken] if another stands in its
// place.
func Judge(c Column, have []Existing) (there bool, others []string, err error) {
	if len(have) == 0 {
		return false, nil, fmt.Errorf("there is no table %s: run \"consumer migrate\" first", schema.EventLog)
	}
	for _, e := range have {
		member, promoted := e.Promoted()
		switch {
		case e.Name == c.Column && (!promoted || member != c.Name()):
			return false, nil, fmt.Errorf("%w: event_log has a column %s of its own or of another member (%s); --column gives another", ErrTaken, e.Name, strings.TrimSpace(e.Type+" "+e.Comment))
		case e.Name == c.Column && e.Type != c.Type():
			return false, nil, fmt.Errorf("%w: %s was promoted as %s, and by the schemas it is %s now; --column gives another", ErrTaken, e.Name, e.Type, c.Type())
		case e.Name == c.Column:
			there = true
		case promoted && member == c.Name():
			return false, nil, fmt.Errorf("%w: %s is promoted already, as the column %s", ErrTaken, member, e.Name)
		case promoted:
			others = append(others, e.Name)
		}
	}
	return there, others, nil
}

// Add makes the column, and the views with it. Run again it changes nothing.
func (t Table) Add(ctx context.Context, c Column) error {
	if err := t.Conn.Exec(ctx, c.Add()); err != nil {
		return fmt.Errorf("adding the column %s: %w", c.Column, err)
	}
	// Whoever promotes another at the same time makes the views too: the last to
	// make them must have seen both columns.
	for {
		before, err := t.promoted(ctx)
		if err != nil {
			return err
		}
		for _, s := range schema.EventsViews(before) {
			if err := t.Conn.Exec(ctx, s); err != nil {
				return fmt.Errorf("making the views with the column %s: %w", c.Column, err)
			}
		}
		after, err := t.promoted(ctx)
		if err != nil || slices.Equal(before, after) {
			return err
		}
	}
}

func (t Table) promoted(ctx context.Context) ([]string, error) {
	have, err := t.Columns(ctx)
	var out []string
	for _, e := range have {
		if _, ok := e.Promoted(); ok {
			out = append(out, e.Name)
		}
	}
	return out, err
}

// Month is a partition of event_log: how many rows its parts have, and how many of
// them lie in parts without the column.
type Month struct {
	ID   string `json:"month"`
	Rows uint64 `json:"rows"`
	Left uint64 `json:"left"`
	// Filling: a mutation is at it.
	Filling bool `json:"filling,omitempty"`
	// Fault is why a mutation could not go on.
	Fault string `json:"fault,omitempty"`
}

// Months is the state of all partitions, as the server tells it.
func (t Table) Months(ctx context.Context, column string) ([]Month, error) {
	return query(ctx, t.Conn, `
		SELECT p.partition_id, sum(p.rows), sumIf(p.rows, c.name = ''), any(m.parts > 0), any(m.fault)
		FROM (SELECT partition_id, name, rows FROM system.parts WHERE database = currentDatabase() AND table = ? AND active) AS p
		LEFT JOIN (SELECT name FROM system.parts_columns WHERE database = currentDatabase() AND table = ? AND active AND column = ?) AS c ON c.name = p.name
		LEFT JOIN
		(
			SELECT extract(command, 'IN PARTITION ID \'([^\']+)\'') AS id, count() AS parts, max(latest_fail_reason) AS fault
			FROM system.mutations
			WHERE database = currentDatabase() AND table = ? AND NOT is_done AND NOT is_killed AND match(command, ?)
			GROUP BY id
		) AS m ON m.id = p.partition_id
		GROUP BY p.partition_id ORDER BY p.partition_id
		SETTINGS join_use_nulls = 0`,
		[]any{schema.EventLog, schema.EventLog, column, schema.EventLog, "MATERIALIZE COLUMN `?" + column + "`? IN PARTITION"},
		func(r driver.Rows, m *Month) error { return r.Scan(&m.ID, &m.Rows, &m.Left, &m.Filling, &m.Fault) })
}

const (
	// again is how often a month may be begun: a part that was being written while
	// the column was added may come after the mutation that would have filled it.
	again = 5
	// atOnce and rowsAtOnce bound the months that are filled at the same time: many
	// small ones or one large one.
	atOnce, rowsAtOnce = 24, 1_000_000
)

// Fill fills the column, month by month. What is done is asked of the server and
// not remembered: cut short and run again it goes on where it was, and a month that
// a mutation is at is waited for, not begun a second time. done is told how many
// rows have it now.
func (t Table) Fill(ctx context.Context, c Column, poll time.Duration, done func(rows uint64)) error {
	begun := map[string]int{}
	for {
		months, err := t.Months(ctx, c.Column)
		if err != nil {
			return err
		}
		var have, left, filling uint64
		running := 0
		for _, m := range months {
			have, left = have+m.Rows-m.Left, left+m.Left
			if m.Fault != "" {
				return fmt.Errorf("month %s: %s (mend the cause, and the engine goes on by itself; or KILL MUTATION WHERE table = '%s' AND NOT is_done, and run this again)", m.ID, m.Fault, schema.EventLog)
			}
			if m.Filling {
				running, filling = running+1, filling+m.Left
			}
		}
		done(have)
		if left == 0 {
			return nil
		}
		for _, m := range months {
			if m.Left == 0 || m.Filling || running > 0 && (running >= atOnce || filling+m.Left > rowsAtOnce) {
				continue
			}
			if begun[m.ID]++; begun[m.ID] > again {
				return fmt.Errorf("month %s: %d rows are without the column after %d runs: run this again", m.ID, m.Left, again)
			}
			if err := t.Conn.Exec(ctx, c.Fill(m.ID)); err != nil {
				return fmt.Errorf("month %s: %w", m.ID, err)
			}
			running, filling = running+1, filling+m.Left
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(poll):
		}
	}
}

func query[T any](ctx context.Context, conn driver.Conn, text string, args []any, scan func(driver.Rows, *T) error) ([]T, error) {
	rows, err := conn.Query(ctx, text, args...)
	if err != nil {
		return nil, fmt.Errorf("asking about %s: %w", schema.EventLog, err)
	}
	defer rows.Close() //nolint:errcheck // Err below tells
	var out []T
	for rows.Next() {
		var v T
		if err := scan(rows, &v); err != nil {
			return nil, fmt.Errorf("asking about %s: %w", schema.EventLog, err)
		}
		out = append(out, v)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("asking about %s: %w", schema.EventLog, err)
	}
	return out, nil
}
