package spool

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct{ trips prometheus.Counter }

func newMetrics(reg *prometheus.Registry, s *Spool) *metrics {
	m := &metrics{trips: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "sluice_ingest_spool_trips_total",
		Help: "How often the log stopped acknowledging in time, so that events went to the spool.",
	})}
	syncs := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "sluice_ingest_spool_sync_duration_seconds",
		Help:    "Time that a sync of the spool's file took; each answers all who waited.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
	})
	s.store.synced = func(took time.Duration) { syncs.Observe(took.Seconds()) }
	reg.MustRegister(m.trips, syncs)
	gauge := func(name, help string, value func(st Status) float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "sluice_ingest_spool_" + name, Help: help},
			func() float64 { return value(s.store.Status()) }))
	}
	counter := func(name, help string, value func(c Counts) int64) {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "sluice_ingest_spool_" + name, Help: help},
			func() float64 { return float64(value(s.store.Status().Counts)) }))
	}
	gauge("bytes", "Bytes of the spool's segments.", func(st Status) float64 { return float64(st.Bytes) })
	gauge("limit_bytes", "The bound on sluice_ingest_spool_bytes.", func(st Status) float64 { return float64(st.LimitBytes) })
	gauge("records", "Records in the spool that the log has not acknowledged.", func(st Status) float64 { return float64(st.Records) })
	gauge("oldest_seconds", "Age of the oldest record in the spool, exact to a segment; 0 when it is empty.", func(st Status) float64 {
		if st.Oldest == nil {
			return 0
		}
		return max(0, time.Since(*st.Oldest).Seconds())
	})
	gauge("ready", "1 when the spool takes records, 0 when it is full or its disk fails.", func(st Status) float64 {
		if st.Problem != "" {
			return 0
		}
		return 1
	})
	gauge("waiting_to_be_set_aside", "Refused records and damaged parts that must go aside and can't yet, because the disk takes no file.", func(st Status) float64 { return float64(st.Waiting) })
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "sluice_ingest_spool_in_use", Help: "1 while all events go to the spool, because the log did not acknowledge in time.",
	}, func() float64 {
		if _, open := s.flow.state(); open {
			return 1
		}
		return 0
	}), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "sluice_ingest_spool_drain_bytes_per_second", Help: "Bytes a second that the log took from the spool of late.",
	}, func() float64 { return s.speed.at(time.Now()) }))
	counter("appended_records_total", "Records put into the spool.", func(c Counts) int64 { return c.Appended })
	counter("drained_records_total", "Records that the log has taken from the spool, or that were set aside.", func(c Counts) int64 { return c.Acked })
	counter("full_total", "Times records were refused because the bound on the spool's bytes was reached.", func(c Counts) int64 { return c.Full })
	counter("disk_errors_total", "Writes that the spool's disk did not take.", func(c Counts) int64 { return c.DiskErrors })
	counter("damaged_regions_total", "Parts of the spool that could not be read, and were kept aside.", func(c Counts) int64 { return c.DamagedRegions })
	counter("damaged_bytes_total", "Bytes of those parts.", func(c Counts) int64 { return c.DamagedBytes })
	counter("torn_bytes_total", "Bytes of a cut off write that were removed at the start.", func(c Counts) int64 { return c.TornBytes })
	counter("refused_records_total", "Records that the log refuses for good, and that were set aside.", func(c Counts) int64 { return c.Aside })
	return m
}

// State is the spool as an operator sees it.
type State struct {
	Status
	// InUse: the log did not acknowledge in time, and all events go here.
	InUse bool `json:"in_use"`
	// DrainBytesPerSecond is how much the log took of late.
	DrainBytesPerSecond float64 `json:"drain_bytes_per_second"`
	// RetryAfterSeconds is what senders are told when it is full.
	RetryAfterSeconds float64 `json:"retry_after_seconds"`
}

// State tells how the spool is. It reads what is aside from the disk.
func (s *Spool) State() (State, error) {
	st := State{Status: s.store.Status(), DrainBytesPerSecond: s.speed.at(time.Now()), RetryAfterSeconds: s.RetryAfter().Seconds()}
	_, st.InUse = s.flow.state()
	var err error
	st.Kept, err = KeptIn(s.cfg.Dir)
	return st, err
}
