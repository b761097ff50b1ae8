package trace

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// mostLinks bounds the links of one span: a batch may hold a hundred thousand
// events, each of a request of its own.
const mostLinks = 32

// Batch makes a span of what is done with many records at once, given their
// traceparents: part of the first sampled trace among them, and linked to the
// first 32. When none is sampled there is no span. end ends it, with the error
// that it came to.
func (t *Tracer) Batch(ctx context.Context, name string, traceparents func(yield func(string) bool), attributes ...attribute.KeyValue) (_ context.Context, end func(error)) {
	if t == nil {
		return ctx, func(error) {}
	}
	var links []trace.Link
	known := map[trace.TraceID]bool{}
	for tp := range traceparents {
		from := trace.SpanContextFromContext(t.propagator.Extract(context.Background(), propagation.MapCarrier{"traceparent": tp}))
		if !from.IsSampled() || known[from.TraceID()] {
			continue
		}
		known[from.TraceID()] = true
		links = append(links, trace.Link{SpanContext: from})
		if len(links) == mostLinks {
			break
		}
	}
	if len(links) == 0 {
		return ctx, func(error) {}
	}
	ctx, span := t.tracer.Start(trace.ContextWithRemoteSpanContext(ctx, links[0].SpanContext), name,
		trace.WithSpanKind(trace.SpanKindConsumer), trace.WithLinks(links...), trace.WithAttributes(attributes...))
	return ctx, func(err error) {
		if err != nil {
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
	}
}
