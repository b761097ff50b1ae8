package main

import (
	"context"
	"encoding/hex"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/partition"
	"sluice/deploy/service/trace"
	"sluice/schemas/topic"
)

// inserted counts INSERTs, and does nothing else.
type inserted struct {
	partition.Store
	rows int
}

func (s *inserted) Rows(_ context.Context, _ string, _ topic.Origin, rows []*batch.Record) error {
	s.rows += len(rows)
	return nil
}

// TestTraceOfAnInsert: the INSERT of an event's row is a span of the trace that
// its record's header names, linked to the request's span.
func TestTraceOfAnInsert(t *testing.T) {
	got := make(chan *otlp.Span, 10)
	sink := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var req collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &req)
		}
		if err != nil {
			t.Errorf("what the collector got: %v", err)
		}
		for _, rs := range req.GetResourceSpans() {
			for _, ss := range rs.GetScopeSpans() {
				for _, s := range ss.GetSpans() {
					got <- s
				}
			}
		}
	}))
	defer sink.Close()
	tracer, err := trace.New(t.Context(), trace.Config{Endpoint: sink.URL + "/v1/traces"}, "sluice-consumer", "v1")
	require.NoError(t, err)
	var st inserted
	rows := []*batch.Record{
		{Raw: batch.Raw{Offset: 7}},
		{Raw: batch.Raw{Offset: 8, Headers: []batch.Header{{Key: topic.HeaderTraceparent, Value: []byte("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")}}}},
	}
	require.NoError(t, traceStore(&st, tracer).Rows(t.Context(), "token", topic.Origin{}, rows))
	require.NoError(t, traceStore(&st, tracer).Rows(t.Context(), "token", topic.Origin{}, rows[:1]), "no trace, no span")
	tracer.Close(t.Context(), slog.New(slog.DiscardHandler))
	require.Equal(t, 3, st.rows)
	require.Len(t, got, 1)
	s := <-got
	require.Equal(t, "INSERT event_log", s.GetName())
	require.Equal(t, "4bf92f3577b34da6a3ce929d0e0e4736", hex.EncodeToString(s.GetTraceId()))
	require.Equal(t, "00f067aa0ba902b7", hex.EncodeToString(s.GetLinks()[0].GetSpanId()))
	require.Same(t, &st, traceStore(&st, nil), "switched off it is not there")
}
