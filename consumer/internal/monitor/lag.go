package monitor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// LagConfig says whose lag is measured, and how often.
type LagConfig struct {
	// Topic and Group are the topic and the consumer group.
	Topic, Group string
	// Interval is from one look's end to the next one's begin. Default 10
	// seconds.
	Interval time.Duration
	// Timeout bounds one look. Default 10 seconds.
	Timeout time.Duration
}

// Lag looks, again and again, how far the group's commits lie behind the log's
// ends. It tells of every partition, also of those that no member owns or that
// are halted: each member reports the same, and a query takes the greatest of
// one partition. It is for one Run.
type Lag struct {
	cfg        LagConfig
	admin      *kadm.Client
	logger     *slog.Logger
	records    *prometheus.GaugeVec
	unregister func()
}

// NewLag returns a Lag that reports to m's registry; nothing happens until Run.
func (m *Monitor) NewLag(cfg LagConfig, admin *kadm.Client, logger *slog.Logger) *Lag {
	if cfg.Interval <= 0 {
		cfg.Interval = 10 * time.Second
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 10 * time.Second
	}
	l := &Lag{cfg: cfg, admin: admin, logger: logger, records: prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "sluice_consumer_lag_records",
		Help: "Offsets between the group's commit and the log's end, of every partition.",
	}, []string{"partition"})}
	m.reg.MustRegister(l.records)
	l.unregister = func() { m.reg.Unregister(l.records) }
	return l
}

// Close takes the metric back, so that another Lag can report.
func (l *Lag) Close() { l.unregister() }

// Run looks at once and then at every interval, until ctx ends. When the broker
// does not answer there is no figure: an old one would look like a consumer that
// keeps up.
func (l *Lag) Run(ctx context.Context) {
	for {
		lags, err := l.look(ctx)
		if ctx.Err() != nil {
			return
		}
		l.records.Reset()
		if err != nil {
			l.logger.Warn("the lag is not known", "error", err, "again_in", l.cfg.Interval)
		}
		for p, n := range lags {
			l.records.WithLabelValues(strconv.Itoa(int(p))).Set(float64(n))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(l.cfg.Interval):
		}
	}
}

// look asks for the lag of each partition. One without a commit is read from the
// log's start.
func (l *Lag) look(ctx context.Context) (map[int32]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	defer cancel()
	commits, err := l.admin.FetchOffsets(ctx, l.cfg.Group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return nil, fmt.Errorf("the group's commits: %w", err)
	}
	starts, err := l.admin.ListStartOffsets(ctx, l.cfg.Topic)
	if err != nil {
		return nil, fmt.Errorf("the log's starts: %w", err)
	}
	ends, err := l.admin.ListCommittedOffsets(ctx, l.cfg.Topic)
	if err != nil {
		return nil, fmt.Errorf("the log's ends: %w", err)
	}
	lags := map[int32]int64{}
	var missing error
	ends.Each(func(end kadm.ListedOffset) {
		start, _ := starts.Lookup(l.cfg.Topic, end.Partition)
		if err := errors.Join(end.Err, start.Err); err != nil {
			missing = fmt.Errorf("partition %d: %w", end.Partition, err)
			return
		}
		from := start.Offset
		if commit, ok := commits.Lookup(l.cfg.Topic, end.Partition); ok && commit.Err == nil && commit.At > from {
			from = commit.At
		}
		lags[end.Partition] = max(0, end.Offset-from)
	})
	return lags, missing
}
