package page

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/schemas"
)

// outside finds what a page would fetch from elsewhere: any address with a host.
var outside = regexp.MustCompile(`(?i)(src|href|action|url|import|fetch)\s*[=(:]?\s*["'(]?\s*(https?:)?//[a-z0-9]`)

func get(t *testing.T, h http.Handler, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	require.Equal(t, http.StatusOK, w.Code)
	return w
}

// TestDocuments: the page shows every operation, answer, problem and schema of
// the document, and fetches nothing from elsewhere.
func TestDocuments(t *testing.T) {
	docs, err := Documents(schemas.OpenAPI)
	require.NoError(t, err)
	w := get(t, docs["/openapi.yaml"], "/openapi.yaml")
	require.Equal(t, string(schemas.OpenAPI), w.Body.String())
	require.Equal(t, "application/yaml", w.Header().Get("Content-Type"))

	w = get(t, docs["/docs"], "/docs")
	body := w.Body.String()
	require.Contains(t, w.Header().Get("Content-Security-Policy"), "default-src 'none'")
	require.NotRegexp(t, outside, body)
	for _, want := range []string{
		"/api/events/batch", "postEvent", "207", "urn:sluice:problem:overloaded", "Retry-After",
		"X-Event-Id", "BatchAnswer", "&#34;occurred_at&#34;: &#34;2026-01-02T03:04:05.678Z&#34;", "&#34;price&#34;: 9.90",
	} {
		require.Contains(t, body, want)
	}
	require.NotContains(t, body, "ZgotmplZ", "a value that the template refused")
}

func TestDocumentsRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"no YAML":                 "a: [",
		"empty":                   "",
		"a reference to nothing":  "paths:\n  /a:\n    get:\n      responses: {'200': {$ref: '#/components/responses/None'}}\n",
		"a reference in a circle": "components: {responses: {A: {$ref: '#/components/responses/B'}, B: {$ref: '#/components/responses/A'}}}\npaths: {/a: {get: {responses: {'200': {$ref: '#/components/responses/A'}}}}}\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Documents([]byte(text))
			require.Error(t, err)
		})
	}
}
