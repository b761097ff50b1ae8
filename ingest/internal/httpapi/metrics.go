package httpapi

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/ingest/internal/decode"
	"sluice/ingest/internal/problem"
	"sluice/schemas/event"
)

// Routes, as labels.
const (
	routeEvent  = "event"
	routeBatch  = "batch"
	routeHealth = "health"
	routePage   = "page"
	routeOther  = "other"
)

// metrics of the edge's HTTP interface. Every label set is closed, and every
// series exists from the start, so that a rate of zero shows as one.
type metrics struct {
	requests map[string]map[int]prometheus.Counter // by route and status
	duration map[string]prometheus.Observer
	events   struct{ accepted, rejected, failed prometheus.Counter }
	faults   map[event.FaultKind]prometheus.Counter
	problems map[*problem.Kind]prometheus.Counter
	panics   prometheus.Counter

	memoryFull prometheus.Counter
	told       struct{ atOnce, inTurn prometheus.Observer }
}

func newMetrics(reg *prometheus.Registry, budget *decode.Budget) *metrics {
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sluice_ingest_requests_total",
		Help: "Requests answered, by route and status.",
	}, []string{"route", "code"})
	duration := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "sluice_ingest_request_duration_seconds",
		Help:    "Time from a request's header to the end of its answer, by route.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
	}, []string{"route"})
	events := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sluice_ingest_events_total",
		Help: "Events posted, by what was answered.",
	}, []string{"outcome"})
	faults := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sluice_ingest_faults_total",
		Help: "Faults found in events that were rejected, by kind.",
	}, []string{"kind"})
	problems := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sluice_ingest_problems_total",
		Help: "Requests answered with a problem, by its name.",
	}, []string{"name"})
	m := &metrics{
		requests: map[string]map[int]prometheus.Counter{},
		duration: map[string]prometheus.Observer{},
		faults:   map[event.FaultKind]prometheus.Counter{},
		problems: map[*problem.Kind]prometheus.Counter{},
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_ingest_panics_total",
			Help: "Handlers that panicked.",
		}),
		memoryFull: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_ingest_admission_memory_full_total",
			Help: "Posts refused because the requests in flight held nine tenths of the memory set aside for them.",
		}),
	}
	told := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "sluice_ingest_admission_refusal_seconds",
		Help:    "Time from a refused post's header to the writing of its answer: of those told at once, and of those that waited for their turn.",
		Buckets: []float64{0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5},
	}, []string{"told"})
	m.told.atOnce, m.told.inTurn = told.WithLabelValues("at_once"), told.WithLabelValues("in_turn")
	statuses := map[int]bool{200: true, 202: true, 207: true}
	for _, k := range problem.Table() {
		statuses[k.Status] = true
		m.problems[k] = problems.WithLabelValues(k.Name)
	}
	for _, route := range []string{routeEvent, routeBatch, routeHealth, routePage, routeOther} {
		m.requests[route] = map[int]prometheus.Counter{}
		for status := range statuses {
			m.requests[route][status] = requests.WithLabelValues(route, strconv.Itoa(status))
		}
		m.duration[route] = duration.WithLabelValues(route)
	}
	m.events.accepted = events.WithLabelValues("accepted")
	m.events.rejected = events.WithLabelValues("rejected")
	m.events.failed = events.WithLabelValues("failed")
	for _, k := range event.FaultKinds() {
		m.faults[k] = faults.WithLabelValues(string(k))
	}
	reg.MustRegister(requests, duration, events, faults, problems, m.panics, m.memoryFull, told,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "sluice_ingest_in_flight_bytes",
			Help: "Bytes held by the requests in flight.",
		}, func() float64 { return float64(budget.Used()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "sluice_ingest_in_flight_limit_bytes",
			Help: "The bound on sluice_ingest_in_flight_bytes.",
		}, func() float64 { return float64(budget.Limit()) }))
	return m
}

func (m *metrics) fault(faults []event.Fault) {
	for i := range faults {
		m.faults[faults[i].Kind].Inc()
	}
}
