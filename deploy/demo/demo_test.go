package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"sluice/deploy/demo/sample"
)

func printer() *message.Printer { return message.NewPrinter(language.English) }

func TestFormat(t *testing.T) {
	for name, c := range map[string]struct{ answer, want string }{
		"numbers right and grouped, quoted or not; text left": {
			`{"meta":[{"name":"source","type":"String"},{"name":"events","type":"UInt64"}],"data":[["git:a","1234567"],["ü",9]]}`,
			"   source     events\n   ──────  ─────────\n   git:a   1,234,567\n   ü               9\n",
		},
		"a name longer than its values; no spaces at the end": {
			`{"meta":[{"name":"difference","type":"Nullable(Int64)"},{"name":"day","type":"Date"}],"data":[[-1,"2014-05-28"],[null,""]]}`,
			"   difference  day\n   ──────────  ──────────\n           -1  2014-05-28\n\n",
		},
		"digits that are text stay as they are": {
			`{"meta":[{"name":"id","type":"String"}],"data":[["1000"]]}`,
			"   id\n   ────\n   1000\n",
		},
		"no rows": {
			`{"meta":[{"name":"id","type":"String"}],"data":[]}`,
			"   id\n   ──\n   (nothing)\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parse([]byte(c.answer))
			require.NoError(t, err)
			require.Equal(t, c.want, got.format(printer()))
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{``, `Code: 60. DB::Exception`, `{"meta":[{"name":"a","type":"String"}],"data":[["x","y"]]}`} {
		_, err := parse([]byte(text))
		require.Error(t, err, text)
	}
}

func TestFirstThird(t *testing.T) {
	text, err := sample.Text()
	require.NoError(t, err)
	third, err := firstThird()
	require.NoError(t, err)
	require.Equal(t, 1000, bytes.Count(third, []byte("\n")))
	require.True(t, bytes.HasPrefix(text, third))
}

// fakes are an edge that takes everything and a ClickHouse whose balance knows
// of a post only when it has been asked lag times more.
//
// The edge knows the last known events of each batch, and writes no record of them.
func fakes(t *testing.T, lag, difference int64) demo { return fakesKnowing(t, lag, difference, 0) }

func fakesKnowing(t *testing.T, lag, difference, known int64) demo {
	t.Helper()
	var posted, asked atomic.Int64
	edge := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			var err error
			if body, err = gzip.NewReader(r.Body); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
		}
		text, _ := io.ReadAll(body)
		n := int64(bytes.Count(text, []byte("\n")))
		posted.Add(n - known)
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprintf(w, `{"accepted":%d,"deduplicated":%d,"rejected":0,"failed":0,"items":[]}`, n, known)
	}))
	t.Cleanup(edge.Close)
	clickhouse := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sql, _ := io.ReadAll(r.Body)
		records := int64(0)
		if posted.Load() > 0 && asked.Add(1) > lag {
			records = posted.Load()
		}
		switch {
		case bytes.Contains(sql, []byte("AS others")):
			fmt.Fprintf(w, `{"meta":[{"name":"records","type":"UInt64"},{"name":"rows","type":"UInt64"},{"name":"duplicates","type":"UInt64"},{"name":"conflicts","type":"UInt64"},{"name":"others","type":"UInt64"},{"name":"lost","type":"UInt64"},{"name":"difference","type":"Int64"}],
				"data":[["4000","2889","1000","111","0","0","%d"]]}`, difference)
		case bytes.Contains(sql, []byte("sluice.balance")):
			fmt.Fprintf(w, `{"meta":[{"name":"records","type":"UInt64"}],"data":[["%d"]]}`, records)
		default:
			fmt.Fprint(w, `{"meta":[{"name":"source","type":"String"}],"data":[["git:a"]]}`)
		}
	}))
	t.Cleanup(clickhouse.Close)
	return demo{edge: edge.URL, clickhouse: clickhouse.URL, client: edge.Client(), out: io.Discard, wait: time.Minute, poll: time.Millisecond}
}

func TestRun(t *testing.T) {
	var out strings.Builder
	d := fakes(t, 3, 0)
	d.out = &out
	require.NoError(t, d.run(t.Context()))
	for _, want := range []string{
		"Posted 3,000 events", "Posted the first 1,000 of them again", "dealt with all 4,000",
		"1. How many", "   FROM sluice.events\n", "2. Which hours", "3. Was anything lost",
		"4,000 records = 2,889 rows\n   + 1,000 duplicates", "+ 111 conflicts", "The difference is 0",
	} {
		require.Contains(t, out.String(), want)
	}
	require.NotContains(t, out.String(), "+ 0 ")
}

// TestRunBesideAnEdgeThatKnows: the demo once waited for a record of every event
// that it posted again, which an edge that knows them does not write.
func TestRunBesideAnEdgeThatKnows(t *testing.T) {
	var out strings.Builder
	d := fakesKnowing(t, 0, 0, 900)
	d.out, d.wait = &out, time.Second
	require.NoError(t, d.run(t.Context()))
	require.Contains(t, out.String(), "The edge knew that 1,800 of these")
	require.Contains(t, out.String(), "dealt with all 2,200 records")
}

func TestRunSaysWhatIsWrong(t *testing.T) {
	t.Run("the balance does not add up", func(t *testing.T) {
		require.ErrorContains(t, fakes(t, 0, 2).run(t.Context()), "off by 2 records")
	})
	t.Run("the consumer does not get there", func(t *testing.T) {
		d := fakes(t, 1<<40, 0)
		d.wait = 20 * time.Millisecond
		require.ErrorContains(t, d.run(t.Context()), "has 0 records, and 4000 were expected: gave up after 20ms")
	})
	t.Run("nothing listens", func(t *testing.T) {
		d := fakes(t, 0, 0)
		gone := httptest.NewServer(nil)
		d.clickhouse = gone.URL
		gone.Close()
		require.ErrorContains(t, explain(d.run(t.Context())), "start it with make run")
	})
	for name, answer := range map[string]struct {
		status int
		body   string
		want   string
	}{
		"some rejected":   {http.StatusMultiStatus, `{"accepted":1,"rejected":2,"failed":0}`, "answered 207"},
		"the log is away": {http.StatusServiceUnavailable, `{"title":"the log does not answer"}`, "the log does not answer"},
		"nothing in it":   {http.StatusAccepted, `{}`, "accepted 0 events"},
	} {
		t.Run(name, func(t *testing.T) {
			d := fakes(t, 0, 0)
			edge := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(answer.status)
				fmt.Fprint(w, answer.body)
			}))
			defer edge.Close()
			d.edge = edge.URL
			require.ErrorContains(t, d.run(t.Context()), answer.want)
		})
	}
}
