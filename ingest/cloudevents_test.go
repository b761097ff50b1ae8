package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCloudEvents posts one event in each form there is: the log holds the same
// record four times, but for the name that the sender gave it.
func TestCloudEvents(t *testing.T) {
	e := startEdge(t, newCluster(t), func(c *config) { c.Known.Bytes = 0 })
	const one = `{"specversion":"1.0","id":"mine","source":"app","type":"click","subject":"u1","time":"2026-01-02T03:04:05Z","datacontenttype":"application/json","tenant":"a","data":{"a":1}}`
	binary := []string{
		"Ce-Specversion", "1.0", "Ce-Id", "mine", "Ce-Source", "app", "Ce-Type", "click", "Ce-Subject", "u1", "Ce-Time", "2026-01-02T03:04:05Z", "Ce-Tenant", "%61",
	}
	var ids []string
	for _, a := range []answer{
		e.post(t, "/api/events", []byte(good), "X-Event-Id", "mine"),
		e.post(t, "/api/events", []byte(one), "Content-Type", "application/cloudevents+json; charset=utf-8"),
		e.post(t, "/api/events", []byte(zst(`{"a":1}`)), append(binary, "Content-Encoding", "zstd")...),
	} {
		require.Equal(t, 202, a.status, "%s", a.body)
		ids = append(ids, string(a.body))
	}
	require.Equal(t, ids[0], ids[1])
	require.Equal(t, ids[0], ids[2])
	batch := e.post(t, "/api/events/batch", []byte(gz("["+one+`,{"specversion":"1.0"}]`)), "Content-Type", "application/cloudevents-batch+json", "Content-Encoding", "gzip")
	require.Equal(t, 207, batch.status, "%s", batch.body)
	require.Contains(t, string(batch.body), `"pointer":"/subject"`)
	got := records(t, e.cluster, 4)
	for i, r := range got {
		require.Equal(t, got[0].Key, r.Key)
		require.Equal(t, string(got[0].Value), string(r.Value))
		extra := map[string]string{}
		for _, h := range r.Headers {
			if h.Key[:3] == "ce_" {
				extra[h.Key] = string(h.Value)
			}
		}
		if i > 0 {
			require.Equal(t, map[string]string{"ce_tenant": "a"}, extra)
		}
	}
	for name, header := range map[string][]string{
		"ce-subject is missing":     {"Ce-Specversion", "1.0", "Ce-Id", "1", "Ce-Source", "a", "Ce-Type", "t", "Ce-Time", "2026-01-02T03:04:05Z"},
		"ce-specversion is missing": {"Ce-Id", "1", "Ce-Source", "a", "Ce-Type", "t", "Ce-Subject", "s", "Ce-Time", "2026-01-02T03:04:05Z"},
	} {
		a := e.post(t, "/api/events", []byte(`{}`), header...)
		require.Equal(t, 400, a.status)
		require.Contains(t, string(a.body), name)
	}
	nothing := e.post(t, "/api/events", nil, append(binary, "Content-Type", "")...)
	require.Equal(t, 202, nothing.status, "an event without data: %s", nothing.body)
	require.Equal(t, 415, e.post(t, "/api/events", []byte(one), "Content-Type", "application/cloudevents+avro").status)
	require.Equal(t, 415, e.post(t, "/api/events", []byte("["+one+"]"), "Content-Type", "application/cloudevents-batch+json").status, "a batch goes to the other path")
}
