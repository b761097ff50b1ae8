package httpapi

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"

	"sluice/deploy/service"
	"sluice/ingest/internal/decode"
	"sluice/ingest/internal/delivery"
	"sluice/ingest/internal/problem"
	"sluice/schemas/event"
)

// Parts are what the interface stands on.
type Parts struct {
	// Log takes the events.
	Log delivery.Log
	// Stored waits until they are stored.
	Stored Waiter
	// Sync tells, at each request, whether the answer waits for that. A request
	// that prefers a wait of its own is not asked for.
	Sync func() bool
	// Now is the clock by which events are received.
	Now func() time.Time
}

// API is the edge's HTTP interface. It is safe for concurrent use.
type API struct {
	cfg     Config
	edge    []byte // cfg.Edge as its records carry it; nil when it is empty
	parts   Parts
	logger  *slog.Logger
	metrics *metrics
	budget  *decode.Budget
	reader  *decode.Reader

	singles  sync.Pool // *single
	decoders sync.Pool // *event.Decoder
	memory   memory
	gate     gate
	ids      *requestIDs

	// Refusals are made once, and known by their address.
	memoryFull, tooBusy *problem.Error
	drains              sync.Pool // *[drainBytes]byte
}

// New returns the interface in front of parts.
func New(cfg Config, parts Parts, logger *slog.Logger, reg *prometheus.Registry) (*API, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("limits: %w", err)
	}
	budget := decode.NewBudget(cfg.InFlightBytes)
	var edge []byte
	if cfg.Edge != "" {
		edge = []byte(cfg.Edge)
	}
	return &API{
		cfg: cfg, edge: edge, parts: parts, logger: logger,
		metrics: newMetrics(reg, budget),
		budget:  budget,
		reader:  decode.NewReader(budget),
		gate:    newGate(),
		ids:     newRequestIDs(),

		memoryFull: problem.New(problem.Overloaded, "the requests in flight fill the memory set aside for them; send it again later"),
		tooBusy:    problem.New(problem.Overloaded, "more comes than is got through in time; send it again later"),
	}, nil
}

// Handler serves the routes; ready is asked by /readyz, and pages are served to
// GET and HEAD beside them, by path.
func (a *API) Handler(ready service.Check, pages map[string]http.Handler) http.Handler {
	e := gin.New()
	e.HandleMethodNotAllowed = true
	e.RedirectTrailingSlash = false // an answer to a POST must not be a redirect
	e.POST("/api/events", a.route(routeEvent, a.postEvent))
	e.POST("/api/events/batch", a.route(routeBatch, a.postBatch))
	get := func(name, path string, h http.Handler) {
		route := a.route(name, func(w http.ResponseWriter, r *http.Request) *problem.Error {
			h.ServeHTTP(w, r)
			return nil
		})
		e.GET(path, route)
		e.HEAD(path, route)
	}
	get(routeHealth, "/healthz", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "alive") }))
	get(routeHealth, "/readyz", service.ReadyHandler(ready))
	for path, h := range pages {
		get(routePage, path, h)
	}
	e.NoRoute(a.route(routeOther, func(_ http.ResponseWriter, r *http.Request) *problem.Error {
		return problem.New(problem.NotFound, "events are posted to /api/events and /api/events/batch")
	}))
	e.NoMethod(a.route(routeOther, func(w http.ResponseWriter, r *http.Request) *problem.Error {
		return problem.New(problem.MethodNotAllowed, r.Method+" is not among "+w.Header().Get("Allow"))
	}))
	return e
}

var closing = []string{"close"}

// handler answers a request, or returns the problem to answer it with.
type handler func(http.ResponseWriter, *http.Request) *problem.Error

// route answers with the problem that h returns, or internal when it panics,
// and counts.
func (a *API) route(name string, h handler) gin.HandlerFunc {
	requests, duration := a.metrics.requests[name], a.metrics.duration[name]
	named := name != routeHealth && name != routePage // which are asked often, and about nothing
	return func(c *gin.Context) {
		begin := time.Now()
		if named {
			a.ids.set(c.Writer.Header(), c.Request.Header)
		}
		if c.Request.ProtoMajor == 1 && len(c.Request.TransferEncoding) > 0 {
			// Beside Transfer-Encoding the request may have had a Content-Length,
			// which net/http drops without a word, and something in front of us may
			// have gone by it. What lies behind must not be taken for a request
			// (RFC 9112, section 6.1).
			c.Writer.Header()["Connection"] = closing
		}
		defer func() {
			if v := recover(); v != nil {
				a.panicked(c, v)
			}
			if n, ok := requests[c.Writer.Status()]; ok {
				n.Inc()
			}
			duration.Observe(time.Since(begin).Seconds())
		}()
		switch err := h(c.Writer, c.Request); err {
		case nil:
		case a.memoryFull, a.tooBusy:
			a.refuse(c.Writer, c.Request, err, begin)
		default:
			a.give(c.Writer, err)
		}
	}
}

func (a *API) give(w http.ResponseWriter, err *problem.Error) {
	a.metrics.problems[err.Kind].Inc()
	a.metrics.fault(err.Faults)
	if werr := err.Write(w); werr != nil {
		a.logger.Debug("the client left before its answer", "problem", err.Kind.Name, "request_id", w.Header().Get(headerRequestID), "error", werr)
	}
}

func (a *API) panicked(c *gin.Context, v any) {
	if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(v)
	}
	a.metrics.panics.Inc()
	a.logger.Error("a handler panicked", "path", c.FullPath(), "request_id", c.Writer.Header().Get(headerRequestID), "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	if c.Writer.Written() {
		panic(http.ErrAbortHandler) // the answer has begun: cut it off
	}
	a.give(c.Writer, problem.New(problem.Internal, "the edge's log says more"))
}

// bodyRead lifts the bound on reading the request, which would otherwise cancel
// it while it waits for the log.
func (a *API) bodyRead(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength == 0 {
		return
	}
	// Not every ResponseWriter has deadlines (a test's has none).
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
}

// decoder returns a decoder that no one else uses; put it back into a.decoders.
func (a *API) decoder() *event.Decoder {
	if d, ok := a.decoders.Get().(*event.Decoder); ok {
		return d
	}
	return event.NewDecoder(a.cfg.Event)
}
