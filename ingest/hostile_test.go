package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/ingest/internal/logtest"
)

// dial opens a connection to the edge, closed at the test's end.
func (e *edge) dial(t testing.TB) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", e.address)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(30*time.Second)))
	return c
}

// raw sends text as it is and returns the statuses of all that is answered until
// the edge closes the connection, or for as long as it is silent.
func (e *edge) raw(t testing.TB, text string) []int {
	t.Helper()
	c := e.dial(t)
	_, err := io.WriteString(c, text)
	require.NoError(t, err)
	r := bufio.NewReader(c)
	var statuses []int
	for {
		// The end of what we send would tell the edge that we have left.
		require.NoError(t, c.SetReadDeadline(time.Now().Add(2*time.Second)))
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return statuses
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		statuses = append(statuses, resp.StatusCode)
	}
}

// stillServes fails the test unless the edge takes an event now.
func (e *edge) stillServes(t testing.TB) {
	t.Helper()
	require.Equal(t, http.StatusAccepted, e.post(t, "/api/events", []byte(good)).status)
}

// TestSmuggling: requests of which two programs could disagree where they end are
// refused, and never is what lies behind them taken for a request. Each text holds
// an event behind its end, as one of the readings would have it; if the edge took
// it, the topic would hold a record.
func TestSmuggling(t *testing.T) {
	e := startEdge(t, newCluster(t), nil)
	inner := "POST /api/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(good)) + "\r\n\r\n" + good
	head := "POST /api/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
	chunk := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(inner), inner)
	rows := []struct{ name, text string }{
		{"two lengths", head + "Content-Length: 0\r\nContent-Length: " + strconv.Itoa(len(inner)) + "\r\n\r\n" + inner},
		{"two lengths in one line", head + "Content-Length: 0, " + strconv.Itoa(len(inner)) + "\r\n\r\n" + inner},
		{"length and chunked", head + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner},
		{"chunked and length", head + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + inner},
		{"chunked twice", head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner},
		{"chunked, identity", head + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + inner},
		{"xchunked", head + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + inner},
		{"chunked after a vertical tab", head + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + inner},
		{"a space before the colon", head + "Content-Length : " + strconv.Itoa(len(inner)) + "\r\n\r\n" + inner},
		{"a space before the colon of chunked", head + "Transfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + inner},
		{"a signed length", head + "Content-Length: +0\r\n\r\n" + inner},
		{"a negative length", head + "Content-Length: -1\r\n\r\n" + inner},
		{"a length in hexadecimal", head + "Content-Length: 0x0\r\n\r\n" + inner},
		{"a length beyond any", head + "Content-Length: 99999999999999999999\r\n\r\n" + inner},
		{"a chunk's length beyond any", head + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n" + inner},
		{"a chunk's length with a sign", head + "Transfer-Encoding: chunked\r\n\r\n+0\r\n\r\n" + inner},
		{"a chunk's length with 0x", head + "Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n" + inner},
		{"chunked in HTTP/1.0", "POST /api/events HTTP/1.0\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk},
		{"a NUL in a name", head + "X-\x00A: b\r\n\r\n" + inner},
		{"a line end in a value", head + "X-A: b\rContent-Length: 0\r\n\r\n" + inner},
		{"no host", "POST /api/events HTTP/1.1\r\nContent-Length: 0\r\n\r\n" + inner},
		{"two hosts", head + "Host: y\r\nContent-Length: 0\r\n\r\n" + inner},
		{"no version", "POST /api/events\r\n\r\n" + inner},
		{"HTTP/2 over it", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + inner},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			for _, status := range e.raw(t, r.text) {
				require.True(t, status >= 400 && status <= 505 && status != http.StatusInternalServerError && status != http.StatusServiceUnavailable, "answered %d", status)
			}
		})
	}
	records(t, e.cluster, 0)
	e.stillServes(t)
}

// TestLineEnds: lines that end by LF alone are taken by Go's server, as RFC 9112,
// section 2.2, allows; there is one reading of them.
func TestLineEnds(t *testing.T) {
	e := startEdge(t, newCluster(t), nil)
	text := "POST /api/events HTTP/1.1\nHost: x\nContent-Type: application/json\nContent-Length: " + strconv.Itoa(len(good)) + "\n\n" + good
	require.Equal(t, []int{http.StatusAccepted}, e.raw(t, text))
	records(t, e.cluster, 1)
}

// TestFoldedLine: a line that begins with a space belongs to the one before, as RFC
// 9112, section 5.2, has it; it is no header of its own.
func TestFoldedLine(t *testing.T) {
	e := startEdge(t, newCluster(t), nil)
	text := "POST /api/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nX-A: b\r\n Content-Length: 5\r\nContent-Length: " + strconv.Itoa(len(good)) + "\r\n\r\n" + good
	require.Equal(t, []int{http.StatusAccepted}, e.raw(t, text))
	records(t, e.cluster, 1)
}

// TestChunkedEndsTheConnection: TestSmuggling found that net/http takes a request
// with both Content-Length and Transfer-Encoding, by the latter, and then reads the
// next from the same connection: an event behind its end was taken.
func TestChunkedEndsTheConnection(t *testing.T) {
	e := startEdge(t, newCluster(t), nil)
	chunked := fmt.Sprintf("POST /api/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(good), good)
	require.Equal(t, []int{http.StatusAccepted}, e.raw(t, chunked+chunked))
	records(t, e.cluster, 1)
}

// slow has the edge lose patience soon.
func slow(c *config) {
	c.HTTP.ReadHeaderTimeout = 300 * time.Millisecond
	c.HTTP.ReadTimeout = 600 * time.Millisecond
	c.HTTP.IdleTimeout = 500 * time.Millisecond
}

// drip writes text a byte at a time until the edge has enough of it.
func drip(c net.Conn, text string) (sent int) {
	for i := range len(text) {
		if _, err := c.Write([]byte{text[i]}); err != nil {
			return i
		}
		time.Sleep(5 * time.Millisecond)
	}
	return len(text)
}

// TestSlowloris: clients that send their header, or their body, a byte at a time
// are cut off, however many; in between others are served, and nothing is left.
func TestSlowloris(t *testing.T) {
	e := startEdge(t, newCluster(t), slow)
	filler := strings.Repeat("X-A: b\r\n", 2000)
	header := "POST /api/events HTTP/1.1\r\nHost: x\r\n" + filler
	body := "POST /api/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat(" ", 10_000)
	var wg sync.WaitGroup
	for i := range 100 {
		text := header
		if i%2 == 0 {
			text = body
		}
		c := e.dial(t)
		wg.Go(func() {
			if sent := drip(c, text); sent == len(text) {
				t.Errorf("%d bytes were waited for", sent)
			}
		})
	}
	for range 20 {
		e.stillServes(t)
	}
	wg.Wait()
	e.stillServes(t)

	// Of a slow body the sender is told.
	c := e.dial(t)
	_, err := io.WriteString(c, body[:200])
	require.NoError(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusRequestTimeout, resp.StatusCode)
}

// TestNeverReads: a client that sends batch after batch and never reads an answer
// is cut off once its answers fill the connection, and what it held is free again.
func TestNeverReads(t *testing.T) {
	e := startEdge(t, newCluster(t), func(c *config) {
		slow(c)
		c.Produce.AckTimeout, c.Ingest.SyncWait = time.Second, time.Second
		c.HTTP.WriteTimeout = 4 * time.Second
	})
	body := array(manyEvents(2000)...)
	request := []byte(fmt.Sprintf("POST /api/events/batch HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", len(body)))
	request = append(request, body...)
	var cut atomic.Int32
	var wg sync.WaitGroup
	for range 4 {
		c := e.dial(t)
		require.NoError(t, c.(*net.TCPConn).SetReadBuffer(4096))
		wg.Go(func() {
			for range 500 {
				if _, err := c.Write(request); err != nil {
					cut.Add(1)
					return
				}
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 4, cut.Load())
	e.stillServes(t)
	require.Eventually(t, func() bool {
		_, metrics := e.get(t, e.admin+"/metrics")
		return metric(metrics, "sluice_ingest_in_flight_bytes") == "0"
	}, 20*time.Second, 50*time.Millisecond)
}

// TestManyConnections: connections opened and closed, some after half a request:
// none is left, and the edge serves. CONNECTIONS sets how many, 5,000 by default.
func TestManyConnections(t *testing.T) {
	n := 5000
	if s := os.Getenv("CONNECTIONS"); s != "" {
		var err error
		n, err = strconv.Atoi(s)
		require.NoError(t, err)
	}
	e := startEdge(t, newCluster(t), slow)
	before := openFiles(t)
	var wg sync.WaitGroup
	const at = 50
	for w := range at {
		wg.Go(func() {
			for i := w; i < n; i += at {
				c, err := net.Dial("tcp", e.address)
				if err != nil {
					t.Errorf("connection %d: %v", i, err)
					return
				}
				if i%2 == 0 {
					_, _ = io.WriteString(c, "POST /api/events HTTP/1.1\r\nHost: x\r\nContent-Le")
				}
				// At once, so that the test's own port numbers do not run out.
				_ = c.(*net.TCPConn).SetLinger(0)
				c.Close()
			}
		})
	}
	wg.Wait()
	e.stillServes(t)
	require.Eventually(t, func() bool { return openFiles(t) < before+20 }, 20*time.Second, 50*time.Millisecond, "connections are left open")
}

func openFiles(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(list)
}

// TestConnectionsPerAddress: one address has so many connections and no more; a
// place is free again when one ends.
func TestConnectionsPerAddress(t *testing.T) {
	e := startEdge(t, newCluster(t), func(c *config) { c.HTTP.MaxPerAddress = 5 })
	e.client.CloseIdleConnections()
	open := func() (net.Conn, bool) {
		c := e.dial(t)
		_, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
		if err != nil {
			return c, false
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return c, false
		}
		resp.Body.Close()
		return c, true
	}
	var held []net.Conn
	require.Eventually(t, func() bool { // until the harness's own are gone
		c, ok := open()
		if ok {
			held = append(held, c)
		}
		return len(held) == 5
	}, 20*time.Second, 10*time.Millisecond)
	_, ok := open()
	require.False(t, ok, "a sixth connection was served")
	held[0].Close()
	require.Eventually(t, func() bool { _, ok := open(); return ok }, 20*time.Second, 10*time.Millisecond)
	_, metrics := e.get(t, e.admin+"/metrics")
	refused, err := strconv.Atoi(metric(metrics, "sluice_ingest_connections_refused_total"))
	require.NoError(t, err)
	require.Positive(t, refused)
}

// TestExpectContinue: a body is asked for only if it would be taken, and what is
// refused is refused before it is sent.
func TestExpectContinue(t *testing.T) {
	e := startEdge(t, newCluster(t), nil)
	ask := func(header string) (*bufio.Reader, net.Conn) {
		c := e.dial(t)
		_, err := io.WriteString(c, "POST /api/events HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"+header+"\r\n")
		require.NoError(t, err)
		return bufio.NewReader(c), c
	}
	r, c := ask("Content-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(good)) + "\r\n")
	line, err := r.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1 100 Continue\r\n", line)
	_, err = r.ReadString('\n')
	require.NoError(t, err)
	_, err = io.WriteString(c, good)
	require.NoError(t, err)
	resp, err := http.ReadResponse(r, nil)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, http.StatusAccepted, resp.StatusCode)

	for header, want := range map[string]int{
		"Content-Type: text/plain\r\nContent-Length: 5\r\n":                 http.StatusUnsupportedMediaType,
		"Content-Type: application/json\r\nContent-Length: 99999999999\r\n": http.StatusRequestEntityTooLarge,
	} {
		r, _ := ask(header)
		resp, err := http.ReadResponse(r, nil)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, want, resp.StatusCode)
	}
	// Another expectation is not one we can meet.
	require.Equal(t, []int{http.StatusExpectationFailed}, e.raw(t, "POST /api/events HTTP/1.1\r\nHost: x\r\nExpect: tea\r\nContent-Length: 0\r\n\r\n"))
}

// TestHeaderBounds: more header than http.max_header_bytes allows is refused.
func TestHeaderBounds(t *testing.T) {
	e := startEdge(t, newCluster(t), nil)
	long := "GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: " + strings.Repeat("a", 64<<10) + "\r\n\r\n"
	require.Equal(t, []int{http.StatusRequestHeaderFieldsTooLarge}, e.raw(t, long))
	many := "GET /healthz HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("A: b\r\n", 20_000) + "\r\n"
	require.Equal(t, []int{http.StatusRequestHeaderFieldsTooLarge}, e.raw(t, many))
	e.stillServes(t)
}

// TestSecrets: what every edge's log is looked through for is found in a line of
// it, as the log quotes it.
func TestSecrets(t *testing.T) {
	_, key := addKey(t, t.TempDir()+"/keys.yaml", "--source", "app")
	for _, secret := range []string{key, "Authorization: Bearer x", with("payload", `{"a":1}`), "app:click:u1:2026-01-02T03:04:05.000000000Z"} {
		log := new(lockedBuffer)
		slog.New(slog.NewTextHandler(log, nil)).Info("x", "about", secret)
		require.True(t, logtest.Secret(log.String()), "%s", log)
	}
}

// TestNoSecretsInTheLog: whatever strangers and friends send, neither payloads nor
// keys nor what stands in tuples' fields comes into the log, at its most detailed.
func TestNoSecretsInTheLog(t *testing.T) {
	const planted = "PLANTED-7f3a9c"
	dir := t.TempDir()
	file := dir + "/keys.yaml"
	_, key := addKey(t, file, "--source", "app")
	require.NoError(t, os.Mkdir(dir+"/schemas", 0o700))
	require.NoError(t, os.WriteFile(dir+"/schemas/click.v1.json", []byte(`{"properties":{"a":{"enum":[1,"`+planted+`-ok"]}}}`), 0o600))
	e := startEdge(t, newCluster(t), func(c *config) {
		c.Auth.KeysFile, c.Schemas.Dir = file, dir+"/schemas"
		slow(c)
	})
	bodies := []string{
		with("payload", `{"a":"`+planted+`"}`), with("payload", `{"a":"`+planted+`-ok"}`),
		with("payload", `{"`+planted+`":1,"`+planted+`":2}`), with("payload", `"`+planted+`"`),
		with("source", `"`+planted+`"`), with("actor_id", `"`+planted+`\u0000"`), with("event_type", `"`+planted+`"`),
		`{"` + planted + `":1}`, planted, `[` + planted + `]`, `{"payload":"` + planted,
	}
	for _, body := range bodies {
		for _, header := range [][]string{nil, bearer(key), bearer(planted), {"X-Api-Key", key[:len(key)-1] + "A"}, {"X-Request-Id", planted + " " + key, "Traceparent", planted}} {
			e.post(t, "/api/events", []byte(body), header...)
			e.post(t, "/api/events/batch", []byte("["+body+"]"), header...)
			e.post(t, "/api/events/batch", []byte(body), append([]string{"Content-Type", "application/x-ndjson"}, header...)...)
		}
		e.raw(t, "POST /api/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+key+"\r\nX-Bad : "+planted+"\r\n\r\n"+body)
		e.raw(t, "POST /"+planted+" HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"+body)
	}
	require.NoError(t, os.WriteFile(dir+"/schemas/click.v2.json", []byte(planted), 0o600))
	require.Eventually(t, func() bool { return strings.Contains(e.log.String(), "schemas not reloaded") }, 20*time.Second, 20*time.Millisecond)
	for _, secret := range []string{planted, key, key[len(key)-20:]} {
		for line := range strings.Lines(e.log.String()) {
			require.NotContains(t, line, secret)
		}
	}
	require.Contains(t, e.log.String(), "a wrong key")
	require.False(t, bytes.Contains([]byte(e.log.String()), []byte("Bearer")))
}
