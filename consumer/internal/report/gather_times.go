package report

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// more is the label of what is past every bound.
const more = "more"

// bound is the upper end of a bucket; the last bucket has none.
type bound struct {
	label string
	most  time.Duration
}

var freshBounds = [...]bound{
	{"100 ms", 100 * time.Millisecond}, {"250 ms", 250 * time.Millisecond}, {"500 ms", 500 * time.Millisecond}, {"1 s", time.Second},
	{"2.5 s", 2500 * time.Millisecond}, {"5 s", 5 * time.Second}, {"30 s", 30 * time.Second}, {"5 min", 5 * time.Minute}, {more, 0},
}

var lateBounds = [...]bound{
	{"1 s", time.Second}, {"1 min", time.Minute}, {"10 min", 10 * time.Minute}, {"1 hour", time.Hour}, {"6 hours", 6 * time.Hour},
	{"1 day", 24 * time.Hour}, {"1 week", 7 * 24 * time.Hour}, {"30 days", 30 * 24 * time.Hour}, {more, 0},
}

// buckets counts the range's rows by a difference in milliseconds.
func (g *gathering) buckets(difference string, bounds []bound) ([]Bucket, error) {
	var names []string
	for _, b := range bounds[:len(bounds)-1] {
		names = append(names, fmt.Sprintf("d <= %d", b.most.Milliseconds()), fmt.Sprint(len(names)/2))
	}
	expression := "multiIf(" + strings.Join(names, ", ") + ", " + fmt.Sprint(len(bounds)-1) + ")"
	out := make([]Bucket, len(bounds))
	for i, b := range bounds {
		out[i].Label = b.label
	}
	where, args := g.within("occurred_at")
	err := g.rows(func(scan func(...any) error) error {
		var i int64
		var n uint64
		if err := scan(&i, &n); err != nil {
			return err
		}
		out[i].Events = n
		return nil
	}, "SELECT toInt64("+expression+") AS i, count() FROM (SELECT "+difference+" AS d FROM event_log WHERE "+where+") GROUP BY i", args...)
	return out, err
}

func (g *gathering) freshness() error {
	if g.r.Events == 0 {
		return nil
	}
	const difference = "dateDiff('millisecond', received_at, inserted_at)"
	where, args := g.within("occurred_at")
	var quantiles []float64
	var longest int64
	err := g.conn.QueryRow(g.ctx, "SELECT quantiles(0.5, 0.9, 0.99)(d), max(d) FROM (SELECT "+difference+" AS d FROM event_log WHERE "+where+")", args...).Scan(&quantiles, &longest)
	if err != nil {
		return err
	}
	if len(quantiles) != 3 {
		return errors.New("three quantiles were asked for")
	}
	of := func(milliseconds float64) time.Duration {
		return time.Duration(milliseconds * float64(time.Millisecond))
	}
	f := &Freshness{P50: of(quantiles[0]), P90: of(quantiles[1]), P99: of(quantiles[2]), Longest: of(float64(longest))}
	f.Buckets, err = g.buckets(difference, freshBounds[:])
	g.r.Freshness = f
	return err
}

func (g *gathering) late() (err error) {
	g.r.Late, err = g.buckets("dateDiff('millisecond', occurred_at, received_at)", lateBounds[:])
	return err
}

// completeness reads the view complete_through, where the schema has it.
func (g *gathering) completeness() error {
	c := &g.r.Completeness
	c.Sources = []Complete{}
	var there uint64
	if err := g.conn.QueryRow(g.ctx, "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name = 'complete_through'").Scan(&there); err != nil {
		return err
	}
	if there == 0 {
		c.Unknown = "This database has no view complete_through, so it is not known up to when the data is whole."
		return nil
	}
	err := g.rows(func(scan func(...any) error) error {
		var s Complete
		if err := scan(&s.Source, &s.Through); err != nil {
			return err
		}
		s.Through = s.Through.UTC()
		c.Sources = append(c.Sources, s)
		return nil
	}, "SELECT toString(source) AS name, complete_through AS through FROM complete_through ORDER BY through, name")
	if err == nil && len(c.Sources) == 0 {
		c.Unknown = "The view complete_through has no line yet: no edge has said up to when it has passed everything on."
	}
	return err
}

func (g *gathering) balance() error {
	return g.rows(func(scan func(...any) error) error {
		var l Line
		if err := scan(&l.Topic, &l.Partition, &l.Records, &l.Rows, &l.Duplicates, &l.Conflicts, &l.DeadLettered, &l.Others, &l.Difference, &l.Repeats); err != nil {
			return err
		}
		g.r.Balance = append(g.r.Balance, l)
		return nil
	}, `SELECT toString(topic_id), partition, records, rows, duplicates, conflicts, dead_lettered,
		forwarded + expired + erased + skipped + lost AS others, difference, repeats
		FROM balance ORDER BY topic_id, partition`)
}
