package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPostOne(t *testing.T) {
	e := startEdge(t, newCluster(t), nil)
	a := e.post(t, "/api/events", []byte(`{"source":"a:b","event_type":"t","actor_id":"u","occurred_at":"2026-01-02T03:04:05Z"}`))
	require.Equal(t, 202, a.status, "%s", a.body)
	t.Log(string(a.body))
	a = e.post(t, "/api/events/batch", []byte(`[{"source":"a:b","event_type":"t","actor_id":"u","occurred_at":"2026-01-02T03:04:05Z"},{"source":""}]`))
	require.Equal(t, 207, a.status, "%s", a.body)
	t.Log(string(a.body))
	for _, r := range records(t, e.cluster, 2) {
		t.Log(r.Partition, string(r.Key), string(r.Value), r.Headers)
	}
	a = e.post(t, "/api/events", []byte(`{"sourc":"a:b","event_type":"t","actor_id":"u","occurred_at":"2026-01-02T03:04:05Z"}`))
	t.Log(string(a.body))
	a = e.post(t, "/api/event", nil)
	t.Log(string(a.body))
	_, b := e.get(t, e.url+"/api/events")
	t.Log(b)
	_, b = e.get(t, e.admin+"/metrics")
	t.Log(b)
}
