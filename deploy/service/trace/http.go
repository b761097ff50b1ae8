package trace

import (
	"net/http"
	"slices"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Requests makes a span of every request to one of paths, the child of the
// request's own traceparent where it has one. What next sees as the
// request's traceparent is that span, so that whoever carries it on carries it to
// its child. Without a tracer it is next itself.
func (t *Tracer) Requests(next http.Handler, paths ...string) http.Handler {
	if t == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains(paths, r.URL.Path) {
			next.ServeHTTP(w, r)
			return
		}
		header := propagation.HeaderCarrier(r.Header)
		ctx, span := t.tracer.Start(t.propagator.Extract(r.Context(), header), r.Method+" "+r.URL.Path,
			trace.WithSpanKind(trace.SpanKindServer),
			trace.WithAttributes(attribute.String("http.request.method", r.Method), attribute.String("url.path", r.URL.Path)))
		defer span.End()
		t.propagator.Inject(ctx, header)
		if !span.IsRecording() {
			next.ServeHTTP(w, r)
			return
		}
		seen := &answer{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(seen, r.WithContext(ctx))
		span.SetAttributes(attribute.Int("http.response.status_code", seen.status))
		if seen.status >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, http.StatusText(seen.status))
		}
	})
}

// answer remembers the status.
type answer struct {
	http.ResponseWriter
	status int
}

func (a *answer) WriteHeader(status int) {
	a.status = status
	a.ResponseWriter.WriteHeader(status)
}

// Unwrap is what [http.ResponseController] asks for.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
