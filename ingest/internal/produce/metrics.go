package produce

import (
	"github.com/prometheus/client_golang/prometheus"

	"sluice/ingest/internal/delivery"
)

type metrics struct {
	acked    prometheus.Histogram
	failures map[string]prometheus.Counter
}

func newMetrics(reg *prometheus.Registry, p *Producer) *metrics {
	m := &metrics{
		acked: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "sluice_ingest_produce_duration_seconds",
			Help:    "Time from handing a request's records to the client until the last was settled.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15),
		}),
		failures: make(map[string]prometheus.Counter, len(reasons)),
	}
	failures := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sluice_ingest_produce_failures_total",
		Help: "Requests of which not every record was acknowledged, by the first reason.",
	}, []string{"reason"})
	for _, r := range reasons {
		m.failures[r] = failures.WithLabelValues(r)
	}
	reg.MustRegister(m.acked, failures,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "sluice_ingest_produce_buffer_bytes",
			Help: "Bytes held of records that are not acknowledged yet.",
		}, func() float64 { return float64(p.held.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "sluice_ingest_produce_buffer_limit_bytes",
			Help: "The bound on sluice_ingest_produce_buffer_bytes.",
		}, func() float64 { return float64(p.cfg.BufferBytes) }))
	return m
}

// count counts what a Send came to.
func (m *metrics) count(ds []*delivery.Delivery) {
	for _, d := range ds {
		if d.Err != nil {
			m.failures[reason(d.Err)].Inc()
			return
		}
	}
}
