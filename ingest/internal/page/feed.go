package page

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"sluice/deploy/service"
	"sluice/ingest/internal/health"
)

//go:embed live.html
var livePage []byte

const (
	sampleEvery = time.Second
	sampleCount = 180 // three minutes
)

// Source is what the live page is made of. Mode may be nil.
type Source struct {
	Metrics prometheus.Gatherer
	Health  func() health.Report
	Errors  func() []service.Logged
	Mode    func() string
	Build   service.Build
}

// Feed samples the edge's metrics every second and keeps the last three minutes,
// so that the page has a past when it is opened. Reading it asks no dependency.
type Feed struct {
	src Source

	mu   sync.Mutex
	last *totals
	all  []sample // the oldest first
}

// sample is one second. A quantile without posts is null.
type sample struct {
	At       int64    `json:"at"` // Unix milliseconds
	Accepted float64  `json:"accepted"`
	Rejected float64  `json:"rejected"`
	Failed   float64  `json:"failed"`
	Posts    float64  `json:"posts"`
	P50      *float64 `json:"p50_ms"`
	P95      *float64 `json:"p95_ms"`
	P99      *float64 `json:"p99_ms"`
	Spool    float64  `json:"spool_bytes"`
	Records  float64  `json:"spool_records"`
	Held     float64  `json:"held_bytes"`
}

// totals are counters at one moment.
type totals struct {
	at       time.Time
	outcomes map[string]float64
	posts    *histogram
}

// NewFeed returns a feed; [Feed.Run] fills it.
func NewFeed(src Source) *Feed { return &Feed{src: src} }

// Run samples until ctx ends.
func (f *Feed) Run(ctx context.Context) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		f.take(time.Now())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// take adds one sample.
func (f *Feed) take(now time.Time) {
	families, err := f.src.Metrics.Gather()
	if err != nil && len(families) == 0 {
		return // /metrics tells of it
	}
	t := &totals{at: now, outcomes: map[string]float64{}, posts: &histogram{}}
	s := sample{At: now.UnixMilli()}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			switch family.GetName() {
			case "sluice_ingest_events_total":
				t.outcomes[label(m, "outcome")] = m.GetCounter().GetValue()
			case "sluice_ingest_request_duration_seconds":
				if route := label(m, "route"); route == "event" || route == "batch" {
					t.posts.add(m.GetHistogram())
				}
			case "sluice_ingest_spool_bytes":
				s.Spool = m.GetGauge().GetValue()
			case "sluice_ingest_spool_records":
				s.Records = m.GetGauge().GetValue()
			case "sluice_ingest_in_flight_bytes", "sluice_ingest_produce_buffer_bytes":
				s.Held += m.GetGauge().GetValue()
			}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if was := f.last; was != nil {
		seconds := max(now.Sub(was.at).Seconds(), 0.001)
		rate := func(outcome string) float64 { return (t.outcomes[outcome] - was.outcomes[outcome]) / seconds }
		s.Accepted, s.Rejected, s.Failed = rate("accepted"), rate("rejected"), rate("failed")
		since := t.posts.since(was.posts)
		s.Posts = since.count() / seconds
		s.P50, s.P95, s.P99 = since.quantile(0.5), since.quantile(0.95), since.quantile(0.99)
		f.all = append(f.all, s)
		if len(f.all) > sampleCount {
			f.all = append(f.all[:0], f.all[1:]...)
		}
	}
	f.last = t
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

// histogram has the counts of buckets, not summed up, and their upper bounds.
type histogram struct{ bounds, counts []float64 }

func (h *histogram) add(m *dto.Histogram) {
	buckets := m.GetBucket()
	if h.bounds == nil {
		for _, b := range buckets {
			h.bounds = append(h.bounds, b.GetUpperBound())
		}
		h.counts = make([]float64, len(h.bounds)+1)
	}
	if len(buckets) != len(h.bounds) {
		return // of another shape: none of ours
	}
	below := uint64(0)
	for i, b := range buckets {
		h.counts[i] += float64(b.GetCumulativeCount() - below)
		below = b.GetCumulativeCount()
	}
	h.counts[len(buckets)] += float64(m.GetSampleCount() - below)
}

func (h *histogram) since(was *histogram) *histogram {
	d := &histogram{bounds: h.bounds, counts: make([]float64, len(h.counts))}
	for i := range h.counts {
		d.counts[i] = h.counts[i]
		if i < len(was.counts) {
			d.counts[i] -= was.counts[i]
		}
	}
	return d
}

func (h *histogram) count() (n float64) {
	for _, c := range h.counts {
		n += c
	}
	return n
}

// quantile is in milliseconds, as exact as the buckets are; nil without values.
func (h *histogram) quantile(q float64) *float64 {
	n := h.count()
	if n <= 0 {
		return nil
	}
	rank, below := q*n, 0.0
	for i, c := range h.counts {
		if below+c < rank || c == 0 {
			below += c
			continue
		}
		if i == len(h.bounds) { // past the last bound: at least that
			break
		}
		from := 0.0
		if i > 0 {
			from = h.bounds[i-1]
		}
		ms := 1000 * (from + (h.bounds[i]-from)*(rank-below)/c)
		ms = math.Round(ms*100) / 100
		return &ms
	}
	ms := 1000 * h.bounds[len(h.bounds)-1]
	return &ms
}

// live is what /page.json answers.
type live struct {
	Now     time.Time        `json:"now"`
	Version string           `json:"version"`
	Mode    string           `json:"mode"`
	Health  health.Report    `json:"health"`
	Samples []sample         `json:"samples"`
	Errors  []service.Logged `json:"errors"`
}

// Pages are the live page at /{$} and what feeds it at /page.json.
func (f *Feed) Pages() map[string]http.Handler {
	return map[string]http.Handler{
		"/{$}":       static("text/html; charset=utf-8", livePage),
		"/page.json": http.HandlerFunc(f.serve),
	}
}

func (f *Feed) serve(w http.ResponseWriter, _ *http.Request) {
	l := live{Now: time.Now().UTC(), Version: f.src.Build.Version, Mode: "async", Health: f.src.Health(), Errors: f.src.Errors()}
	if f.src.Mode != nil {
		l.Mode = f.src.Mode()
	}
	f.mu.Lock()
	l.Samples = append([]sample{}, f.all...)
	f.mu.Unlock()
	body, err := json.Marshal(l)
	if err != nil {
		http.Error(w, fmt.Sprintf("the page's data: %v", err), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(body) // the client has left
}
