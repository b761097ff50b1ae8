package admission

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func (l *Limiter) register(reg prometheus.Registerer) {
	l.admitted = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "sluice_ingest_admission_admitted_total",
		Help: "Posts that were let in.",
	})
	l.full = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "sluice_ingest_admission_full_total",
		Help: "Posts refused because as much was inside as is got through in time.",
	})
	if reg == nil {
		return
	}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "sluice_ingest_admission_" + name, Help: help}, value)
	}
	reg.MustRegister(l.admitted, l.full,
		gauge("inside_bytes", "What is inside: bodies that are not in the log yet, and 3 KiB for each request.", func() float64 { return float64(l.inside.Load()) }),
		gauge("limit_bytes", "The bound on sluice_ingest_admission_inside_bytes.", func() float64 { return float64(l.limit.Load()) }),
		gauge("base_seconds", "The time that a request takes with none before it, from its body to the log's acknowledgement.", func() float64 { return time.Duration(l.base.Load()).Seconds() }),
		gauge("ahead_seconds", "How long what is inside takes at the rate seen.", func() float64 { return float64(l.inside.Load()) / float64(max(1, l.rate.Load())) }))
}
