package main

import (
	"context"

	"go.opentelemetry.io/otel/attribute"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/partition"
	"sluice/deploy/service/trace"
	"sluice/schemas/topic"
)

// traced is a store whose INSERTs of rows are spans, with links to the requests
// that the events came with.
type traced struct {
	partition.Store
	tracer *trace.Tracer
}

// traceStore returns st itself when nothing is traced.
func traceStore(st partition.Store, tracer *trace.Tracer) partition.Store {
	if tracer == nil {
		return st
	}
	return traced{st, tracer}
}

// Rows writes rows, in a span.
func (t traced) Rows(ctx context.Context, token string, self topic.Origin, rows []*batch.Record) error {
	ctx, end := t.tracer.Batch(ctx, "INSERT event_log", func(yield func(string) bool) {
		for _, r := range rows {
			for _, h := range r.Headers {
				if h.Key == topic.HeaderTraceparent && !yield(string(h.Value)) {
					return
				}
			}
		}
	},
		attribute.Int("messaging.batch.message_count", len(rows)),
		attribute.Int("messaging.destination.partition.id", int(self.Partition)),
		attribute.Int64("sluice.offset.first", rows[0].Offset), attribute.Int64("sluice.offset.last", rows[len(rows)-1].Offset))
	err := t.Store.Rows(ctx, token, self, rows)
	end(err)
	return err
}
