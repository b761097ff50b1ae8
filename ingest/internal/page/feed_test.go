package page

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"sluice/deploy/service"
	"sluice/ingest/internal/health"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type world struct {
	reg      *prometheus.Registry
	events   *prometheus.CounterVec
	duration *prometheus.HistogramVec
	spool    prometheus.Gauge
	feed     *Feed
}

func newWorld() *world {
	w := &world{reg: prometheus.NewRegistry()}
	w.events = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sluice_ingest_events_total"}, []string{"outcome"})
	w.duration = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "sluice_ingest_request_duration_seconds", Buckets: []float64{0.001, 0.002, 0.004}}, []string{"route"})
	w.spool = prometheus.NewGauge(prometheus.GaugeOpts{Name: "sluice_ingest_spool_bytes"})
	w.reg.MustRegister(w.events, w.duration, w.spool)
	w.feed = NewFeed(Source{
		Metrics: w.reg,
		Health: func() health.Report {
			return health.Report{Status: "up", Ready: true, Checks: []health.CheckReport{{Name: "kafka"}}}
		},
		Errors: func() []service.Logged { return []service.Logged{{Message: "oh", Count: 3}} },
		Mode:   func() string { return "sync" },
		Build:  service.Build{Version: "v1"},
	})
	return w
}

// TestFeed: rates are of the last second, quantiles of its posts alone, and what
// is kept is bounded.
func TestFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.events.WithLabelValues("accepted").Add(1e6) // before it looked
		w.duration.WithLabelValues("event").Observe(9)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.feed.Run(ctx) }()
		synctest.Wait()
		require.Empty(t, w.read(t).Samples, "a rate needs two moments")

		w.events.WithLabelValues("accepted").Add(100)
		w.events.WithLabelValues("rejected").Add(5)
		for range 100 {
			w.duration.WithLabelValues("event").Observe(0.0015)
		}
		w.duration.WithLabelValues("health").Observe(9) // no post
		w.spool.Set(4096)
		time.Sleep(time.Second)
		synctest.Wait()
		l := w.read(t)
		require.Equal(t, "sync", l.Mode)
		require.Equal(t, "v1", l.Version)
		require.Equal(t, "oh", l.Errors[0].Message)
		require.Equal(t, "kafka", l.Health.Checks[0].Name)
		require.Len(t, l.Samples, 1)
		s := l.Samples[0]
		require.InDelta(t, 100, s.Accepted, 0.01)
		require.InDelta(t, 5, s.Rejected, 0.01)
		require.InDelta(t, 100, s.Posts, 0.01)
		require.InDelta(t, 4096, s.Spool, 0)
		require.InDelta(t, 1.5, *s.P50, 0.01)
		require.InDelta(t, 1.95, *s.P95, 0.01)

		time.Sleep(10 * time.Minute)
		synctest.Wait()
		l = w.read(t)
		require.Len(t, l.Samples, sampleCount)
		require.Nil(t, l.Samples[0].P95, "no posts, no quantile")
		require.Zero(t, l.Samples[0].Accepted)
		stop()
		<-done
	})
}

func (w *world) read(t *testing.T) live {
	t.Helper()
	var l live
	require.NoError(t, json.Unmarshal(get(t, w.feed.Pages()["/page.json"], "/page.json").Body.Bytes(), &l))
	return l
}

// TestQuantile: as exact as the buckets are, and no number where there is none.
func TestQuantile(t *testing.T) {
	h := &histogram{bounds: []float64{0.001, 0.002}, counts: []float64{0, 0, 0}}
	require.Nil(t, h.quantile(0.5))
	h.counts = []float64{10, 10, 0}
	require.InDelta(t, 1, *h.quantile(0.5), 0.001)
	require.InDelta(t, 1.8, *h.quantile(0.9), 0.001)
	h.counts[2] = 100
	require.InDelta(t, 2, *h.quantile(0.99), 0.001, "at least the last bound")
}

// TestGatherFails: what cannot be gathered leaves the page as it was.
func TestGatherFails(t *testing.T) {
	f := NewFeed(Source{Metrics: failing{}})
	f.take(time.Now())
	require.Empty(t, f.all)
}

// TestLivePage: it fetches nothing from elsewhere, and may not.
func TestLivePage(t *testing.T) {
	w := get(t, newWorld().feed.Pages()["/{$}"], "/")
	require.NotRegexp(t, outside, string(livePage))
	require.Contains(t, w.Header().Get("Content-Security-Policy"), "connect-src 'self'")
	require.Less(t, len(livePage), 16<<10, "one small page")
}

type failing struct{}

func (failing) Gather() ([]*dto.MetricFamily, error) { return nil, errors.New("no") }
