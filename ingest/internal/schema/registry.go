package schema

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/schemas/event"
)

// Config says where the schemas are and whom they concern.
type Config struct {
	// Dir holds the files. Default "": no schemas, every payload passes.
	Dir string
	// RefuseUnregistered refuses events of types without a schema. Default: they
	// pass.
	RefuseUnregistered bool
	// Limits default to [DefaultLimits].
	Limits Limits
}

// Registry validates by the set that was last read without an error. It is safe
// for concurrent use.
type Registry struct {
	cfg     Config
	log     *slog.Logger
	set     atomic.Pointer[Set]
	loading sync.Mutex
	state   atomic.Pointer[State]

	reloads    *prometheus.CounterVec
	broken     prometheus.Gauge
	registered prometheus.Gauge
	exhausted  prometheus.Counter
}

// State is how the last reading of the directory ended.
type State struct {
	Dir      string    `json:"dir"`
	LoadedAt time.Time `json:"loaded_at"` // of the set in force
	Types    int       `json:"types"`
	Versions int       `json:"versions"`
	// Error is why what the directory holds now is not in force; "" when it is.
	Error string `json:"error,omitempty"`
}

// Open reads the directory. It fails if that does: an edge does not start
// without the schemas it was told to keep to.
func Open(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Registry, error) {
	if cfg.Limits == (Limits{}) {
		cfg.Limits = DefaultLimits()
	}
	r := &Registry{
		cfg: cfg, log: log,
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_ingest_schema_reloads_total",
			Help: "Readings of the directory of schemas, by result.",
		}, []string{"result"}),
		broken: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_ingest_schemas_broken",
			Help: "1 while what the directory holds could not be read and an earlier set is in force.",
		}),
		registered: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_ingest_schema_versions",
			Help: "Versions of schemas in force.",
		}),
		exhausted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_ingest_schema_exhausted_total",
			Help: "Validations given up because they took too many steps.",
		}),
	}
	for _, result := range []string{"ok", "error"} {
		r.reloads.WithLabelValues(result)
	}
	if reg != nil {
		reg.MustRegister(r.reloads, r.broken, r.registered, r.exhausted)
	}
	if cfg.Dir == "" {
		r.set.Store(&Set{})
		r.state.Store(&State{})
		return r, nil
	}
	return r, r.Reload()
}

// Reload reads the directory anew. If anything in it is wrong, the set in force
// stays as it is, whole, and the error says what is wrong.
func (r *Registry) Reload() error {
	if r.cfg.Dir == "" {
		return errors.New("no schemas are configured: set schemas.dir")
	}
	r.loading.Lock()
	defer r.loading.Unlock()
	set, err := Load(r.cfg.Dir, r.cfg.Limits)
	if err != nil {
		r.reloads.WithLabelValues("error").Inc()
		r.broken.Set(1)
		state := State{Dir: r.cfg.Dir}
		if old := r.state.Load(); old != nil {
			state = *old
			r.log.Error("schemas not reloaded: those read before stay in force", "dir", r.cfg.Dir, "error", err)
		}
		state.Error = err.Error()
		r.state.Store(&state)
		return fmt.Errorf("schemas in %s: %w", r.cfg.Dir, err)
	}
	r.set.Store(set)
	r.reloads.WithLabelValues("ok").Inc()
	r.broken.Set(0)
	r.registered.Set(float64(len(set.Versions())))
	r.state.Store(&State{Dir: r.cfg.Dir, LoadedAt: time.Now(), Types: len(set.types), Versions: len(set.Versions())})
	for _, w := range set.warnings {
		r.log.Warn("a schema says something that does nothing", "warning", w)
	}
	r.log.Info("schemas loaded", "dir", r.cfg.Dir, "types", len(set.types), "versions", len(set.Versions()))
	return nil
}

// State tells how the last reading ended. It asks nothing of the disk.
func (r *Registry) State() State { return *r.state.Load() }

// Watched is the directory, "" when there is none.
func (r *Registry) Watched() string { return r.cfg.Dir }

// Check validates an event's payload. The name is that of the version that
// accepts it, "" when none is registered for the type; faults are nil when the
// event may pass.
func (r *Registry) Check(e *event.Event) (name string, faults []event.Fault) {
	set := r.set.Load()
	if len(set.types) == 0 && !r.cfg.RefuseUnregistered {
		return "", nil
	}
	v, faults := set.Check(e.EventType, e.Payload)
	switch {
	case faults != nil:
		if Exhausted(faults) {
			r.exhausted.Inc()
		}
		return "", faults
	case v != nil:
		return v.String(), nil
	case r.cfg.RefuseUnregistered:
		return "", []event.Fault{unregistered(set, e.EventType)}
	}
	return "", nil
}

func unregistered(set *Set, eventType string) event.Fault {
	f := event.Fault{
		Kind: event.FaultSchema, Pointer: "/" + event.MemberEventType,
		Detail: "is not a registered event type",
	}
	names := set.typeNames()
	if near := event.Nearest(eventType, names); near != "" {
		f.Detail += "; did you mean " + strconv.Quote(clip(near)) + "?"
	}
	return f
}
