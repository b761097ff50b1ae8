package main

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"sluice/schemas/topic"
)

// TestTraceOfAPost: switched on, a post is a span at the collector, and its record
// carries that span's context to whoever inserts the row.
func TestTraceOfAPost(t *testing.T) {
	var mu sync.Mutex
	var got []*spans.Span
	sink := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var req collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &req)
		}
		if err != nil {
			t.Errorf("what the collector got: %v", err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, rs := range req.GetResourceSpans() {
			for _, ss := range rs.GetScopeSpans() {
				got = append(got, ss.GetSpans()...)
			}
		}
	}))
	defer sink.Close()
	e := startEdge(t, newCluster(t), func(c *config) { c.Trace.Endpoint, c.Trace.Ratio = sink.URL+"/v1/traces", 0 })
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	require.Equal(t, http.StatusAccepted, e.post(t, "/api/events", []byte(numbered(1)), "Traceparent", parent).status)
	require.Equal(t, http.StatusAccepted, e.post(t, "/api/events", []byte(numbered(2))).status)
	e.stop()
	require.NoError(t, e.wait(t)) // it delivers its last spans before it ends

	mu.Lock()
	defer mu.Unlock()
	require.Len(t, got, 1, "only the request that came with a sampled trace is traced")
	require.Equal(t, "4bf92f3577b34da6a3ce929d0e0e4736", hex.EncodeToString(got[0].GetTraceId()))
	require.Equal(t, "00f067aa0ba902b7", hex.EncodeToString(got[0].GetParentSpanId()))
	var carried []string
	for _, r := range records(t, e.cluster, 2) {
		for _, h := range r.Headers {
			if h.Key == topic.HeaderTraceparent {
				carried = append(carried, string(h.Value))
			}
		}
	}
	require.Contains(t, carried, "00-4bf92f3577b34da6a3ce929d0e0e4736-"+hex.EncodeToString(got[0].GetSpanId())+"-01")
}
