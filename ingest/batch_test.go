package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/ingest/internal/problem"
)

func numbered(i int) string { return with("actor_id", fmt.Sprintf(`"u%d"`, i)) }

func manyEvents(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = numbered(i)
	}
	return out
}

func array(items ...string) []byte  { return []byte("[" + strings.Join(items, ",") + "]") }
func ndjson(items ...string) []byte { return []byte(strings.Join(items, "\n") + "\n") }

var ndjsonType = []string{"Content-Type", "application/x-ndjson"}

// TestOneBadAmongMany: the 9,999 good are accepted, the bad one is named by its
// index, in both forms of a batch.
func TestOneBadAmongMany(t *testing.T) {
	for _, form := range []string{"array", "ndjson"} {
		t.Run(form, func(t *testing.T) {
			e := startEdge(t, newCluster(t), nil)
			items := manyEvents(10_000)
			items[7_777] = with("occurred_at", `"2026-02-30T00:00:00Z"`)
			var a answer
			if form == "array" {
				a = e.post(t, "/api/events/batch", array(items...))
			} else {
				a = e.post(t, "/api/events/batch", ndjson(items...), ndjsonType...)
			}
			require.Equal(t, http.StatusMultiStatus, a.status)
			b := a.batch(t)
			require.Equal(t, []int{9_999, 0, 1, 0}, []int{b.Accepted, b.Deduplicated, b.Rejected, b.Failed})
			require.Len(t, b.Items, 10_000)
			seen := map[string]bool{}
			for i, it := range b.Items {
				require.Equal(t, i, it.Index)
				if i == 7_777 {
					require.Equal(t, "rejected", it.Status)
					require.Equal(t, "/occurred_at", it.Error[0].Pointer)
					require.Empty(t, it.EventID)
					continue
				}
				require.Equal(t, "queued", it.Status)
				require.False(t, seen[it.EventID], "an id twice")
				seen[it.EventID] = true
			}
			got := records(t, e.cluster, 9_999)
			last := map[int32]int{}
			for _, r := range got {
				var n int
				_, err := fmt.Sscanf(string(r.Key), "app:click:u%d:", &n)
				require.NoError(t, err)
				if before, ok := last[r.Partition]; ok {
					require.Greater(t, n, before, "a partition has the batch's order")
				}
				last[r.Partition] = n
				require.True(t, seen[string(r.Headers[0].Value)], "the header event-id is the id answered")
			}
		})
	}
}

// TestBatches: the status and the counts that each mixture is answered with.
func TestBatches(t *testing.T) {
	e := startEdge(t, newCluster(t), func(c *config) {
		c.Known.Bytes = 0 // the rows repeat each other, and each stands for itself
		c.Limits.BatchItems = 1_000
		c.Limits.EventBytes = 4 << 10
		c.Limits.BodyBytes = 256 << 10
	})
	const bad = `{"source":""}`
	rows := []struct {
		name                       string
		body                       []byte
		header                     []string
		status                     int
		accepted, rejected, listed int
	}{
		{"one", array(good), nil, 202, 1, 0, 1},
		{"the same twice", array(good, good), nil, 202, 2, 0, 2},
		{"white space", []byte(" [ " + good + "\n,\t" + good + " ] \n"), nil, 202, 2, 0, 2},
		{"mixed", array(good, bad, good), nil, 207, 2, 1, 3},
		{"all bad", array(bad, "1", "null", "[]", `"x"`), nil, 400, 0, 5, 5},
		{"nested array", array("[" + good + "]"), nil, 400, 0, 1, 1},
		{"a name twice in one", array(good, with("source", `"x","source":"y"`)), nil, 207, 1, 1, 2},
		{"invalid UTF-8 in one", array(good, with("source", "\"\xff\"")), nil, 207, 1, 1, 2},
		{"a lone surrogate in one", array(good, with("source", `"\ud800"`)), nil, 207, 1, 1, 2},
		{"one too deep", array(good, with("payload", strings.Repeat(`{"a":`, 200)+"1"+strings.Repeat("}", 200))), nil, 207, 1, 1, 2},
		{"one too large", array(good, with("payload", `{"a":"`+strings.Repeat("x", 5_000)+`"}`)), nil, 207, 1, 1, 2},
		{"gzip", []byte(gz(string(array(good, good)))), []string{"Content-Encoding", "gzip"}, 202, 2, 0, 2},
		{"zstd", []byte(zst(string(array(good, good)))), []string{"Content-Encoding", "zstd"}, 202, 2, 0, 2},
		{"minimal", array(good, bad, good), []string{"Prefer", "return=minimal"}, 207, 2, 1, 1},
		{"minimal, nothing to tell", array(good), []string{"Prefer", `respond-async, Return="minimal"; x=1`}, 202, 1, 0, 0},
		{"representation", array(good), []string{"Prefer", "return=representation, return=minimal"}, 202, 1, 0, 1},
		{"lines", ndjson(good, good), ndjsonType, 202, 2, 0, 2},
		{"lines, the last without end", []byte(good + "\n" + good), ndjsonType, 202, 2, 0, 2},
		{"lines, CRLF and blank", []byte("\r\n" + good + "\r\n\r\n  \n" + good + "\r\n"), ndjsonType, 202, 2, 0, 2},
		{"lines, one broken", ndjson(good, good[:20], good), ndjsonType, 207, 2, 1, 3},
		{"lines, two values in one", ndjson(good+good, good), ndjsonType, 207, 1, 1, 2},
		{"lines, one event over two", []byte(strings.Replace(good, ",", ",\n", 1)), ndjsonType, 400, 0, 2, 2},
		{"lines, an array", array(good, good), ndjsonType, 400, 0, 1, 1},
		{"1,000", array(manyEvents(1_000)...), nil, 202, 1_000, 0, 1_000},
	}
	stored := 0
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			a := e.post(t, "/api/events/batch", r.body, r.header...)
			require.Equal(t, r.status, a.status, "%s", a.body)
			b := a.batch(t)
			require.Equal(t, []int{r.accepted, 0, r.rejected, 0, r.listed},
				[]int{b.Accepted, b.Deduplicated, b.Rejected, b.Failed, len(b.Items)}, "%s", a.body)
			require.Equal(t, strings.HasPrefix(r.name, "minimal"), a.header.Get("Preference-Applied") == "return=minimal")
			for _, it := range b.Items {
				if it.Status == "rejected" {
					require.NotEmpty(t, it.Error)
					require.NotEmpty(t, it.Error[0].Detail)
				}
			}
		})
		stored += r.accepted
	}
	records(t, e.cluster, stored)
}

// TestNoBatch: what is refused as a whole. Nothing of it reaches the log, however
// many good events stand before the fault.
func TestNoBatch(t *testing.T) {
	e := startEdge(t, newCluster(t), func(c *config) {
		c.Limits.BatchItems = 1_000
		c.Limits.EventBytes = 4 << 10
		c.Limits.BodyBytes = 256 << 10
	})
	ok := string(array(good, good))
	large := strings.Repeat(" ", 256<<10)
	rows := []struct {
		name   string
		body   string
		header []string
		kind   *problem.Kind
		says   string
	}{
		{"empty", "", nil, problem.InvalidBatch, "is empty"},
		{"no lines", "", ndjsonType, problem.InvalidBatch, "holds no event"},
		{"blank lines", "\n\r\n  \n", ndjsonType, problem.InvalidBatch, "holds no event"},
		{"empty array", "[]", nil, problem.InvalidBatch, "1 to 1000 events"},
		{"one event", good, nil, problem.InvalidBatch, "/api/events"},
		{"null", "null", nil, problem.InvalidBatch, "not an array"},
		{"not closed", ok[:len(ok)-1], nil, problem.InvalidBatch, "ends too early"},
		{"cut in an event", ok[:len(ok)-9], nil, problem.InvalidBatch, "ends too early"},
		{"comma at the end", ok[:len(ok)-1] + ",]", nil, problem.InvalidBatch, "not valid JSON"},
		{"no comma", "[" + good + good + "]", nil, problem.InvalidBatch, "not valid JSON"},
		{"closed by a brace", ok[:len(ok)-1] + "}", nil, problem.InvalidBatch, "not valid JSON"},
		{"text after it", ok + "x", nil, problem.InvalidBatch, "goes on after the array"},
		{"two arrays", ok + ok, nil, problem.InvalidBatch, "goes on after the array"},
		{"lines sent as JSON", good + "\n" + good, nil, problem.InvalidBatch, "not an array"},
		{"byte order mark", "\xef\xbb\xbf" + ok, nil, problem.InvalidBatch, "byte order mark"},
		{"NaN in one", string(array(good, with("payload", `{"a":NaN}`))), nil, problem.InvalidBatch, "/1/payload/a"},
		{"a comment", "[" + good + "/* and */," + good + "]", nil, problem.InvalidBatch, "not valid JSON"},
		{"1,001 in an array", string(array(manyEvents(1_001)...)), nil, problem.TooManyItems, "1000 events"},
		{"1,001 lines", string(ndjson(manyEvents(1_001)...)), ndjsonType, problem.TooManyItems, "1000 events"},
		{"too large", large + ok, nil, problem.BodyTooLarge, "262144 bytes"},
		{"too large, gzip", gz(large + ok), []string{"Content-Encoding", "gzip"}, problem.BodyTooLarge, "262144 bytes"},
		{"too large, zstd", zst(large + ok), []string{"Content-Encoding", "zstd"}, problem.BodyTooLarge, "262144 bytes"},
		{"broken gzip", gz(ok)[:40], []string{"Content-Encoding", "gzip"}, problem.InvalidEncoding, "not valid gzip"},
		{"other type", ok, []string{"Content-Type", "text/csv"}, problem.UnsupportedMediaType, "application/x-ndjson"},
		{"other coding", ok, []string{"Content-Encoding", "deflate"}, problem.UnsupportedEncoding, "gzip, zstd, identity"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			a := e.post(t, "/api/events/batch", []byte(r.body), r.header...)
			p := a.problem(t)
			require.Equal(t, problem.TypePrefix+r.kind.Name, p.Type, "%s", a.body)
			require.Equal(t, r.kind.Status, a.status)
			require.Contains(t, string(a.body), r.says)
		})
	}
	records(t, e.cluster, 0)
	_, metrics := e.get(t, e.admin+"/metrics")
	require.Contains(t, metrics, "sluice_ingest_in_flight_bytes 0\n", "memory was not given back")
}

// TestFullBatch: 100,000 events pass with the default limits, 100,001 do not.
func TestFullBatch(t *testing.T) {
	e := startEdge(t, newCluster(t), nil)
	items := manyEvents(100_001)
	a := e.post(t, "/api/events/batch", ndjson(items...), ndjsonType...)
	require.Equal(t, http.StatusRequestEntityTooLarge, a.status)
	records(t, e.cluster, 0)
	a = e.post(t, "/api/events/batch", ndjson(items[:100_000]...), ndjsonType...)
	require.Equal(t, http.StatusAccepted, a.status)
	b := a.batch(t)
	require.Equal(t, 100_000, b.Accepted)
	require.Len(t, b.Items, 100_000)
	require.Equal(t, 99_999, b.Items[99_999].Index)
}

// TestSameIDs: an event has the same id alone and in either form of a batch.
func TestSameIDs(t *testing.T) {
	e := startEdge(t, newCluster(t), nil)
	one := e.post(t, "/api/events", []byte(good))
	var id struct {
		EventID string `json:"event_id"`
	}
	require.NoError(t, json.Unmarshal(one.body, &id))
	require.NotEmpty(t, id.EventID)
	other := strings.Replace(good, "2026-01-02T03:04:05Z", "2026-01-02T04:04:05.000+01:00", 1)
	b := e.post(t, "/api/events/batch", array(good, other)).batch(t)
	require.Equal(t, id.EventID, b.Items[0].EventID)
	require.Equal(t, id.EventID, b.Items[1].EventID, "another spelling of the same instant")
	b = e.post(t, "/api/events/batch", ndjson(good), ndjsonType...).batch(t)
	require.Equal(t, id.EventID, b.Items[0].EventID)
}

// An item too deep for any parser is refused by its index; it once took the
// whole batch with it.
func TestDeepItem(t *testing.T) {
	e := startEdge(t, newCluster(t), nil)
	deep := strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000)
	a := e.post(t, "/api/events/batch", array(good, with("payload", `{"a":`+deep+`}`)))
	require.Equal(t, 207, a.status, "%s", a.body)
	require.Contains(t, string(a.body), `"accepted":1`)
	require.Contains(t, string(a.body), `{"index":1,"status":"rejected"`)
	require.Contains(t, string(a.body), "nested too deeply")
}
