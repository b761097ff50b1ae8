package main

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	judging "github.com/pb33f/libopenapi-validator/config"
	"github.com/pb33f/libopenapi-validator/content"
	"github.com/pb33f/libopenapi/datamodel"
	"github.com/stretchr/testify/require"

	"sluice/ingest/internal/problem"
	"sluice/schemas"
)

// judged is the OpenAPI document as libopenapi-validator reads it: it knows
// OpenAPI 3.1, whose schemas are JSON Schema 2020-12 (kin-openapi was made for
// 3.0), and it looks at status, media type, headers and body of an answer.
var judged = sync.OnceValues(func() (validator.Validator, error) {
	doc, err := libopenapi.NewDocumentWithConfiguration(schemas.OpenAPI, &datamodel.DocumentConfiguration{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	v, errs := validator.NewValidator(doc, judging.WithFormatAssertions(),
		judging.WithBodyDecoder("application/x-ndjson", content.DecoderFunc(asText)))
	if len(errs) > 0 {
		return nil, errs[0]
	}
	return v, nil
})

// asText reads a body as one text, as the document describes NDJSON.
func asText(in *content.DecodeInput) (any, error) {
	body, err := io.ReadAll(in.Body)
	return string(body), err
}

// transportHeaders are HTTP's own and those of every answer, which the document
// does not list.
var transportHeaders = []string{"Content-Type", "Content-Length", "Date", "Connection", "Transfer-Encoding", "Vary"}

// judge compares every answer that a test's client gets with the OpenAPI
// document: the edge may give none that stands not there.
type judge struct {
	t    testing.TB
	next http.RoundTripper
}

// largestJudged bounds the bodies that are looked at: schemas are slow on more.
const largestJudged = 64 << 10

func (j judge) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := j.next.RoundTrip(req)
	if err != nil || !strings.HasPrefix(req.URL.Path, "/api/") && req.URL.Path != "/health" {
		return resp, err
	}
	body, broke := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if broke != nil {
		resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body), broken{broke}))
		return resp, nil //nolint:nilerr // who reads the body meets it
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	if len(body) < largestJudged {
		for _, fault := range disagreements(j.t, req, resp, body) {
			j.t.Errorf("%s %s: %s\n%s\n%s", req.Method, req.URL.Path, resp.Status, fault, body)
		}
	}
	return resp, nil
}

func (j judge) CloseIdleConnections() {
	if c, ok := j.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// broken is the end of a body that could not be read.
type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }

// disagreements are what the document does not say of this answer.
func disagreements(t testing.TB, req *http.Request, resp *http.Response, body []byte) (faults []string) {
	t.Helper()
	if resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusMethodNotAllowed {
		// Answers to what the document has no operation for.
		conform(t, "Problem", body)
		if resp.StatusCode == http.StatusMethodNotAllowed && resp.Header.Get("Allow") == "" {
			faults = append(faults, "no Allow header")
		}
		return faults
	}
	doc, err := contract()
	require.NoError(t, err)
	op := at(t, doc, "paths", req.URL.Path, strings.ToLower(req.Method), "responses")
	answer, ok := op[statusText(resp.StatusCode)].(map[string]any)
	if !ok {
		return []string{"the document has no such status"}
	}
	declared, _ := answer["headers"].(map[string]any)
	for name := range resp.Header {
		known := false
		for _, h := range transportHeaders {
			known = known || strings.EqualFold(h, name)
		}
		for h := range declared {
			known = known || strings.EqualFold(h, name)
		}
		if !known {
			faults = append(faults, "the document has no header "+name)
		}
	}
	v, err := judged()
	require.NoError(t, err)
	copied := *resp
	copied.Body = io.NopCloser(bytes.NewReader(body))
	if valid, errs := v.ValidateHttpResponse(&http.Request{Method: req.Method, URL: &url.URL{Path: req.URL.Path}, Header: http.Header{}}, &copied); !valid {
		for _, e := range errs {
			faults = append(faults, e.Error())
		}
	}
	return faults
}

func statusText(code int) string {
	return string([]byte{'0' + byte(code/100), '0' + byte(code/10%10), '0' + byte(code%10)})
}

// TestOpenAPIDocument: the document is one, by the schema of OpenAPI itself.
func TestOpenAPIDocument(t *testing.T) {
	v, err := judged()
	require.NoError(t, err)
	valid, errs := v.ValidateDocument()
	require.True(t, valid, "%v", errs)
}

// TestJudge: what the judge is there for, it does.
func TestJudge(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		header map[string]string
		body   string
		want   string
	}{
		"as it should be": {202, nil, `{"accepted":true,"event_id":"0515e8cf-37b8-84ef-9ead-e2ca0bcdd0dd","status":"queued"}`, ""},
		"a status":        {201, nil, `{}`, "no such status"},
		"a media type":    {202, map[string]string{"Content-Type": "text/plain"}, `ok`, "text/plain"},
		"a header":        {202, map[string]string{"X-Secret": "1"}, `{"accepted":true,"event_id":"0515e8cf-37b8-84ef-9ead-e2ca0bcdd0dd","status":"queued"}`, "X-Secret"},
		"a header's form": {503, map[string]string{"Content-Type": problem.ContentType, "Retry-After": "soon"}, `{"type":"urn:sluice:problem:overloaded","title":"a","status":503,"retryable":true}`, "etry-"},
		"a member":        {202, nil, `{"accepted":true,"event_id":"0515e8cf-37b8-84ef-9ead-e2ca0bcdd0dd","status":"queued","more":1}`, "more"},
		"a value":         {202, nil, `{"accepted":false,"event_id":"0515e8cf-37b8-84ef-9ead-e2ca0bcdd0dd","status":"queued"}`, "accepted"},
		"a format":        {202, nil, `{"accepted":true,"event_id":"17","status":"queued"}`, "uuid"},
	} {
		t.Run(name, func(t *testing.T) {
			resp := &http.Response{StatusCode: c.status, Header: http.Header{"Content-Type": {"application/json"}}}
			for k, v := range c.header {
				resp.Header.Set(k, v)
			}
			req := &http.Request{Method: http.MethodPost, URL: &url.URL{Path: "/api/events"}}
			faults := disagreements(t, req, resp, []byte(c.body))
			if c.want == "" {
				require.Empty(t, faults)
				return
			}
			require.Contains(t, strings.Join(faults, "\n"), c.want)
		})
	}
}

// TestContractExamples drives a running edge with every request that the
// document shows. An example says with x-headers what headers it is sent with,
// and with x-status what it is answered with, 202 if it does not say; each
// request must be one that the document describes, and each answer is judged.
func TestContractExamples(t *testing.T) {
	doc, err := contract()
	require.NoError(t, err)
	v, err := judged()
	require.NoError(t, err)
	e := startEdge(t, newCluster(t), nil)
	sent := 0
	for path, item := range at(t, doc, "paths") {
		for method, op := range item.(map[string]any) {
			if method == "get" {
				status, body := e.get(t, e.url+path)
				require.Equal(t, http.StatusOK, status, "%s: %s", path, body)
				sent++
				continue
			}
			for media, shown := range at(t, op.(map[string]any), "requestBody", "content") {
				examples, _ := shown.(map[string]any)["examples"].(map[string]any)
				require.NotEmpty(t, examples, "%s %s has no example", path, media)
				for name, example := range examples {
					example := example.(map[string]any)
					body := exampleBody(t, example["value"])
					headers := []string{"Content-Type", media}
					given, _ := example["x-headers"].(map[string]any)
					for h, value := range given {
						headers = append(headers, h, value.(string))
					}
					want := http.StatusAccepted
					if s, ok := example["x-status"].(json.Number); ok {
						n, err := s.Int64()
						require.NoError(t, err)
						want = int(n)
					}
					req, err := http.NewRequest(strings.ToUpper(method), e.url+path, bytes.NewReader(body))
					require.NoError(t, err)
					for i := 0; i < len(headers); i += 2 {
						req.Header.Set(headers[i], headers[i+1])
					}
					if want < 400 {
						valid, errs := v.ValidateHttpRequest(req)
						require.True(t, valid, "%s %s %s: %v", path, media, name, errs)
					}
					a := e.post(t, path, body, headers...)
					require.Equal(t, want, a.status, "%s %s %s: %s", path, media, name, a.body)
					sent++
				}
			}
		}
	}
	require.GreaterOrEqual(t, sent, 8)
}

// exampleBody is an example's value as it is sent: a text as it is, anything
// else as JSON.
func exampleBody(t *testing.T, value any) []byte {
	t.Helper()
	if text, ok := value.(string); ok {
		return []byte(text)
	}
	body, err := json.Marshal(value)
	require.NoError(t, err)
	return body
}

// TestContractProblems provokes the problems that the document shows and a
// client can cause; each is the one meant, and as the document words it.
func TestContractProblems(t *testing.T) {
	e := startEdge(t, newCluster(t), func(c *config) { c.Limits.BatchItems = 2 })
	away := launchEdge(t, []string{"127.0.0.1:1"}, quick)
	for name, provoke := range map[string]func() answer{
		"invalid-event":    func() answer { return e.post(t, "/api/events", []byte(`{}`)) },
		"invalid-batch":    func() answer { return e.post(t, "/api/events/batch", []byte(`{}`)) },
		"invalid-encoding": func() answer { return e.post(t, "/api/events", []byte("no"), "Content-Encoding", "gzip") },
		"not-found":        func() answer { return e.post(t, "/api/event", []byte(good)) },
		"method-not-allowed": func() answer {
			resp, err := e.client.Get(e.url + "/api/events")
			require.NoError(t, err)
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			return answer{resp.StatusCode, resp.Header, body}
		},
		"event-too-large": func() answer { return e.post(t, "/api/events", make([]byte, 1<<20+1)) },
		"body-too-large": func() answer {
			return e.post(t, "/api/events/batch", make([]byte, 64<<20+1), "Expect", "100-continue")
		},
		"too-many-items":         func() answer { return e.post(t, "/api/events/batch", array(numbered(1), numbered(2), numbered(3))) },
		"unsupported-media-type": func() answer { return e.post(t, "/api/events", []byte(good), "Content-Type", "text/csv") },
		"unsupported-encoding":   func() answer { return e.post(t, "/api/events", []byte(good), "Content-Encoding", "br") },
		"log-unavailable":        func() answer { return away.post(t, "/api/events", []byte(good)) },
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, problem.TypePrefix+name, provoke().problem(t).Type)
		})
	}
}
