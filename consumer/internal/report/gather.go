package report

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// Range says which events a report is of. The zero value is of the last 30 days
// that have events.
type Range struct {
	// From is the first moment, the zero time: 30 days before To.
	From time.Time
	// To is the first moment that is not in it, the zero time: the end of the
	// last hour that has an event.
	To time.Time
}

// days is how far back a report goes that was not told.
const days = 30

// top is how many sources and types are named.
const top = 8

// steps are the times a point may stand for, and mostPoints how many there may
// be at most.
var steps = [...]time.Duration{
	time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 3 * time.Hour, 6 * time.Hour,
	24 * time.Hour, 7 * 24 * time.Hour, 28 * 24 * time.Hour, 364 * 24 * time.Hour,
}

const mostPoints = 125

// Gather asks ClickHouse. Its figures are of one moment each, not all of the
// same: under traffic a later one may count some events more.
func Gather(ctx context.Context, conn driver.Conn, in Range) (*Report, error) {
	r := &Report{Made: time.Now().UTC()}
	g := gathering{ctx: ctx, conn: conn, r: r}
	if err := g.bounds(in); err != nil {
		return nil, err
	}
	for _, part := range []struct {
		what string
		ask  func() error
	}{
		{"events over time", g.points},
		{"repeats over time", g.repeats},
		{"events in all", g.totals},
		{"top sources", g.sources},
		{"top types", g.types},
		{"freshness", g.freshness},
		{"late events", g.late},
		{"completeness", g.completeness},
		{"the balance", g.balance},
	} {
		if err := part.ask(); err != nil {
			return nil, fmt.Errorf("asking ClickHouse for %s: %w", part.what, err)
		}
	}
	return r, nil
}

type gathering struct {
	ctx  context.Context
	conn driver.Conn
	r    *Report
}

// rows calls each for every row of an answer, with its scanner.
func (g *gathering) rows(each func(scan func(...any) error) error, query string, args ...any) error {
	rows, err := g.conn.Query(g.ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // Err below tells
	for rows.Next() {
		if err := each(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// bounds chooses range and step: the finest that makes at most mostPoints, and
// whole steps, so that rollups can answer.
func (g *gathering) bounds(in Range) error {
	if in.To.IsZero() {
		var last int64
		if err := g.conn.QueryRow(g.ctx, "SELECT toInt64(toUnixTimestamp64Second(max(hour))) FROM events_per_hour").Scan(&last); err != nil {
			return fmt.Errorf("asking ClickHouse for the last event: %w", err)
		}
		in.To = g.r.Made
		if last != 0 {
			in.To = time.Unix(last, 0).Add(time.Hour)
		}
	}
	if in.From.IsZero() {
		in.From = in.To.AddDate(0, 0, -days)
	}
	if !in.From.Before(in.To) {
		return fmt.Errorf("nothing lies between %s and %s: the beginning must be before the end", in.From.Format(time.RFC3339), in.To.Format(time.RFC3339))
	}
	g.r.Step = steps[len(steps)-1]
	for _, s := range steps {
		if in.To.Sub(in.From) <= mostPoints*s {
			g.r.Step = s
			break
		}
	}
	step := int64(g.r.Step / time.Second)
	floor := func(unix int64) int64 { return unix - ((unix%step)+step)%step }
	from, to := floor(in.From.Unix()), floor(in.To.Unix())
	if to < in.To.Unix() || in.To.Nanosecond() > 0 {
		to += step
	}
	g.r.From, g.r.To = time.Unix(from, 0).UTC(), time.Unix(to, 0).UTC()
	for at := from; at < to; at += step {
		g.r.Points = append(g.r.Points, Point{At: time.Unix(at, 0).UTC()})
		if len(g.r.Points) > 10*mostPoints {
			return fmt.Errorf("from %s to %s is too long a time for one page", in.From.Format(time.RFC3339), in.To.Format(time.RFC3339))
		}
	}
	return nil
}

// rollup is the view that answers by the step, and its column of time.
func (g *gathering) rollup() (view, column string) {
	if g.r.Step < time.Hour {
		return "events_per_minute", "minute"
	}
	return "events_per_hour", "hour"
}

// within is the range as a condition on a column of time, and its arguments.
func (g *gathering) within(column string) (string, []any) {
	at := "fromUnixTimestamp64Second(toInt64(?), 'UTC')"
	return "(" + column + " >= " + at + " AND " + column + " < " + at + ")", []any{g.r.From.Unix(), g.r.To.Unix()}
}

// step is the number of the step that a time lies in, as an expression; unix is
// one of the time's Unix seconds.
func (g *gathering) step(unix string) string {
	return fmt.Sprintf("toInt64(intDiv(%s - (%d), %d))", unix, g.r.From.Unix(), int64(g.r.Step/time.Second))
}

func (g *gathering) points() error {
	view, column := g.rollup()
	where, args := g.within(column)
	return g.rows(func(scan func(...any) error) error {
		var i int64
		var n uint64
		if err := scan(&i, &n); err != nil {
			return err
		}
		g.r.Points[i].Events = n
		return nil
	}, "SELECT "+g.step("toUnixTimestamp64Second("+column+")")+" AS i, sum(events) FROM "+view+" WHERE "+where+" GROUP BY i", args...)
}

func (g *gathering) repeats() error {
	where, args := g.within("occurred_at")
	return g.rows(func(scan func(...any) error) error {
		var i int64
		var duplicates, conflicts uint64
		if err := scan(&i, &duplicates, &conflicts); err != nil {
			return err
		}
		g.r.Points[i].Duplicates, g.r.Points[i].Conflicts = duplicates, conflicts
		g.r.Duplicates += duplicates
		g.r.Conflicts += conflicts
		return nil
	}, "SELECT "+g.step("intDiv(nanos - positiveModulo(nanos, toInt64(1000000000)), 1000000000)")+` AS i, sumIf(n, fate = 'duplicate'), sumIf(n, fate = 'conflict')
		FROM (
			SELECT toUnixTimestamp64Nano(occurred_at) AS nanos, fate, journal.records AS n
			FROM journal FINAL WHERE entry = 'fate' AND fate IN ('duplicate', 'conflict') AND `+where+`
		) GROUP BY i`, args...)
}

func (g *gathering) totals() error {
	view, column := g.rollup()
	where, args := g.within(column)
	err := g.conn.QueryRow(g.ctx, "SELECT sum(events), uniqExact(source), uniqExact(event_type) FROM "+view+" WHERE "+where, args...).
		Scan(&g.r.Events, &g.r.Sources, &g.r.Types)
	if err != nil {
		return err
	}
	where, args = g.within("occurred_at")
	return g.conn.QueryRow(g.ctx, "SELECT uniqCombined64(actor_id) FROM event_log WHERE "+where, args...).Scan(&g.r.Actors)
}

func (g *gathering) sources() error {
	view, column := g.rollup()
	where, args := g.within(column)
	at := map[string]int{}
	var names []any
	err := g.rows(func(scan func(...any) error) error {
		s := Source{Points: make([]uint64, len(g.r.Points))}
		if err := scan(&s.Name, &s.Events); err != nil {
			return err
		}
		at[s.Name] = len(g.r.TopSources)
		names = append(names, s.Name)
		g.r.TopSources = append(g.r.TopSources, s)
		return nil
	}, fmt.Sprintf("SELECT toString(source) AS name, sum(events) AS n FROM %s WHERE %s GROUP BY name ORDER BY n DESC, name LIMIT %d", view, where, top), args...)
	if err != nil || len(names) == 0 {
		return err
	}
	among := "source IN (" + strings.TrimSuffix(strings.Repeat("?, ", len(names)), ", ") + ")"
	err = g.rows(func(scan func(...any) error) error {
		var name string
		var i int64
		var n uint64
		if err := scan(&name, &i, &n); err != nil {
			return err
		}
		g.r.TopSources[at[name]].Points[i] = n
		return nil
	}, "SELECT toString(source) AS name, "+g.step("toUnixTimestamp64Second("+column+")")+" AS i, sum(events) FROM "+view+" WHERE "+where+" AND "+among+" GROUP BY name, i",
		slices.Concat(args, names)...)
	if err != nil {
		return err
	}
	where, args = g.within("occurred_at")
	return g.rows(func(scan func(...any) error) error {
		var name string
		var duplicates, conflicts uint64
		if err := scan(&name, &duplicates, &conflicts); err != nil {
			return err
		}
		s := &g.r.TopSources[at[name]]
		s.Duplicates, s.Conflicts = duplicates, conflicts
		return nil
	}, "SELECT toString(source) AS name, sumIf(journal.records, fate = 'duplicate'), sumIf(journal.records, fate = 'conflict') FROM journal FINAL WHERE entry = 'fate' AND fate IN ('duplicate', 'conflict') AND "+
		where+" AND "+among+" GROUP BY name", slices.Concat(args, names)...)
}

func (g *gathering) types() error {
	view, column := g.rollup()
	where, args := g.within(column)
	return g.rows(func(scan func(...any) error) error {
		var t Named
		if err := scan(&t.Name, &t.Events); err != nil {
			return err
		}
		g.r.TopTypes = append(g.r.TopTypes, t)
		return nil
	}, fmt.Sprintf("SELECT toString(event_type) AS name, sum(events) AS n FROM %s WHERE %s GROUP BY name ORDER BY n DESC, name LIMIT %d", view, where, top), args...)
}
