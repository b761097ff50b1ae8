package main

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRebinding: a page whose domain was made to lead to this machine after it
// was opened could set the edge's mode: its requests are of one origin with the
// admin port, as the browser sees it, and no check of origins refuses them.
func TestRebinding(t *testing.T) {
	e := startEdge(t, newCluster(t), nil)
	port := e.admin[strings.LastIndex(e.admin, ":"):]
	for name, row := range map[string]struct {
		host, origin string
		want         int
	}{
		"a rebound domain":        {"evil.example" + port, "http://evil.example" + port, http.StatusForbidden},
		"another page":            {"127.0.0.1" + port, "http://evil.example", http.StatusForbidden},
		"the port's own page":     {"127.0.0.1" + port, "http://127.0.0.1" + port, http.StatusOK},
		"localhost":               {"localhost" + port, "http://localhost" + port, http.StatusOK},
		"IPv6":                    {"[::1]" + port, "http://[::1]" + port, http.StatusOK},
		"a command, by some name": {"edge-3.internal" + port, "", http.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, e.admin+"/mode", strings.NewReader(`{"mode":"async"}`))
			require.NoError(t, err)
			req.Host = row.host
			req.Header.Set("Content-Type", "application/json")
			if row.origin != "" {
				req.Header.Set("Origin", row.origin)
			}
			resp, err := http.DefaultTransport.RoundTrip(req)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, row.want, resp.StatusCode)
		})
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

// TestPortTakenIsSaidFirst: an edge started on a port that another edge has told
// of a locked spool, because the default folder is named by the port and was
// taken first.
func TestPortTakenIsSaidFirst(t *testing.T) {
	e := startEdge(t, newControlled(t), func(c *config) { c.Spool.Enabled, c.Spool.Dir = true, t.TempDir() })
	cfg := defaults()
	cfg.HTTP.Address, cfg.Admin.Address = e.address, "127.0.0.1:0"
	cfg.Kafka.Brokers = e.cluster.ListenAddrs()
	cfg.Spool.Dir = t.TempDir()
	err := serve(t.Context(), cfg, rereading{}, slog.New(slog.DiscardHandler), nil)
	require.ErrorContains(t, err, "http.address")

	cfg.HTTP.Address = "127.0.0.1:0"
	cfg.Spool.Dir = e.spoolState(t).Dir
	err = serve(t.Context(), cfg, rereading{}, slog.New(slog.DiscardHandler), nil)
	require.ErrorContains(t, err, "give this edge another folder by spool.dir")
}
