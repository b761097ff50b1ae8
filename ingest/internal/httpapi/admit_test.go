package httpapi

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"sluice/ingest/internal/admission"
	"sluice/ingest/internal/problem"
)

// TestRefusal: an edge that has too much to do answers before the body has come,
// and the connection goes on to serve. Answered in full duplex and left to net/http,
// the body cost the connection, and whoever sent the next request on it had no
// answer at all.
func TestRefusal(t *testing.T) {
	limiter := admission.NewLimiter(admission.DefaultConfig(), nil)
	a, h := newAPI(t, settles{}, func(c *Config) { c.Limiter = limiter })
	srv := httptest.NewServer(h)
	defer srv.Close()
	fill := func() (empty func()) {
		var inside []admission.Ticket
		for !limiter.Full() {
			inside = append(inside, limiter.Enter(1<<20))
		}
		return func() {
			for i := range inside {
				limiter.Leave(&inside[i], false)
			}
		}
	}
	c, err := net.Dial("tcp", srv.Listener.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	answers := bufio.NewReader(c)
	send := func(text string) {
		_, err := io.WriteString(c, text)
		require.NoError(t, err)
	}
	answer := func(status int) {
		t.Helper()
		resp, err := http.ReadResponse(answers, nil)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, status, resp.StatusCode, "%s", body)
		require.False(t, resp.Close)
		if status == http.StatusServiceUnavailable {
			require.Equal(t, "1", resp.Header.Get("Retry-After"))
			require.Equal(t, problem.ContentType, resp.Header.Get("Content-Type"))
			require.Contains(t, string(body), `"type":"urn:sluice:problem:overloaded"`)
			require.Contains(t, string(body), resp.Header.Get("X-Request-Id"))
		}
	}
	const head = "POST %s HTTP/1.1\r\nHost: edge\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
	batch := "[" + one + strings.Repeat(" ", 200<<10) + "]"

	for range 3 {
		empty := fill()
		send(fmt.Sprintf(head, "/api/events", len(one)) + one)
		answer(http.StatusServiceUnavailable)
		send(fmt.Sprintf(head, "/api/events/batch", len(batch)))
		answer(http.StatusServiceUnavailable) // nothing of the body has been sent
		send(batch)
		empty()
		send(fmt.Sprintf(head, "/api/events/batch", len(batch)) + batch)
		answer(http.StatusAccepted)
	}
	// Who is asked how the edge is answers whatever there is to do.
	defer fill()()
	for _, path := range []string{"/healthz", "/readyz"} {
		send("GET " + path + " HTTP/1.1\r\nHost: edge\r\n\r\n")
		answer(http.StatusOK)
	}
	require.Zero(t, a.budget.Used())
}

// TestTooSoon: who keeps to Retry-After is told at once that there is too much to do;
// who asks again at once on the same connection waits for its turn to be told.
func TestTooSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		request := func() *http.Request {
			return httptest.NewRequest(http.MethodPost, "/api/events", nil).WithContext(ConnContext(t.Context(), nil))
		}
		one, other := request(), request()
		require.False(t, tooSoon(one))
		require.True(t, tooSoon(one))
		require.False(t, tooSoon(other), "another connection")
		time.Sleep(time.Second - 1)
		require.True(t, tooSoon(one), "each refusal counts")
		time.Sleep(time.Second)
		require.False(t, tooSoon(one))
		require.True(t, tooSoon(httptest.NewRequest(http.MethodPost, "/", nil)), "of no connection known")
	})
}

// TestInsideOnlyUntilTheLogHasIt: whatever becomes of a post, it leaves.
func TestInsideOnlyUntilTheLogHasIt(t *testing.T) {
	reg := prometheus.NewRegistry()
	limiter := admission.NewLimiter(admission.DefaultConfig(), reg)
	_, h := newAPI(t, &fakeLog{}, func(c *Config) { c.Limiter = limiter })
	for _, body := range []string{one, bad, "{", "[" + one + "," + bad + "]", ""} {
		post(h, "/api/events", body)
		post(h, "/api/events/batch", body)
	}
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		switch f.GetName() {
		case "sluice_ingest_admission_inside_bytes":
			require.Zero(t, f.GetMetric()[0].GetGauge().GetValue())
		case "sluice_ingest_admission_admitted_total":
			require.InDelta(t, 10, f.GetMetric()[0].GetCounter().GetValue(), 0)
		}
	}
}
