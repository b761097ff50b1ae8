package server_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/deploy/local/enginetest"
)

// client speaks HTTP to an engine, as curl would.
type client struct {
	t *testing.T
	e *enginetest.Engine
	c *http.Client
}

func newClient(t *testing.T) client {
	t.Helper()
	tr := &http.Transport{DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return client{t, enginetest.Start(t), &http.Client{Transport: tr}}
}

func (c client) do(ctx context.Context, method, params string, body io.Reader, headers ...string) (*http.Response, string, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.e.URL+"/?"+params, body)
	if err != nil {
		return nil, "", err
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.c.Do(r)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, string(b), err
}

// ask posts a query and returns its output.
func (c client) ask(query string) string {
	c.t.Helper()
	resp, body, err := c.do(c.t.Context(), http.MethodPost, "", strings.NewReader(query))
	require.NoError(c.t, err)
	require.Equal(c.t, http.StatusOK, resp.StatusCode, body)
	return body
}

// until asks until the answer is want: what another request does is seen a
// little later.
func (c client) until(want, query string) {
	c.t.Helper()
	require.Eventually(c.t, func() bool { return c.ask(query) == want }, 20*time.Second, 20*time.Millisecond, "%s", query)
}

func escape(q string) string { return url.QueryEscape(q) }

func TestHTTP(t *testing.T) {
	c := newClient(t)
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = io.WriteString(z, "SELECT 'zipped'")
	require.NoError(t, z.Close())
	c.ask("CREATE TABLE t (n UInt32, s String) ENGINE = MergeTree ORDER BY n")

	for _, k := range []struct {
		name, method, params, body string
		headers                    []string
		status                     int
		want                       string // a part of the answer
		wantHeader                 [2]string
	}{
		{name: "query in the body", body: "SELECT 1", status: 200, want: "1\n"},
		{name: "query in the URL", method: "GET", params: "query=SELECT+2", status: 200, want: "2\n"},
		{name: "query in both", params: "query=SELECT", body: "3", status: 200, want: "3\n"},
		{name: "no query", status: 200, want: "Ok.\n"},
		{name: "its own format", body: "SELECT 1 AS a FORMAT JSONEachRow;", status: 200, want: "{\"a\":1}\n", wantHeader: [2]string{"X-ClickHouse-Format", "JSONEachRow"}},
		{name: "a format by header", body: "SELECT 1 AS a", headers: []string{"X-ClickHouse-Format", "JSONCompact"}, status: 200, want: `"data"`, wantHeader: [2]string{"Content-Type", "application/json; charset=UTF-8"}},
		{name: "query id", params: "query_id=q1", body: "SELECT 1", status: 200, want: "1", wantHeader: [2]string{"X-ClickHouse-Query-Id", "q1"}},
		{name: "parameter", params: "param_x=it's", body: "SELECT {x:String}", status: 200, want: "it\\'s\n"},
		{name: "gzip", body: zipped.String(), headers: []string{"Content-Encoding", "gzip"}, status: 200, want: "zipped\n"},
		{name: "show", body: "SHOW TABLES", status: 200, want: "t\n"},
		{name: "insert with values", body: "INSERT INTO t VALUES (1, 'a; b'), (2, 'c')", status: 200, wantHeader: [2]string{"X-ClickHouse-Summary", `{"read_rows":"0","read_bytes":"0","written_rows":"2","written_bytes":"29"}`}},
		{name: "insert from the body", params: "query=" + escape("INSERT INTO t FORMAT JSONEachRow"), body: `{"n":3}` + "\n" + `{"n":4,"s":"x"}`, status: 200},
		{name: "insert, all in the body", body: "INSERT INTO t FORMAT TSV\n5\ty\n", status: 200},
		{name: "insert by select", body: "INSERT INTO t SELECT 6, 'z'", status: 200},
		{name: "what is there", body: "SELECT groupArray(n) FROM (SELECT n FROM t ORDER BY n)", status: 200, want: "[1,2,3,4,5,6]\n"},

		{name: "syntax", body: "SELEC 1", status: 400, want: "Code: 62. DB::Exception: Syntax error", wantHeader: [2]string{"X-ClickHouse-Exception-Code", "62"}},
		{name: "no table", body: "SELECT * FROM nope", status: 404, want: "(UNKNOWN_TABLE)", wantHeader: [2]string{"X-ClickHouse-Exception-Code", "60"}},
		{name: "no setting", params: "no_such_setting=1", body: "SELECT 1", status: 404, want: "(UNKNOWN_SETTING)"},
		{name: "two statements", body: "SELECT 1; SELECT 2", status: 400, want: "multi-statements are not allowed"},
		{name: "GET changes nothing", method: "GET", params: "query=" + escape("INSERT INTO t VALUES (9, '')"), status: 500, want: "(READONLY)"},
		{name: "an unknown coding", body: "x", headers: []string{"Content-Encoding", "rot13"}, status: 415, want: "rot13"},
		{name: "broken gzip", body: "x", headers: []string{"Content-Encoding", "gzip"}, status: 500, want: "CANNOT_READ_ALL_DATA"},
		{name: "sessions", params: "session_id=a", body: "SELECT 1", status: 501, want: "sessions are not supported"},
		{name: "bad data", params: "query=" + escape("INSERT INTO t FORMAT JSONEachRow"), body: `{"n":"x"}`, status: 400, want: "Code: "},
		{name: "nothing was added", body: "SELECT count() FROM t", status: 200, want: "6\n"},
	} {
		t.Run(k.name, func(t *testing.T) {
			if k.method == "" {
				k.method = http.MethodPost
			}
			resp, body, err := c.do(t.Context(), k.method, k.params, strings.NewReader(k.body), k.headers...)
			require.NoError(t, err)
			require.Equal(t, k.status, resp.StatusCode, body)
			require.Contains(t, body, k.want)
			if k.wantHeader[0] != "" {
				require.Equal(t, k.wantHeader[1], resp.Header.Get(k.wantHeader[0]))
			}
			require.NotEmpty(t, resp.Header.Get("X-ClickHouse-Query-Id"))
		})
	}
	resp, err := c.c.Get(c.e.URL + "/nothing")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusNotFound, resp.StatusCode)
}

// endless is a query that runs until it is killed.
const endless = "SELECT sleepEachRow(0.05) FROM numbers(1000000) SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 1000000000"

const countEndless = "SELECT count() FROM system.processes WHERE query LIKE 'SELECT sleepEachRow%' OR query LIKE 'CREATE TABLE slow%'"

func TestKill(t *testing.T) {
	c := newClient(t)
	for _, q := range []string{endless, "CREATE TABLE slow ENGINE = Memory AS " + endless} {
		ended := make(chan string)
		go func() {
			_, body, err := c.do(t.Context(), http.MethodPost, "query_id=mine", strings.NewReader(q))
			ended <- fmt.Sprint(body, err)
		}()
		c.until("1\n", countEndless)

		_, body, err := c.do(t.Context(), http.MethodPost, "query_id=mine", strings.NewReader("SELECT 1"))
		require.NoError(t, err)
		require.Contains(t, body, "Code: 216", "an id is one query's at a time")

		c.ask("KILL QUERY WHERE query_id = 'another' SYNC")
		require.Equal(t, "1\n", c.ask(countEndless))
		c.ask("KILL QUERY WHERE query_id = 'mine' SYNC")
		require.Contains(t, <-ended, "QUERY_WAS_CANCELLED")
		require.Equal(t, "0\n", c.ask(countEndless))
	}
}

// A client that goes away takes its query with it, be it running or waiting.
func TestDisconnect(t *testing.T) {
	c := newClient(t)
	for _, q := range []string{endless, "CREATE TABLE slow ENGINE = Memory AS " + endless} {
		ctx, leave := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			_, _, err := c.do(ctx, http.MethodPost, "", strings.NewReader(q))
			ended <- err
		}()
		c.until("1\n", countEndless)
		leave()
		require.ErrorIs(t, <-ended, context.Canceled)
		c.until("0\n", countEndless)
	}
}

// An INSERT whose client goes away in the middle of its data adds none of them.
// A server that took the end of the connection for the end of the data would
// add what had come.
func TestInsertCutShort(t *testing.T) {
	c := newClient(t)
	c.ask("CREATE TABLE t (n UInt32) ENGINE = MergeTree ORDER BY n")
	insert := "POST /?query_id=cut&query=" + escape("INSERT INTO t FORMAT TSV") + " HTTP/1.1\r\nHost: x\r\n"
	rows := strings.Repeat("1\n", 1<<20)
	for name, head := range map[string]string{
		"length":  insert + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(rows)+10) + rows,
		"chunked": insert + fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(rows), rows),
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", c.e.Addr)
			require.NoError(t, err)
			_, err = io.WriteString(conn, head)
			require.NoError(t, err)
			c.until("1\n", "SELECT count() FROM system.processes WHERE query_id = 'cut'")
			require.NoError(t, conn.Close())
			c.until("0\n", "SELECT count() FROM system.processes WHERE query_id = 'cut'")
			require.Equal(t, "0\n", c.ask("SELECT count() FROM t"))
		})
	}
}

// More requests than the engine takes at a time all get their answer, and a
// KILL passes while all its places are taken.
func TestMoreThanItTakes(t *testing.T) {
	c := newClient(t)
	const n = 100
	var wg sync.WaitGroup
	errs := make(chan error, n)
	for range n {
		wg.Go(func() {
			_, _, err := c.do(t.Context(), http.MethodPost, "", strings.NewReader(endless))
			errs <- err
		})
	}
	// No place is free for a query that asks, so the engine is only told.
	require.Eventually(t, func() bool {
		c.ask("KILL QUERY WHERE query LIKE 'SELECT sleepEachRow%' ASYNC")
		return len(errs) == n
	}, 60*time.Second, 20*time.Millisecond)
	wg.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	require.Equal(t, "0\n", c.ask(countEndless))
}
