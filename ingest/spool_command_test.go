package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSpoolCommands: what an operator sees of a spool with and without its edge,
// and how it is emptied by hand.
func TestSpoolCommands(t *testing.T) {
	dir := t.TempDir()
	e := launchEdge(t, []string{"127.0.0.1:1"}, spooled(dir))
	e.waitReady(t)
	for i := range 3 {
		require.Equal(t, "spooled", statusOf(t, e.post(t, "/api/events", []byte(numbered(i)))))
	}
	command := func(code int, args ...string) (string, string) {
		t.Helper()
		var out, errs bytes.Buffer
		args = append([]string{"spool"}, args...)
		got := run(t.Context(), append(args, "--spool.dir", dir, "--admin.address", strings.TrimPrefix(e.admin, "http://")), nil, &out, &errs)
		require.Equal(t, code, got, "%s%s", &out, &errs)
		return out.String(), errs.String()
	}
	var st shown
	out, _ := command(0, "status", "--json")
	require.NoError(t, json.Unmarshal([]byte(out), &st))
	require.NotZero(t, st.Process)
	require.Equal(t, 3, st.Records)
	out, _ = command(0, "status")
	require.Contains(t, out, "records   3 in 1 segments")
	out, _ = command(0, "export")
	require.Len(t, strings.Split(strings.TrimSpace(out), "\n"), 3)
	e.stop()
	require.NoError(t, e.wait(t))

	out, _ = command(0, "status")
	require.Contains(t, out, "no edge has it")
	require.Contains(t, out, "records   3 in 1 segments")
	out, _ = command(0, "export")
	var line struct {
		Key   string
		Value struct {
			Source string
		}
	}
	require.NoError(t, json.Unmarshal([]byte(strings.Split(out, "\n")[0]), &line))
	require.Equal(t, "app:click:u0:2026-01-02T03:04:05.000000000Z", line.Key)
	require.Equal(t, "app", line.Value.Source)

	cluster := newControlled(t)
	out, _ = command(0, "drain", "--json", "--kafka.brokers", cluster.ListenAddrs()[0])
	require.JSONEq(t, `{"drained":3,"left":0,"damaged_files":0,"damaged_bytes":0,"refused_records":0}`, out)
	require.Len(t, records(t, cluster, 3), 3)
	out, _ = command(0, "drain", "--kafka.brokers", cluster.ListenAddrs()[0])
	require.Equal(t, "0 records drained, 0 left\n", out)

	_, errs := command(2)
	require.Contains(t, errs, "status, drain or export")
	dir = t.TempDir()
	_, errs = command(1, "status")
	require.Contains(t, errs, "there is no spool in")
}
