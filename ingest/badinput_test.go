package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"sluice/ingest/internal/problem"
)

// good is a valid event; with replaces or adds members of it.
const good = `{"source":"app","event_type":"click","actor_id":"u1","occurred_at":"2026-01-02T03:04:05Z","payload":{"a":1}}`

func with(member, value string) string {
	members := []string{"source", `"app"`, "event_type", `"click"`, "actor_id", `"u1"`, "occurred_at", `"2026-01-02T03:04:05Z"`, "payload", `{"a":1}`}
	var b strings.Builder
	b.WriteByte('{')
	found := false
	for i := 0; i < len(members); i += 2 {
		v := members[i+1]
		if members[i] == member {
			v, found = value, true
		}
		if v == "" {
			continue
		}
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"%s":%s`, members[i], v)
	}
	if !found {
		fmt.Fprintf(&b, `,"%s":%s`, member, value)
	}
	b.WriteByte('}')
	return b.String()
}

func gz(text string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write([]byte(text))
	_ = w.Close()
	return b.String()
}

func zst(text string) string {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	defer func() { _ = w.Close() }()
	return string(w.EncodeAll([]byte(text), nil))
}

// TestBadInput posts everything that issue and experience name as one event.
// Whatever it is, the answer is a 4xx problem that names the place, and nothing
// of it reaches the log.
func TestBadInput(t *testing.T) {
	e := startEdge(t, newCluster(t), nil)
	deep := strings.Repeat(`{"a":`, 20_000) + "1" + strings.Repeat("}", 20_000)
	deepArrays := strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000)
	soon := time.Now().Add(10 * time.Minute).UTC().Format(time.RFC3339)
	type row struct {
		name    string
		body    string
		kind    *problem.Kind
		pointer string // of the first fault
		says    string // in the detail or in what is allowed
		header  []string
	}
	rows := []row{
		{name: "empty", body: "", says: "is empty"},
		{name: "white space", body: " \n\t ", says: "is empty"},
		{name: "truncated in a string", body: `{"source":"ap`, pointer: "/source", says: "ends too early"},
		{name: "truncated after a member", body: good[:len(good)-1], says: "ends too early"},
		{name: "two values", body: good + good, says: "more than one JSON value"},
		{name: "text after the value", body: good + " x", says: "not valid JSON"},
		{name: "byte order mark", body: "\xef\xbb\xbf" + good, says: "byte order mark"},
		{name: "UTF-16", body: "\xff\xfe{\x00}\x00", says: "not valid JSON"},
		{name: "line comment", body: "// hi\n" + good, says: "not valid JSON"},
		{name: "block comment", body: `{/* hi */"source":"app"}`, says: "not valid JSON"},
		{name: "trailing comma", body: good[:len(good)-1] + ",}", says: "not valid JSON"},
		{name: "single quotes", body: `{'source':'app'}`, says: "not valid JSON"},
		{name: "array", body: "[" + good + "]", says: "is an array"},
		{name: "string", body: `"event"`, says: "is a string"},
		{name: "null", body: "null", says: "is null"},
		{name: "number", body: "1", says: "is a number"},
		{name: "repeated member", body: good[:len(good)-1] + `,"source":"b"}`, pointer: "/source", says: "repeated name"},
		{name: "repeated by an escape", body: good[:len(good)-1] + `,"sourc\u0065":"b"}`, pointer: "/source", says: "repeated name"},
		{name: "repeated in the payload", body: with("payload", `{"a":1,"a":2}`), pointer: "/payload/a", says: "repeated name"},
		{name: "repeated deep", body: with("payload", `{"x":[{"y":{"z":1,"\u007a":2}}]}`), pointer: "/payload/x/0/y/z", says: "repeated name"},
		{name: "wrong case", body: with("Source", `"b"`), pointer: "/Source", says: "did you mean source?"},
		{name: "near miss", body: with("event_typ", `"b"`), pointer: "/event_typ", says: "did you mean event_type?"},
		{name: "unknown member", body: with("zzz", `1`), pointer: "/zzz", says: "source, event_type, actor_id, occurred_at"},
		{name: "unknown member with a slash", body: with("a/b~c", `1`), pointer: "/a~1b~0c", says: "not a member"},
		{name: "source missing", body: with("source", ""), pointer: "/source", says: "is missing"},
		{name: "event_type missing", body: with("event_type", ""), pointer: "/event_type", says: "is missing"},
		{name: "actor_id missing", body: with("actor_id", ""), pointer: "/actor_id", says: "is missing"},
		{name: "occurred_at missing", body: with("occurred_at", ""), pointer: "/occurred_at", says: "is missing"},
		{name: "source a number", body: with("source", "1"), pointer: "/source", says: "is a number"},
		{name: "actor_id null", body: with("actor_id", "null"), pointer: "/actor_id", says: "is null"},
		{name: "occurred_at a number", body: with("occurred_at", "1767323045"), pointer: "/occurred_at", says: "RFC 3339"},
		{name: "payload an array", body: with("payload", "[]"), pointer: "/payload", says: "is an array"},
		{name: "payload null", body: with("payload", "null"), pointer: "/payload", says: "is null"},
		{name: "client_event_id a boolean", body: with("client_event_id", "true"), pointer: "/client_event_id", says: "is a boolean"},
		{name: "source empty", body: with("source", `""`), pointer: "/source", says: "is empty"},
		{name: "source of 513 bytes", body: with("source", `"`+strings.Repeat("s", 513)+`"`), pointer: "/source", says: "513 bytes"},
		{name: "source of 1 MB", body: with("source", `"`+strings.Repeat("s", 1_000_000)+`"`), pointer: "/source", says: "1000000 bytes"},
		{name: "actor_id of 1 MB of emoji", body: with("actor_id", `"`+strings.Repeat("🌊", 250_000)+`"`), pointer: "/actor_id", says: "1000000 bytes"},
		{name: "invalid UTF-8 in a field", body: with("source", "\"a\xff\""), pointer: "/source", says: "UTF-8"},
		{name: "invalid UTF-8 in the payload", body: with("payload", "{\"a\":\"\xc0\x80\"}"), pointer: "/payload/a", says: "UTF-8"},
		{name: "UTF-8 of a surrogate", body: with("payload", "{\"a\":\"\xed\xa0\x80\"}"), pointer: "/payload/a", says: "UTF-8"},
		{name: "lone surrogate", body: with("source", `"\ud800"`), pointer: "/source", says: "surrogate"},
		{name: "lone low surrogate in the payload", body: with("payload", `{"a":"\udc00x"}`), pointer: "/payload/a", says: "surrogate"},
		{name: "surrogates the wrong way round", body: with("actor_id", `"\udc00\ud800"`), pointer: "/actor_id", says: "surrogate"},
		{name: "NUL in source", body: with("source", `"a\u0000b"`), pointer: "/source", says: "NUL"},
		{name: "NUL in client_event_id", body: with("client_event_id", `"\u0000"`), pointer: "/client_event_id", says: "NUL"},
		{name: "raw NUL", body: with("source", "\"a\x00b\""), pointer: "/source", says: "not valid JSON"},
		{name: "raw control character", body: with("source", "\"a\nb\""), pointer: "/source", says: "not valid JSON"},
		{name: "NaN", body: with("payload", `{"a":NaN}`), pointer: "/payload/a", says: "not valid JSON"},
		{name: "Infinity", body: with("payload", `{"a":-Infinity}`), pointer: "/payload/a", says: "not valid JSON"},
		{name: "leading zero", body: with("payload", `{"a":01}`), pointer: "/payload", says: "not valid JSON"},
		{name: "hexadecimal", body: with("payload", `{"a":0x1}`), pointer: "/payload", says: "not valid JSON"},
		{name: "plus sign", body: with("payload", `{"a":+1}`), pointer: "/payload/a", says: "not valid JSON"},
		{name: "depth 20,000 of objects", body: with("payload", deep), says: "nested too deeply"},
		{name: "depth 20,000 of arrays", body: with("payload", `{"a":`+deepArrays+`}`), says: "nested too deeply"},
		{name: "depth 20,000 and unclosed", body: strings.Repeat("[", 20_000), says: "nested too deeply"},
		{name: "no zone", body: with("occurred_at", `"2026-01-02T03:04:05"`), pointer: "/occurred_at", says: "no zone"},
		{name: "a date", body: with("occurred_at", `"2026-01-02"`), pointer: "/occurred_at", says: "not a date and time"},
		{name: "30 February", body: with("occurred_at", `"2026-02-30T00:00:00Z"`), pointer: "/occurred_at", says: "no date that exists"},
		{name: "29 February of no leap year", body: with("occurred_at", `"2025-02-29T00:00:00Z"`), pointer: "/occurred_at", says: "no date that exists"},
		{name: "hour 24", body: with("occurred_at", `"2026-01-02T24:00:00Z"`), pointer: "/occurred_at", says: "no date that exists"},
		{name: "leap second", body: with("occurred_at", `"2016-12-31T23:59:60Z"`), pointer: "/occurred_at", says: "leap second"},
		{name: "zone +25:00", body: with("occurred_at", `"2026-01-02T03:04:05+25:00"`), pointer: "/occurred_at", says: "no valid zone"},
		{name: "ten fractional digits", body: with("occurred_at", `"2026-01-02T03:04:05.0123456789Z"`), pointer: "/occurred_at", says: "nine fractional digits"},
		{name: "a comma before the fraction", body: with("occurred_at", `"2026-01-02T03:04:05,5Z"`), pointer: "/occurred_at", says: "zone"},
		{name: "a space for the T", body: with("occurred_at", `"2026-01-02 03:04:05Z"`), pointer: "/occurred_at", says: "not a date and time"},
		{name: "year 2099", body: with("occurred_at", `"2099-01-01T00:00:00Z"`), pointer: "/occurred_at", says: "in the future"},
		{name: "ten minutes ahead", body: with("occurred_at", `"`+soon+`"`), pointer: "/occurred_at", says: "at most 5m0s after"},
		{name: "year 1600", body: with("occurred_at", `"1600-01-01T00:00:00Z"`), pointer: "/occurred_at", says: "1900-01-01"},
		{name: "year 9999", body: with("occurred_at", `"9999-12-31T23:59:59Z"`), pointer: "/occurred_at", says: "2262-04-11"},
		{name: "20 MB", body: with("payload", `{"a":"`+strings.Repeat("x", 20_000_000)+`"}`), kind: problem.EventTooLarge, says: "1048576 bytes"},
		{name: "one byte past 1 MiB", body: good + strings.Repeat(" ", 1<<20-len(good)+1), kind: problem.EventTooLarge, says: "1048576 bytes"},
		{name: "gzip bomb", body: gz(strings.Repeat(" ", 64<<20)), kind: problem.EventTooLarge, header: []string{"Content-Encoding", "gzip"}},
		{name: "zstd bomb", body: zst(strings.Repeat(" ", 64<<20)), kind: problem.EventTooLarge, header: []string{"Content-Encoding", "zstd"}},
		{name: "gzip cut off", body: gz(good)[:30], kind: problem.InvalidEncoding, header: []string{"Content-Encoding", "gzip"}},
		{name: "gzip with a wrong checksum", body: gz(good)[:len(gz(good))-8] + "\x00\x00\x00\x00" + gz(good)[len(gz(good))-4:], kind: problem.InvalidEncoding, header: []string{"Content-Encoding", "gzip"}},
		{name: "gzip with text after it", body: gz(good) + "rest", kind: problem.InvalidEncoding, header: []string{"Content-Encoding", "gzip"}},
		{name: "gzip of nothing", body: "", kind: problem.InvalidEncoding, header: []string{"Content-Encoding", "gzip"}},
		{name: "gzip that is none", body: good, kind: problem.InvalidEncoding, header: []string{"Content-Encoding", "gzip"}},
		{name: "zstd cut off", body: zst(good)[:20], kind: problem.InvalidEncoding, header: []string{"Content-Encoding", "zstd"}},
		{name: "zstd of nothing", body: "", kind: problem.InvalidEncoding, header: []string{"Content-Encoding", "zstd"}},
		{name: "gzip not announced", body: gz(good), says: "not valid JSON"},
		{name: "gzip of an empty text", body: gz(""), says: "is empty", header: []string{"Content-Encoding", "gzip"}},
		{name: "unknown coding", body: good, kind: problem.UnsupportedEncoding, header: []string{"Content-Encoding", "br"}},
		{name: "two codings", body: gz(gz(good)), kind: problem.UnsupportedEncoding, header: []string{"Content-Encoding", "gzip, gzip"}},
		{name: "two coding headers", body: gz(gz(good)), kind: problem.UnsupportedEncoding, header: []string{"Content-Encoding", "gzip", "Content-Encoding", "zstd"}},
		{name: "form", body: good, kind: problem.UnsupportedMediaType, header: []string{"Content-Type", "application/x-www-form-urlencoded"}},
		{name: "text", body: good, kind: problem.UnsupportedMediaType, header: []string{"Content-Type", "text/plain"}},
		{name: "no content type", body: good, kind: problem.UnsupportedMediaType, header: []string{"Content-Type", ""}},
		{name: "unreadable content type", body: good, kind: problem.UnsupportedMediaType, header: []string{"Content-Type", "application/json; charset"}},
		{name: "latin-1", body: good, kind: problem.UnsupportedMediaType, header: []string{"Content-Type", "application/json; charset=iso-8859-1"}},
		{name: "x-event-id differs", body: with("client_event_id", `"a"`), pointer: "/client_event_id", says: "x-event-id", header: []string{"X-Event-Id", "b"}},
		{name: "x-event-id twice", body: good, pointer: "/client_event_id", says: "x-event-id", header: []string{"X-Event-Id", "a", "X-Event-Id", "b"}},
		{name: "x-event-id not UTF-8", body: good, pointer: "/client_event_id", says: "UTF-8", header: []string{"X-Event-Id", "a\xff"}},
		{name: "x-event-id too long", body: good, pointer: "/client_event_id", says: "513 bytes", header: []string{"X-Event-Id", strings.Repeat("x", 513)}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			a := e.post(t, "/api/events", []byte(r.body), r.header...)
			kind := r.kind
			if kind == nil {
				kind = problem.InvalidEvent
			}
			p := a.problem(t)
			require.Equal(t, kind.Status, a.status, "%s", a.body)
			require.Equal(t, problem.TypePrefix+kind.Name, p.Type, "%s", a.body)
			require.NotEmpty(t, p.Title)
			if kind == problem.InvalidEvent {
				require.NotEmpty(t, p.Error)
				require.Equal(t, r.pointer, p.Error[0].Pointer, "%s", a.body)
				require.NotEmpty(t, p.Error[0].Detail)
			}
			require.Contains(t, string(a.body), r.says)
			require.Less(t, len(a.body), 8<<10, "the answer quotes too much of what was sent")
			if r.header == nil && r.name != "unknown member" && r.name != "one byte past 1 MiB" { // an extension; shorter by then
				refusedAsCloudEvent(t, e, r.body)
			}
		})
	}
	require.Equal(t, "gzip, zstd, identity", e.post(t, "/api/events", []byte(good), "Content-Encoding", "br").header.Get("Accept-Encoding"))
	require.Equal(t, "application/json, application/cloudevents+json", e.post(t, "/api/events", []byte(good), "Content-Type", "text/plain").header.Get("Accept"))

	require.Equal(t, http.StatusAccepted, e.post(t, "/api/events", []byte(good)).status, "the edge still works")
	records(t, e.cluster, 1)
	_, metrics := e.get(t, e.admin+"/metrics")
	require.Contains(t, metrics, "sluice_ingest_in_flight_bytes 0\n", "memory was not given back")
	require.Contains(t, metrics, "sluice_ingest_panics_total 0\n")
}

// refusedAsCloudEvent posts what is no event as a CloudEvent, structured and in a
// batch, in each coding: it is refused, by the names that a CloudEvent has.
func refusedAsCloudEvent(t *testing.T, e *edge, body string) {
	t.Helper()
	body = strings.NewReplacer(`"event_type":`, `"type":`, `"actor_id":`, `"subject":`, `"occurred_at":`, `"time":`, `"payload":`, `"data":`).Replace(body)
	if strings.HasPrefix(body, `{"`) {
		body = `{"specversion":"1.0","id":"1",` + body[1:]
	}
	for coding, code := range map[string]func(string) string{"identity": strings.Clone, "gzip": gz, "zstd": zst} {
		a := e.post(t, "/api/events", []byte(code(body)), "Content-Type", "application/cloudevents+json", "Content-Encoding", coding)
		require.Contains(t, []int{400, 413}, a.status, "%s", a.body)
		for _, name := range []string{"/event_type", "/actor_id", "/occurred_at", "/payload"} {
			require.NotContains(t, string(a.body), `"pointer":"`+name, "a name that a CloudEvent does not have")
		}
		a = e.post(t, "/api/events/batch", []byte(code("["+body+"]")), "Content-Type", "application/cloudevents-batch+json", "Content-Encoding", coding)
		require.Contains(t, []int{400, 413}, a.status, "%s", a.body)
	}
}

// TestOddInput posts what looks odd and is right: it is taken as it is.
func TestOddInput(t *testing.T) {
	e := startEdge(t, newCluster(t), nil)
	const head = `{"source":"app","event_type":"click","actor_id":"u1","occurred_at":`
	rows := []struct {
		name   string
		body   string
		key    string // "" for the one of good
		value  string
		header []string
	}{
		{name: "colon and percent", body: with("source", `"a:b%3A"`), key: "a%3Ab%253A:click:u1:2026-01-02T03:04:05.000000000Z",
			value: `{"source":"a:b%3A","event_type":"click","actor_id":"u1","occurred_at":"2026-01-02T03:04:05.000000000Z","payload":{"a":1}}`},
		{name: "emoji", body: with("actor_id", `"🌊\ud83c\udf0a"`), key: "app:click:🌊🌊:2026-01-02T03:04:05.000000000Z",
			value: `{"source":"app","event_type":"click","actor_id":"🌊🌊","occurred_at":"2026-01-02T03:04:05.000000000Z","payload":{"a":1}}`},
		{name: "numbers past 2^53 and as written", body: with("payload", `{"a":9007199254740993,"b":1.0,"c":1e400,"d":-0}`),
			value: head + `"2026-01-02T03:04:05.000000000Z","payload":{"a":9007199254740993,"b":1.0,"c":1e400,"d":-0}}`},
		{name: "year 1970", body: with("occurred_at", `"1970-01-01T00:00:00Z"`), key: "app:click:u1:1970-01-01T00:00:00.000000000Z",
			value: head + `"1970-01-01T00:00:00.000000000Z","payload":{"a":1}}`},
		{name: "another zone, nine digits", body: with("occurred_at", `"2026-01-02T05:04:05.123456789+02:00"`), key: "app:click:u1:2026-01-02T03:04:05.123456789Z",
			value: head + `"2026-01-02T03:04:05.123456789Z","payload":{"a":1}}`},
		{name: "no payload", body: with("payload", ""), value: head + `"2026-01-02T03:04:05.000000000Z","payload":{}}`},
		{name: "NUL in the payload", body: with("payload", `{"a":"\u0000"}`), value: head + `"2026-01-02T03:04:05.000000000Z","payload":{"a":"\u0000"}}`},
		{name: "gzip", body: gz(good), header: []string{"Content-Encoding", "gzip"}},
		{name: "x-gzip in capitals", body: gz(good), header: []string{"Content-Encoding", "X-GZIP"}},
		{name: "gzip in two members", body: gz(good[:50]) + gz(good[50:]), header: []string{"Content-Encoding", "gzip"}},
		{name: "zstd", body: zst(good), header: []string{"Content-Encoding", "zstd"}},
		{name: "identity", body: good, header: []string{"Content-Encoding", "identity"}},
		{name: "charset", body: good, header: []string{"Content-Type", "application/json; charset=UTF-8"}},
		{name: "x-event-id", body: good, header: []string{"X-Event-Id", "mine"},
			value: head + `"2026-01-02T03:04:05.000000000Z","client_event_id":"mine","payload":{"a":1}}`},
		{name: "x-event-id as in the body", body: with("client_event_id", `"mine"`), header: []string{"X-Event-Id", "mine"},
			value: head + `"2026-01-02T03:04:05.000000000Z","client_event_id":"mine","payload":{"a":1}}`},
		{name: "exactly 1 MiB", body: good + strings.Repeat(" ", 1<<20-len(good))},
	}
	type kv struct{ key, value string }
	var want, got []kv
	for _, r := range rows {
		a := e.post(t, "/api/events", []byte(r.body), r.header...)
		require.Equal(t, http.StatusAccepted, a.status, "%s: %s", r.name, a.body)
		if r.key == "" {
			r.key = "app:click:u1:2026-01-02T03:04:05.000000000Z"
		}
		if r.value == "" {
			r.value = head + `"2026-01-02T03:04:05.000000000Z","payload":{"a":1}}`
		}
		want = append(want, kv{r.key, r.value})
	}
	for _, r := range records(t, e.cluster, len(rows)) {
		got = append(got, kv{string(r.Key), string(r.Value)})
	}
	require.ElementsMatch(t, want, got)
}

// TestFullMiB sees that an event of the full size, incompressible, passes the
// client's and the broker's bounds.
func TestFullMiB(t *testing.T) {
	e := startEdge(t, newCluster(t), nil)
	noise := make([]byte, 1<<20-len(with("payload", `{"a":""}`)))
	state := uint32(1)
	for i := range noise {
		state = state*1664525 + 1013904223
		noise[i] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"[state>>26]
	}
	body := with("payload", `{"a":"`+string(noise)+`"}`)
	require.Len(t, body, 1<<20)
	a := e.post(t, "/api/events", []byte(body))
	require.Equal(t, http.StatusAccepted, a.status, "%s", a.body)
	records(t, e.cluster, 1)
}

// TestRoutes: what is not there, and how it is said.
func TestRoutes(t *testing.T) {
	e := startEdge(t, newCluster(t), nil)
	for _, path := range []string{"/", "/api/event", "/api/events/", "/api/events/batch/", "/API/events", "//api/events"} {
		a := e.post(t, path, []byte(good))
		require.Equal(t, http.StatusNotFound, a.status, path)
		require.Equal(t, problem.TypePrefix+"not-found", a.problem(t).Type)
	}
	for _, method := range []string{"GET", "PUT", "DELETE", "OPTIONS", "PATCH"} {
		req, err := http.NewRequest(method, e.url+"/api/events", nil)
		require.NoError(t, err)
		resp, err := e.client.Do(req)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, http.StatusMethodNotAllowed, resp.StatusCode, method)
		require.Equal(t, "POST", resp.Header.Get("Allow"))
		require.Equal(t, problem.ContentType, resp.Header.Get("Content-Type"))
	}
	for _, base := range []string{e.url, e.admin} {
		status, body := e.get(t, base+"/healthz")
		require.Equal(t, "200 alive\n", fmt.Sprint(status, " ", body))
		status, body = e.get(t, base+"/readyz")
		require.Equal(t, "200 ready\n", fmt.Sprint(status, " ", body))
	}
	resp, err := e.client.Head(e.url + "/healthz")
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
}
