package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"sluice/ingest/internal/problem"
	"sluice/schemas"
)

// contract is the OpenAPI document as plain values.
var contract = sync.OnceValues(func() (map[string]any, error) {
	var fromYAML any
	if err := yaml.Unmarshal(schemas.OpenAPI, &fromYAML); err != nil {
		return nil, err
	}
	text, err := json.Marshal(fromYAML)
	if err != nil {
		return nil, err
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	return doc.(map[string]any), nil
})

var (
	schemaMu sync.Mutex
	compiled = map[string]*jsonschema.Schema{}
)

// conform fails the test unless body is what the schema of that name in the
// OpenAPI document describes.
func conform(t testing.TB, name string, body []byte) {
	t.Helper()
	schemaMu.Lock()
	defer schemaMu.Unlock()
	s, ok := compiled[name]
	if !ok {
		doc, err := contract()
		require.NoError(t, err)
		c := jsonschema.NewCompiler()
		c.DefaultDraft(jsonschema.Draft2020)
		c.AssertFormat()
		require.NoError(t, c.AddResource("file:///openapi.json", doc))
		s, err = c.Compile("file:///openapi.json#/components/schemas/" + name)
		require.NoError(t, err)
		compiled[name] = s
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	require.NoError(t, err, "%s", body)
	require.NoError(t, s.Validate(value), "%s", body)
}

func at(t testing.TB, doc map[string]any, path ...string) map[string]any {
	t.Helper()
	for _, p := range path {
		next, ok := doc[p].(map[string]any)
		require.True(t, ok, "openapi.yaml has nothing at %s of %v", p, path)
		doc = next
	}
	return doc
}

// TestOpenAPIListsEveryProblem compares the table of problems with the OpenAPI
// document, both ways: the types, an example of each as the edge words it, and
// that each stands under its status in at least one answer.
func TestOpenAPIListsEveryProblem(t *testing.T) {
	doc, err := contract()
	require.NoError(t, err)
	table := map[string]*problem.Kind{}
	var types []any
	for _, k := range problem.Table() {
		require.NotContains(t, table, k.Name)
		table[k.Name] = k
		types = append(types, problem.TypePrefix+k.Name)
	}
	require.ElementsMatch(t, types, at(t, doc, "components", "schemas", "Problem", "properties", "type")["enum"])

	examples := at(t, doc, "components", "examples")
	for name := range examples {
		require.Contains(t, table, name, "an example of a problem that the edge does not have")
	}
	for name, k := range table {
		v := at(t, examples, name, "value")
		require.Equal(t, problem.TypePrefix+name, v["type"])
		require.Equal(t, k.Title, v["title"], name)
		require.Equal(t, strconv.Itoa(k.Status), fmt.Sprint(v["status"]), name)
		require.Equal(t, k.Retryable, v["retryable"], name)
		text, err := json.Marshal(v)
		require.NoError(t, err)
		conform(t, "Problem", text)
	}

	listed := map[string]bool{}
	list := func(where, status string, response map[string]any) {
		content, _ := response["content"].(map[string]any)
		media, _ := content[problem.ContentType].(map[string]any)
		refs, _ := media["examples"].(map[string]any)
		for name := range refs {
			require.Contains(t, table, name, where)
			if status != "" {
				require.Equal(t, status, strconv.Itoa(table[name].Status), "%s under %s", name, where)
			}
			if table[name].RetryAfter > 0 {
				headers, _ := response["headers"].(map[string]any)
				require.Contains(t, headers, "Retry-After", where)
			}
			listed[name] = true
		}
	}
	for path, item := range at(t, doc, "paths") {
		for method, op := range item.(map[string]any) {
			for status, r := range at(t, op.(map[string]any), "responses") {
				list(method+" "+path+" "+status, status, r.(map[string]any))
			}
		}
	}
	for name, r := range at(t, doc, "components", "responses") {
		list("components/responses/"+name, "", r.(map[string]any))
	}
	require.Len(t, listed, len(table), "problems that no answer lists")
}
