package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/ingest/internal/problem"
)

// TestCloudEventsFaults posts CloudEvents with one thing wrong, in each form, to a
// running edge. Every answer is a problem that names the attribute: by a pointer
// into the body in the structured form, by its header in the binary one, whose
// body is the data. The test's client compares each answer with the OpenAPI
// document.
func TestCloudEventsFaults(t *testing.T) {
	e := startEdge(t, newCluster(t), nil)
	const (
		whole = `{"specversion":"1.0","id":"i","source":"app","type":"click","subject":"u1","time":"2026-01-02T03:04:05Z","data":{"a":1}}`
		kind  = "application/cloudevents+json"
		kinds = "application/cloudevents-batch+json"
	)
	swap := func(old, now string) string {
		require.Contains(t, whole, old)
		return strings.Replace(whole, old, now, 1)
	}
	faults := []struct{ name, body, pointer, says string }{
		{"no specversion", swap(`"specversion":"1.0",`, ""), "/specversion", "is missing"},
		{"specversion 0.3", swap("1.0", "0.3"), "/specversion", "not a version"},
		{"specversion a number", swap(`"1.0"`, "1.0"), "/specversion", "not a version"},
		{"no id", swap(`"id":"i",`, ""), "/id", "is missing"},
		{"empty id", swap(`"id":"i"`, `"id":""`), "/id", "is empty"},
		{"no source", swap(`"source":"app",`, ""), "/source", "is missing"},
		{"no type", swap(`"type":"click",`, ""), "/type", "is missing"},
		{"no subject", swap(`"subject":"u1",`, ""), "/subject", "is missing"},
		{"no time", swap(`"time":"2026-01-02T03:04:05Z",`, ""), "/time", "is missing"},
		{"a day that is none", swap("01-02T", "02-30T"), "/time", "no date that exists"},
		{"time without a zone", swap("05Z", "05"), "/time", "has no zone"},
		{"time in the future", swap("2026", "2100"), "/time", "in the future"},
		{"data an array", swap(`{"a":1}`, "[]"), "/data", "is an array"},
		{"a name twice in data", swap(`{"a":1}`, `{"a":1,"a":1}`), "/data/a", "repeated name"},
		{"data_base64 that is not", swap(`"data":{"a":1}`, `"data_base64":"{}"`), "/data_base64", "is not base64"},
		{"data_base64 of no object", swap(`"data":{"a":1}`, `"data_base64":"W10="`), "/data_base64", "not hold an object"},
		{"data twice", swap(`"data"`, `"data_base64":"e30=","data"`), "/data_base64", "stands beside data"},
		{"data of another type", swap(`"data"`, `"datacontenttype":"text/xml","data"`), "/datacontenttype", "is not JSON"},
		{"an attribute twice", swap(`"id"`, `"id":"j","id"`), "/id", "repeated name"},
		{"an extension's name", swap(`"id"`, `"my_ext":"x","id"`), "/my_ext", "not the name of an attribute"},
		{"an extension's type", swap(`"id"`, `"myext":{},"id"`), "/myext", "of no type"},
		{"cut off", whole[:len(whole)-1], "", "ends too early"},
	}
	for _, f := range faults {
		a := e.post(t, "/api/events", []byte(f.body), "Content-Type", kind+"; charset=UTF-8")
		require.Equal(t, http.StatusBadRequest, a.status, "%s: %s", f.name, a.body)
		p := a.problem(t)
		require.Equal(t, problem.TypePrefix+"invalid-event", p.Type, f.name)
		require.Equal(t, f.pointer, p.Error[0].Pointer, "%s: %s", f.name, a.body)
		require.Contains(t, p.Error[0].Detail, f.says, f.name)

		// The same in a batch refuses that one and no other; but what is no JSON
		// ends the batch.
		if f.pointer == "" {
			continue
		}
		a = e.post(t, "/api/events/batch", []byte("["+whole+","+f.body+"]"), "Content-Type", kinds)
		require.Equal(t, http.StatusMultiStatus, a.status, "%s: %s", f.name, a.body)
		b := a.batch(t)
		require.Equal(t, []int{1, 1, 0}, []int{b.Accepted, b.Rejected, b.Failed}, "%s: %s", f.name, a.body)
		require.Equal(t, f.pointer, b.Items[1].Error[0].Pointer, "%s: %s", f.name, a.body)
		require.Contains(t, b.Items[1].Error[0].Detail, f.says, f.name)
	}

	right := map[string][]string{
		"Ce-Specversion": {"1.0"}, "Ce-Id": {"i"}, "Ce-Source": {"app"}, "Ce-Type": {"click"},
		"Ce-Subject": {"u1"}, "Ce-Time": {"2026-01-02T03:04:05Z"},
	}
	binary := func(name string, values ...string) (header []string) {
		for n, v := range right {
			if n != name {
				header = append(header, n, v[0])
			}
		}
		for _, v := range values {
			header = append(header, name, v)
		}
		return header
	}
	for _, f := range []struct {
		name          string
		header        []string
		body, pointer string
		says          string
	}{
		{"no specversion", binary("Ce-Specversion"), "{}", "", "the header ce-specversion is missing"},
		{"specversion 1.1", binary("Ce-Specversion", "1.1"), "{}", "", "the header ce-specversion is not a version"},
		{"no id", binary("Ce-Id"), "{}", "", "the header ce-id is missing"},
		{"no source", binary("Ce-Source"), "{}", "", "the header ce-source is missing"},
		{"no type", binary("Ce-Type"), "{}", "", "the header ce-type is missing"},
		{"time that is none", binary("Ce-Time", "soon"), "{}", "", `the header ce-time "soon" is not a date`},
		{"source twice", binary("Ce-Source", "app", "app"), "{}", "", "the header ce-source is there more than once"},
		{"specversion twice", binary("Ce-Specversion", "1.0", "1.0"), "{}", "", "the header ce-specversion is there more than once"},
		{"an extension twice", binary("Ce-Myext", "1", "2"), "{}", "", "the header ce-myext is there more than once"},
		{"% at the end", binary("Ce-Subject", "u%"), "{}", "", "the header ce-subject has a %"},
		{"% and one digit", binary("Ce-Subject", "u%4"), "{}", "", "the header ce-subject has a %"},
		{"% and no digits", binary("Ce-Subject", "u%zz"), "{}", "", "the header ce-subject has a %"},
		{"% of no UTF-8", binary("Ce-Subject", "u%C3%28"), "{}", "", "the header ce-subject is not UTF-8"},
		{"% in an extension", binary("Ce-Myext", "%"), "{}", "", "the header ce-myext has a %"},
		{"NUL", binary("Ce-Subject", "%00"), "{}", "", "the header ce-subject contains NUL"},
		{"an extension's name", binary("Ce-My-Ext", "x"), "{}", "", "the header ce-my-ext is not the name of an attribute"},
		{"an attribute of the body", binary("Ce-Datacontenttype", "application/json"), "{}", "", "the header ce-datacontenttype is not an attribute of the binary form"},
		{"data an array", binary(""), "[]", "", "is an array"},
		{"a name twice in the data", binary(""), `{"a":{"b":1,"b":1}}`, "/a/b", "repeated name"},
		{"data cut off", binary(""), "{", "", "ends too early"},
	} {
		a := e.post(t, "/api/events", []byte(f.body), f.header...)
		require.Equal(t, http.StatusBadRequest, a.status, "%s: %s", f.name, a.body)
		p := a.problem(t)
		require.Equal(t, problem.TypePrefix+"invalid-event", p.Type, f.name)
		require.Equal(t, f.pointer, p.Error[0].Pointer, "%s: %s", f.name, a.body)
		require.Contains(t, p.Error[0].Detail, f.says, f.name)
	}

	// What the media type itself decides, before anything is read.
	for _, media := range []string{kind + "; charset=ISO-8859-1", kind + "; charset", kinds, "application/cloudevents+xml"} {
		a := e.post(t, "/api/events", []byte(whole), "Content-Type", media)
		require.Equal(t, http.StatusUnsupportedMediaType, a.status, "%s: %s", media, a.body)
		a.problem(t)
	}
	a := e.post(t, "/api/events", []byte("<a/>"), append(binary(""), "Content-Type", "text/xml")...)
	require.Equal(t, http.StatusUnsupportedMediaType, a.status, "data that is not JSON: %s", a.body)
	a = e.post(t, "/api/events/batch", []byte(whole), "Content-Type", kinds)
	require.Equal(t, http.StatusBadRequest, a.status, "one event is no batch: %s", a.body)
	a.problem(t)

	// Extensions that nobody knows go along; data may be left out.
	a = e.post(t, "/api/events", []byte(swap(`"id"`, `"unheardof":"x","id"`)), "Content-Type", kind+`; charset="utf-8"`)
	require.Equal(t, http.StatusAccepted, a.status, "%s", a.body)
	a = e.post(t, "/api/events", []byte("{}"), append(binary("Ce-Unheardof", "x"), "Content-Type", "application/json; charset=utf-8")...)
	require.Equal(t, http.StatusAccepted, a.status, "%s", a.body)
}
