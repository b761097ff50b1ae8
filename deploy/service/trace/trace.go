// Package trace follows an event from its request to the INSERT of its row, with
// OpenTelemetry, where that is switched on. The request's context travels in the
// record's traceparent header; the INSERT's span belongs to the trace of the first
// request whose event it writes, and has links to that and to others.
package trace

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Config says whether, where to and how much is traced.
type Config struct {
	// Endpoint is the collector's URL for OTLP over HTTP, as in
	// http://127.0.0.1:4318/v1/traces. Empty, the default: nothing is traced.
	Endpoint string `mapstructure:"endpoint" help:"URL of an OTLP/HTTP collector, as in http://127.0.0.1:4318/v1/traces; none: nothing is traced"`
	// Ratio is the share of requests without a trace of their own that one is
	// begun for, 0 to 1. A request that comes with a trace decides for itself.
	// Default 0.01.
	Ratio float64 `mapstructure:"ratio" help:"share of requests that a trace is begun for, 0 to 1; one that comes with a trace decides for itself"`
}

// DefaultConfig traces nothing; one in a hundred where it is switched on.
func DefaultConfig() Config { return Config{Ratio: 0.01} }

// Validate tells what is wrong.
func (c Config) Validate() error {
	if c.Ratio < 0 || c.Ratio > 1 {
		return fmt.Errorf("trace.ratio is %v, want 0 to 1", c.Ratio)
	}
	if c.Endpoint == "" {
		return nil
	}
	if u, err := url.Parse(c.Endpoint); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("trace.endpoint is %q, want a URL as in http://127.0.0.1:4318/v1/traces", c.Endpoint)
	}
	return nil
}

const (
	// exportBound is how long one delivery to the collector may take.
	exportBound = 5 * time.Second
	// stopBound is how long spans may still be delivered at the end.
	stopBound = 2 * time.Second
	// waiting is how many spans wait for the collector at most; further ones
	// are dropped, and nobody waits.
	waiting = 4096
)

// Tracer makes spans. It is safe for concurrent use. A nil Tracer makes none.
type Tracer struct {
	tracer     trace.Tracer
	propagator propagation.TraceContext
	stop       func(context.Context) error
}

// New returns a tracer for the service of that name, nil when cfg switches
// tracing off. It connects to nothing yet. Close it.
func New(ctx context.Context, cfg Config, service, version string) (*Tracer, error) {
	if cfg.Endpoint == "" {
		return nil, nil
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(cfg.Endpoint), otlptracehttp.WithTimeout(exportBound))
	if err != nil {
		return nil, fmt.Errorf("trace.endpoint: %w", err)
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter, sdktrace.WithMaxQueueSize(waiting), sdktrace.WithExportTimeout(exportBound)),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(cfg.Ratio))),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", service), attribute.String("service.version", version))),
	)
	return of(provider, provider.Shutdown), nil
}

func of(provider trace.TracerProvider, stop func(context.Context) error) *Tracer {
	return &Tracer{tracer: provider.Tracer("sluice"), stop: stop}
}

// Close delivers what is left, for at most two seconds. What cannot be delivered
// is lost, which is logged and no error.
func (t *Tracer) Close(ctx context.Context, log *slog.Logger) {
	if t == nil {
		return
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopBound)
	defer cancel()
	if err := t.stop(bounded); err != nil && !errors.Is(err, context.Canceled) {
		log.Warn("the last spans were not delivered", "error", err)
	}
}
