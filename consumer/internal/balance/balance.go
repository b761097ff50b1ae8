// Package balance asks ClickHouse, in the background, whether its sheet adds up,
// and shows the answer as metrics. The figures are the view's, hence the
// tables', and owe nothing to what this process believes to have written.
package balance

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
)

// Sheet is one line of the view balance: a log id and partition.
type Sheet struct {
	LogID     uuid.UUID
	Partition int32
	// Fates are counts of records: "rows" and the sheet's other columns.
	Fates map[string]uint64
	// Difference is 0 when every journaled record has a row or a fate and
	// none has both; see the view for its sign.
	Difference int64
	// Gaps between journaled ranges, offsets that Overlap, rows stored again
	// (Repeats), records that are both a row and a fate (Twice): 0 when well.
	Gaps, Overlaps, Repeats, Twice uint64
}

// Wrong tells whether anything in the line is not as it should be.
func (s Sheet) Wrong() bool {
	return s.Difference != 0 || s.Gaps != 0 || s.Overlaps != 0 || s.Repeats != 0 || s.Twice != 0
}

// columns are the fates, as the view and the metric's label name them.
var columns = [...]string{"rows", "duplicates", "conflicts", "dead_lettered", "forwarded", "expired", "erased", "skipped", "lost", "cut"}

// Read reads the whole sheet.
func Read(ctx context.Context, conn driver.Conn) ([]Sheet, error) {
	rows, err := conn.Query(ctx, `
		SELECT topic_id, partition, rows, duplicates, conflicts, dead_lettered, forwarded, expired, erased, skipped, lost, cut,
			difference, gaps, overlaps, repeats, twice
		FROM balance ORDER BY partition, topic_id`)
	if err != nil {
		return nil, fmt.Errorf("the balance: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err below tells
	var out []Sheet
	for rows.Next() {
		s := Sheet{Fates: map[string]uint64{}}
		var n [len(columns)]uint64
		into := []any{&s.LogID, &s.Partition}
		for i := range n {
			into = append(into, &n[i])
		}
		if err := rows.Scan(append(into, &s.Difference, &s.Gaps, &s.Overlaps, &s.Repeats, &s.Twice)...); err != nil {
			return nil, fmt.Errorf("the balance: %w", err)
		}
		for i, column := range columns {
			s.Fates[column] = n[i]
		}
		out = append(out, s)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("the balance: %w", err)
	}
	return out, nil
}

// Missing is how many journaled records have neither row nor fate: rows or lines of the
// journal were lost. With writes going on one reading may be of two instants, so it reads
// up to five times, 200 ms apart, until none is missing, and says what was in each.
func Missing(ctx context.Context, conn driver.Conn) (n uint64, err error) {
	type line struct {
		log       uuid.UUID
		partition int32
	}
	least := map[line]int64{}
	for i := range 5 {
		sheets, err := Read(ctx, conn)
		if err != nil {
			return 0, err
		}
		n = 0
		for _, s := range sheets {
			at := line{s.LogID, s.Partition}
			if was, ok := least[at]; !ok || s.Difference < was {
				least[at] = s.Difference
			}
			n += uint64(max(least[at], 0))
		}
		if n == 0 || i == 4 {
			break
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
	return n, nil
}

// Config configures a checker.
type Config struct {
	// Interval is from one check's end to the next one's begin. Default 1
	// minute.
	Interval time.Duration
	// Timeout bounds one check. Default 30 seconds.
	Timeout time.Duration
}

// Checker reads the sheet again and again. It is for one Run.
type Checker struct {
	cfg    Config
	conn   driver.Conn
	logger *slog.Logger

	unregister func()

	difference, gaps, overlaps, repeats *prometheus.GaugeVec
	records                             *prometheus.GaugeVec
	checked                             prometheus.Gauge
	failures                            prometheus.Counter
	wrong                               map[int32]bool // as it was logged
}

// New returns a checker that reports to reg; nothing happens until Run.
//
// A partition's figures are the sums over all log ids that have been its: a
// fault of an older topic is none the less one. In difference the lines' signs
// are dropped, so that they can't make up for each other.
func New(cfg Config, conn driver.Conn, reg prometheus.Registerer, logger *slog.Logger) *Checker {
	if cfg.Interval <= 0 {
		cfg.Interval = time.Minute
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 30 * time.Second
	}
	gauge := func(name, help, label string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "sluice_consumer_balance_" + name, Help: help}, []string{label})
	}
	c := &Checker{
		cfg: cfg, conn: conn, logger: logger, wrong: map[int32]bool{},
		difference: gauge("difference", "Records that are not accounted for, or too often, by the view balance; 0 when all is well.", "partition"),
		gaps:       gauge("gaps", "Holes between the journaled ranges of offsets.", "partition"),
		overlaps:   gauge("overlaps", "Offsets that more than one journaled range covers.", "partition"),
		repeats:    gauge("repeats", "Rows stored beyond one a record, not yet merged away.", "partition"),
		records:    gauge("records", "Records by what became of them, as ClickHouse has it, over all partitions.", "fate"),
		checked: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_consumer_balance_checked_timestamp_seconds", Help: "When the balance was last read.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_consumer_balance_failures_total", Help: "Times the balance could not be read.",
		}),
	}
	collectors := []prometheus.Collector{c.difference, c.gaps, c.overlaps, c.repeats, c.records, c.checked, c.failures}
	reg.MustRegister(collectors...)
	c.unregister = func() {
		for _, x := range collectors {
			reg.Unregister(x)
		}
	}
	return c
}

// Close takes the metrics back, so that another checker can report.
func (c *Checker) Close() { c.unregister() }

// Run checks at once and then at every interval, until ctx ends. What can't be
// read is logged and tried again; the figures stay as they were.
func (c *Checker) Run(ctx context.Context) {
	for {
		if err := c.check(ctx); err != nil && ctx.Err() == nil {
			c.failures.Inc()
			c.logger.Warn("the balance can't be read; its metrics are of the last time it could", "error", err, "again_in", c.cfg.Interval)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(c.cfg.Interval):
		}
	}
}

func (c *Checker) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	sheets, err := Read(ctx, c.conn)
	if err != nil {
		return err
	}
	type sum struct{ difference, gaps, overlaps, repeats uint64 }
	partitions, fates := map[int32]sum{}, map[string]uint64{}
	wrong := map[int32]bool{}
	for _, s := range sheets {
		p := partitions[s.Partition]
		p.difference += uint64(max(s.Difference, -s.Difference))
		p.gaps += s.Gaps
		p.overlaps += s.Overlaps
		p.repeats += s.Repeats
		partitions[s.Partition] = p
		for fate, n := range s.Fates {
			fates[fate] += n
		}
		if s.Wrong() {
			wrong[s.Partition] = true
			if !c.wrong[s.Partition] { // once, not every minute
				c.logger.Error("the balance does not add up: \"consumer verify\" says which records", "partition", s.Partition, "log_id", s.LogID,
					"difference", s.Difference, "gaps", s.Gaps, "overlaps", s.Overlaps, "repeats", s.Repeats, "twice", s.Twice)
			}
		}
	}
	for p := range c.wrong {
		if !wrong[p] {
			c.logger.Info("the balance adds up again", "partition", p)
		}
	}
	c.wrong = wrong
	for _, g := range []*prometheus.GaugeVec{c.difference, c.gaps, c.overlaps, c.repeats} {
		g.Reset() // a topic that is gone leaves no figure behind
	}
	for p, s := range partitions {
		label := strconv.Itoa(int(p))
		c.difference.WithLabelValues(label).Set(float64(s.difference))
		c.gaps.WithLabelValues(label).Set(float64(s.gaps))
		c.overlaps.WithLabelValues(label).Set(float64(s.overlaps))
		c.repeats.WithLabelValues(label).Set(float64(s.repeats))
	}
	for fate, n := range fates {
		c.records.WithLabelValues(fate).Set(float64(n))
	}
	c.checked.SetToCurrentTime()
	return nil
}
