package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"

	"sluice/deploy/bench/scratch"
)

// bench is one run.
type bench struct {
	scratch.Client
	cfg   config
	words io.Writer
}

// goal is how long a question may take at the median.
const goal = 100 * time.Millisecond

// figure is what was found of one question. Times are medians in milliseconds.
type figure struct {
	Question string  `json:"question"`
	How      string  `json:"answered_by"`
	MS       float64 `json:"ms"`
	WorstMS  float64 `json:"worst_ms"`
	Rows     int64   `json:"rows_read"`
	Bytes    int64   `json:"bytes_read"`
	RawMS    float64 `json:"raw_ms"`
	RawRows  int64   `json:"raw_rows_read"`
	RawBytes int64   `json:"raw_bytes_read"`
	Answer   int     `json:"answer_rows"`
	// Equal: the scan of the rows gave the same answer.
	Equal bool `json:"equal"`
}

// prepare makes the tables and their rows.
func (b *bench) prepare(ctx context.Context, now time.Time) error {
	if err := b.Migrate(ctx); err != nil {
		return err
	}
	begin := time.Now()
	told := begin
	err := fill(ctx, b.Client, b.cfg.rows, now, func(done int) {
		if time.Since(told) > 15*time.Second {
			told = time.Now()
			fmt.Fprintf(b.words, "%d rows of %d, %.0f a second\n", done, b.cfg.rows, float64(done)/time.Since(begin).Seconds())
		}
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(b.words, "%d rows in %s\n", b.cfg.rows, time.Since(begin).Round(time.Second))
	parts, merging, err := settle(ctx, b.Client, b.cfg.settle)
	if merging {
		fmt.Fprintf(b.words, "merges go on after %s: figures are taken beside them\n", b.cfg.settle)
	}
	fmt.Fprintf(b.words, "%d parts, %s after the first row\n", parts, time.Since(begin).Round(time.Second))
	return err
}

// measure asks every question and its scan, and tells.
func (b *bench) measure(ctx context.Context, now time.Time, out io.Writer) error {
	var size struct {
		Rows   int64 `json:",string"`
		Bytes  int64 `json:",string"`
		Parts  int64 `json:",string"`
		Months int64 `json:",string"`
		Engine string
	}
	if err := b.One(ctx, `SELECT sum(rows) AS Rows, sum(bytes_on_disk) AS Bytes, count() AS Parts, uniqExact(partition) AS Months, version() AS Engine FROM system.parts WHERE database = currentDatabase() AND table = 'event_log' AND active`, &size); err != nil {
		return err
	}
	fmt.Fprintf(b.words, "ClickHouse %s: %d rows, %s on disk (%.0f bytes a row, projections and all), %d parts in %d months; each question %d times, the scan %d times\n",
		size.Engine, size.Rows, units.HumanSize(float64(size.Bytes)), float64(size.Bytes)/float64(max(size.Rows, 1)), size.Parts, size.Months, b.cfg.runs, b.scans())
	var someone struct{ Actor string }
	if err := b.One(ctx, fmt.Sprintf("SELECT any(actor_id) AS Actor FROM event_log WHERE partition = 5 AND offset = %d", size.Rows/24), &someone); err != nil {
		return err
	}
	var figures []figure
	for _, q := range questions(now, someone.Actor) {
		f, err := b.question(ctx, q)
		if err != nil {
			return fmt.Errorf("%s: %w", q.Name, err)
		}
		figures = append(figures, f)
	}
	table := out
	if b.cfg.json {
		table = b.words
		for _, f := range figures {
			if err := json.NewEncoder(out).Encode(f); err != nil {
				return err
			}
		}
	}
	if err := write(table, figures); err != nil {
		return err
	}
	var wrong error
	for _, f := range figures {
		if !f.Equal {
			wrong = errors.Join(wrong, fmt.Errorf("%s: the scan of the rows answers otherwise", f.Question))
		}
		if f.Answer == 0 {
			wrong = errors.Join(wrong, fmt.Errorf("%s: no rows", f.Question))
		}
	}
	return wrong
}

func (b *bench) scans() int { return max(1, b.cfg.runs/3) }

// question asks q, and the scan, after one time each that does not count.
func (b *bench) question(ctx context.Context, q question) (figure, error) {
	f := figure{Question: q.Name, How: q.How}
	var times []time.Duration
	var got, want *scratch.Answer
	for i := range b.cfg.runs + 1 {
		a, err := b.Ask(ctx, q.SQL, "")
		if err != nil {
			return f, err
		}
		if got = a; i > 0 {
			times = append(times, a.Took)
		}
	}
	f.MS, f.WorstMS = milliseconds(median(times)), milliseconds(times[len(times)-1])
	f.Rows, f.Bytes, f.Answer = got.Statistics.RowsRead, got.Statistics.BytesRead, len(got.Data)
	times = nil
	for i := range b.scans() + 1 {
		a, err := b.Ask(ctx, q.Raw, plain)
		if err != nil {
			return f, fmt.Errorf("the scan: %w", err)
		}
		if want = a; i > 0 {
			times = append(times, a.Took)
		}
	}
	f.RawMS, f.RawRows, f.RawBytes = milliseconds(median(times)), want.Statistics.RowsRead, want.Statistics.BytesRead
	f.Equal = slices.EqualFunc(got.Data, want.Data, func(x, y json.RawMessage) bool { return string(x) == string(y) })
	if !f.Equal {
		fmt.Fprintf(b.words, "%s: %.400s\n  the scan: %.400s\n", q.Name, got.Data, want.Data)
	}
	return f, nil
}

func milliseconds(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond)) / float64(time.Millisecond)
}

func write(w io.Writer, figures []figure) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "question\tms\tworst\trows read\tbytes read\tscan ms\tscan rows\tscan bytes\ttimes\t\n")
	for _, f := range figures {
		over := ""
		if f.MS > milliseconds(goal) {
			over = " over"
		}
		fmt.Fprintf(t, "%s\t%.1f%s\t%.1f\t%d\t%s\t%.1f\t%d\t%s\t%.0f\t\n", f.Question, f.MS, over, f.WorstMS, f.Rows, units.HumanSize(float64(f.Bytes)),
			f.RawMS, f.RawRows, units.HumanSize(float64(f.RawBytes)), f.RawMS/f.MS)
	}
	return t.Flush()
}
