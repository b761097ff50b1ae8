package trace

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newTracer(t *testing.T, ratio float64) (*Tracer, *tracetest.InMemoryExporter) {
	t.Helper()
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans), sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(ratio))))
	t.Cleanup(func() { _ = provider.Shutdown(context.Background()) })
	return of(provider, provider.Shutdown), spans
}

// carried is what a handler behind Requests sees as the request's traceparent.
func carried(t *testing.T, tr *Tracer, path, traceparent string, status int) string {
	t.Helper()
	var seen string
	h := tr.Requests(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header.Get("Traceparent")
		w.WriteHeader(status)
	}), "/api/events")
	r := httptest.NewRequest(http.MethodPost, path, nil)
	if traceparent != "" {
		r.Header.Set("Traceparent", traceparent)
	}
	h.ServeHTTP(httptest.NewRecorder(), r)
	return seen
}

const (
	sampled   = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	unsampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
)

// TestFromRequestToInsert: the INSERT's span is in the trace of the request, and
// linked to the request's span, by nothing but the record's header.
func TestFromRequestToInsert(t *testing.T) {
	edge, edgeSpans := newTracer(t, 0)
	header := carried(t, edge, "/api/events", sampled, http.StatusAccepted)
	require.NotEqual(t, sampled, header, "what is carried on is the edge's own span")
	request := edgeSpans.GetSpans()[0]
	require.Equal(t, "POST /api/events", request.Name)
	require.Equal(t, "00f067aa0ba902b7", request.Parent.SpanID().String())

	consumer, consumerSpans := newTracer(t, 0)
	_, end := consumer.Batch(t.Context(), "INSERT event_log", slices.Values([]string{"no traceparent", unsampled, header, header}))
	end(errors.New("away"))
	insert := consumerSpans.GetSpans()[0]
	require.Equal(t, request.SpanContext.TraceID(), insert.SpanContext.TraceID())
	require.Equal(t, request.SpanContext.SpanID(), insert.Parent.SpanID())
	require.Len(t, insert.Links, 1, "a trace is linked once")
	require.Equal(t, request.SpanContext.SpanID(), insert.Links[0].SpanContext.SpanID())
	require.Equal(t, "away", insert.Status.Description)
}

// TestLinksAreBounded: a batch of a hundred thousand traced requests has 32 links.
func TestLinksAreBounded(t *testing.T) {
	tr, spans := newTracer(t, 1)
	read := 0
	_, end := tr.Batch(t.Context(), "INSERT", func(yield func(string) bool) {
		for i := range 100_000 {
			read++
			if !yield(fmt.Sprintf("00-%032x-%016x-01", i+1, i+1)) {
				return
			}
		}
	})
	end(nil)
	require.Len(t, spans.GetSpans()[0].Links, mostLinks)
	require.Equal(t, mostLinks, read, "it read on")
}

// TestSampling: what is not sampled makes no span, and its context is carried on
// all the same.
func TestSampling(t *testing.T) {
	tr, spans := newTracer(t, 0)
	for path, tp := range map[string]string{"/api/events": unsampled, "/healthz": sampled} {
		got := carried(t, tr, path, tp, http.StatusOK)
		require.Equal(t, tp[:35], got[:35], "the trace's id")
	}
	_, end := tr.Batch(t.Context(), "INSERT", slices.Values([]string{unsampled}))
	end(nil)
	require.Empty(t, spans.GetSpans())

	tr, spans = newTracer(t, 1)
	require.NotEmpty(t, carried(t, tr, "/api/events", "", http.StatusServiceUnavailable))
	require.Equal(t, "Error", spans.GetSpans()[0].Status.Code.String())
}

// TestOff: without an endpoint nothing is there.
func TestOff(t *testing.T) {
	tr, err := New(t.Context(), DefaultConfig(), "s", "v")
	require.NoError(t, err)
	require.Nil(t, tr)
	require.Equal(t, sampled, carried(t, tr, "/api/events", sampled, http.StatusOK))
	ctx, end := tr.Batch(t.Context(), "INSERT", slices.Values([]string{sampled}))
	end(nil)
	require.False(t, trace.SpanContextFromContext(ctx).IsValid())
	tr.Close(t.Context(), slog.New(slog.DiscardHandler))
}

func TestConfig(t *testing.T) {
	require.NoError(t, DefaultConfig().Validate())
	require.NoError(t, Config{Endpoint: "http://127.0.0.1:4318/v1/traces", Ratio: 1}.Validate())
	require.ErrorContains(t, Config{Ratio: 2}.Validate(), "trace.ratio")
	require.ErrorContains(t, Config{Endpoint: "127.0.0.1:4318"}.Validate(), "trace.endpoint")
}
