package cloudevents

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/schemas/event"
)

func newDecoder() *Decoder { return NewDecoder(event.NewDecoder(event.DefaultLimits())) }

const (
	head = `{"specversion":"1.0","id":"i","source":"s","type":"t","subject":"u","time":"2026-01-02T03:04:05Z"`
	full = head + `,"data":{"a":1}}`
)

var now = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)

func TestStructured(t *testing.T) {
	base := event.Event{Source: "s", EventType: "t", ActorID: "u", ClientEventID: "i", OccurredAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Payload: []byte(`{"a":1}`)}
	for body, along := range map[string][]Attribute{
		full:                                nil,
		`{"data":{"a":1},` + head[1:] + `}`: nil,
		head + `,"datacontenttype":"application/vnd.x+json; charset=utf-8","data":{"a":1}}`:                nil,
		head + `,"datacontenttype":null,"dataschema":null,"data_base64":null,"other":null,"data":{"a":1}}`: nil,
		head + `,"data_base64":"` + base64.StdEncoding.EncodeToString([]byte(`{"a":1}`)) + `"}`:            nil,
		head + `,"dataschema":"urn:x","n":-7,"b":true,"traceparent":"x","data":{"a":1}}`: {
			{"dataschema", "urn:x"}, {"n", "-7"}, {"b", "true"}, {"traceparent", "x"},
		},
	} {
		e, extra, faults := newDecoder().Structured([]byte(body), now)
		require.Empty(t, faults, body)
		require.Equal(t, base, e, body)
		require.Equal(t, along, slices.Clone(extra), body)
	}
	e, _, faults := newDecoder().Structured([]byte(head+"}"), now)
	require.Empty(t, faults)
	require.Equal(t, "{}", string(e.Payload))
}

// TestStructuredFaults: each says which attribute is wrong.
func TestStructuredFaults(t *testing.T) {
	drop := func(member string) string { return strings.Replace(full, member, "", 1) }
	b64 := func(s string) string {
		return head + `,"data_base64":"` + base64.StdEncoding.EncodeToString([]byte(s)) + `"}`
	}
	for _, row := range []struct{ body, pointer, says string }{
		{drop(`"specversion":"1.0",`), "/specversion", "is missing"},
		{strings.Replace(full, `"1.0"`, `"0.3"`, 1), "/specversion", "not a version"},
		{strings.Replace(full, `"1.0"`, `1.0`, 1), "/specversion", "not a version"},
		{strings.Replace(full, `"1.0"`, `null`, 1), "/specversion", "is missing"},
		{drop(`"id":"i",`), "/id", "is missing"},
		{strings.Replace(full, `"id":"i"`, `"id":""`, 1), "/id", "is empty"},
		{strings.Replace(full, `"id":"i"`, `"id":7`, 1), "/id", "is a number"},
		{drop(`"source":"s",`), "/source", "is missing"},
		{drop(`"type":"t",`), "/type", "is missing"},
		{drop(`"subject":"u",`), "/subject", "leaves it open"},
		{drop(`,"time":"2026-01-02T03:04:05Z"`), "/time", "leaves it open"},
		{strings.Replace(full, "2026-01-02T", "2026-02-30T", 1), "/time", "no date that exists"},
		{strings.Replace(full, "2026-01-02T", "2027-01-02T", 1), "/time", "in the future"},
		{strings.Replace(full, `"u"`, `"u\u0000"`, 1), "/subject", "NUL"},
		{strings.Replace(full, `"t"`, `"`+strings.Repeat("t", 513)+`"`, 1), "/type", "513 bytes"},
		{head + `,"data":[]}`, "/data", "is an array"},
		{head + `,"data":null}`, "/data", "is null"},
		{head + `,"data":{"x":1,"x":2}}`, "/data/x", "repeated name"},
		{head + `,"data":` + strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200) + "}", "", "nested too deeply"},
		{head + `,"data":{},"data_base64":"e30="}`, "/data_base64", "stands beside data"},
		{head + `,"data_base64":7}`, "/data_base64", "is not a string"},
		{head + `,"data_base64":"e30"}`, "/data_base64", "is not base64"},
		{head + `,"data_base64":"e3\n0="}`, "/data_base64", "is not base64"},
		{b64(`[]`), "/data_base64", "not hold an object"},
		{b64(`{"a":1,"a":1}`), "/data_base64", "not hold I-JSON"},
		{b64(`{},"client_event_id":"forged"`), "/data_base64", "not hold I-JSON"},
		{head + `,"datacontenttype":"text/xml","data":{}}`, "/datacontenttype", "is not JSON"},
		{head + `,"datacontenttype":7,"data":{}}`, "/datacontenttype", "is not JSON"},
		{head + `,"event_type":"x","data":{}}`, "/event_type", "not the name of an attribute"},
		{head + `,"a/b~c":"x"}`, "/a~1b~0c", "not the name of an attribute"},
		{head + `,"Source":"x"}`, "/Source", "not the name of an attribute"},
		{head + `,"":"x"}`, "/", "not the name of an attribute"},
		{head + `,"x":{}}`, "/x", "of no type"},
		{head + `,"x":1.5}`, "/x", "of no type"},
		{head + `,"x":4294967296}`, "/x", "of no type"},
		{head + `,"x":"` + strings.Repeat("x", 1025) + `"}`, "/x", "1025 bytes"},
		{head + `,"x":"\u0000"}`, "/x", "NUL"},
		{full[:len(full)-1], "", "ends too early"},
		{full + full, "", "more than one JSON value"},
		{"", "", "is empty"}, {"[]", "", "is an array"}, {"null", "", "is null"}, {"\xef\xbb\xbf" + full, "", "byte order mark"},
		{head + `,"source":"again"}`, "/source", "repeated name"},
		{head + `,"sourc\u0065":"again"}`, "/source", "repeated name"},
		{head + `,"x":"\ud800"}`, "/x", "surrogate"},
	} {
		_, extra, faults := newDecoder().Structured([]byte(row.body), now)
		require.NotEmpty(t, faults, row.body)
		require.Nil(t, extra)
		require.Equal(t, row.pointer, faults[0].Pointer, "%.200s: %v", row.body, faults)
		require.Contains(t, faults[0].Detail+faults[0].Allowed, row.says, "%.200s", row.body)
	}
	var many strings.Builder
	for i := range 50 {
		many.WriteString(`,"x` + strings.Repeat("y", i) + `":1`)
	}
	_, _, faults := newDecoder().Structured([]byte(head+many.String()+"}"), now)
	require.Len(t, faults, mostFaults)
	require.Contains(t, faults[0].Detail, "one attribute too many")
}

func header(change ...string) http.Header {
	h := http.Header{}
	all := append([]string{"ce-specversion", "1.0", "ce-id", "i", "ce-source", "s", "ce-type", "t", "ce-subject", "u", "ce-time", "2026-01-02T03:04:05Z"}, change...)
	for i := 0; i < len(all); i += 2 {
		h.Set(all[i], all[i+1])
		if all[i+1] == "" {
			h.Del(all[i])
		}
	}
	return h
}

func TestBinary(t *testing.T) {
	require.False(t, IsBinary(http.Header{"Cecil": {"x"}, "Ce-Time": {"x"}}))
	require.True(t, IsBinary(header()))
	e, extra, faults := newDecoder().Binary(header("ce-subject", "Euro%20%E2%82%AC%20%F0%9F%98%80%25", "ce-source", `"quoted \"a\" %20"`, "ce-b", "1", "ce-a", "x%3d"), []byte(" {\"a\":1}\n"), now)
	require.Empty(t, faults)
	require.Equal(t, "Euro € 😀%", e.ActorID)
	require.Equal(t, `quoted "a"  `, e.Source)
	require.Equal(t, "i", e.ClientEventID)
	require.Equal(t, `{"a":1}`, string(bytes.TrimSpace(e.Payload)))
	require.Equal(t, []Attribute{{"a", "x="}, {"b", "1"}}, extra)
	e, _, faults = newDecoder().Binary(header(), nil, now)
	require.Empty(t, faults)
	require.Equal(t, "{}", string(e.Payload))
}

func TestBinaryFaults(t *testing.T) {
	for _, row := range []struct {
		change              []string
		body, pointer, says string
	}{
		{[]string{"ce-specversion", ""}, "{}", "", "the header ce-specversion is missing"},
		{[]string{"ce-specversion", "1.1"}, "{}", "", "the header ce-specversion is not a version"},
		{[]string{"ce-id", ""}, "{}", "", "the header ce-id is missing"},
		{[]string{"ce-subject", ""}, "{}", "", "the header ce-subject is missing"},
		{[]string{"ce-time", "yesterday"}, "{}", "", "the header ce-time \"yesterday\" is not a date"},
		{[]string{"ce-type", "%"}, "{}", "", "the header ce-type has a %"},
		{[]string{"ce-type", "a%2"}, "{}", "", "the header ce-type has a %"},
		{[]string{"ce-type", "a%zz"}, "{}", "", "the header ce-type has a %"},
		{[]string{"ce-type", "%ff"}, "{}", "", "the header ce-type is not UTF-8"},
		{[]string{"ce-type", "\xff"}, "{}", "", "the header ce-type is not UTF-8"},
		{[]string{"ce-type", "%00"}, "{}", "", "the header ce-type contains NUL"},
		{[]string{"ce-event_type", "x"}, "{}", "", "the header ce-event_type is not the name"},
		{[]string{"ce-datacontenttype", "application/json"}, "{}", "", "the header ce-datacontenttype is not an attribute"},
		{[]string{"ce-x", "%00"}, "{}", "", "the header ce-x contains NUL"},
		{nil, "[]", "", "is an array"},
		{nil, "{", "", "ends too early"},
		{nil, `{"a":1,"a":2}`, "/a", "repeated name"},
		{nil, `{"a":{"b":"\ud800"}}`, "/a/b", "surrogate"},
		{nil, `{},"client_event_id":"forged"`, "", "not valid JSON"},
		{nil, `{}{}`, "", "JSON"},
		{nil, strings.Repeat(`{"a":`, 127) + "{}" + strings.Repeat("}", 127), "", "nested too deeply"},
	} {
		_, _, faults := newDecoder().Binary(header(row.change...), []byte(row.body), now)
		require.NotEmpty(t, faults, row)
		require.Equal(t, row.pointer, faults[0].Pointer, "%v: %v", row, faults)
		require.Contains(t, faults[0].Detail, row.says, "%v", row)
	}
	h := header()
	h["Ce-Type"] = []string{"a", "b"}
	_, _, faults := newDecoder().Binary(h, []byte("{}"), now)
	require.Contains(t, faults[0].Detail, "the header ce-type is there more than once")
}

// FuzzData: whatever the data are, and however they come, the event is what an
// event of ours with that payload is, and what is refused there is refused here.
func FuzzData(f *testing.F) {
	for _, seed := range []string{`{"a":1}`, "", "[]", `{"a":1,"a":2}`, `{},"client_event_id":"x"`, `{}}`, "null", "{\"\xff\":1}", `{"a":"\ud800"}`, " {} ", `{} {}`, `{"data":1}`, `"x`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		plain := event.NewDecoder(event.DefaultLimits())
		text := append([]byte(`{"source":"s","event_type":"t","actor_id":"u","occurred_at":"2026-01-02T03:04:05Z","client_event_id":"i","payload":`), data...)
		want, refused := plain.Decode(append(text, '}'), now)
		// What closes the event itself and goes on is no payload.
		alone, _ := event.NewDecoder(event.DefaultLimits()).Decode(append(append([]byte(`{"source":"s","event_type":"t","actor_id":"u","occurred_at":"2026-01-02T03:04:05Z","payload":`), data...), '}'), now)
		for form, read := range map[string]func(*Decoder) (event.Event, []Attribute, []event.Fault){
			"structured": func(d *Decoder) (event.Event, []Attribute, []event.Fault) {
				return d.Structured([]byte(head+`,"data":`+string(data)+"}"), now)
			},
			"base64": func(d *Decoder) (event.Event, []Attribute, []event.Fault) {
				return d.Structured([]byte(head+`,"data_base64":"`+base64.StdEncoding.EncodeToString(data)+`"}`), now)
			},
			"binary": func(d *Decoder) (event.Event, []Attribute, []event.Fault) { return d.Binary(header(), data, now) },
		} {
			d := newDecoder()
			d.text = []byte("rest of the last one")
			got, _, faults := read(d)
			require.NotEqual(t, faults == nil, got.Source == "", "an event or faults")
			if faults != nil || form == "binary" && len(bytes.TrimLeft(data, " \t\r\n")) == 0 {
				continue
			}
			require.Equal(t, "i", got.ClientEventID, "data became a member")
			if form != "structured" || alone.Source != "" && alone.ClientEventID == "" {
				require.Empty(t, refused, form)
				require.Equal(t, bytes.TrimSpace(want.Payload), bytes.TrimSpace(got.Payload), form)
			}
		}
	})
}

// FuzzStructured: any text is an event, or faults, and never a panic.
func FuzzStructured(f *testing.F) {
	for _, seed := range []string{full, head + `,"data_base64":"e30="}`, head + `,"x":1,"y":true}`, "[]", `{"specversion":null}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		e, extra, faults := newDecoder().Structured(body, now)
		require.Equal(t, faults == nil, e.Source != "")
		require.LessOrEqual(t, len(extra), MostExtra)
		if faults == nil {
			_, again := event.NewDecoder(event.DefaultLimits()).Decode(e.AppendJSON(nil), now)
			require.Empty(t, again, "the log would hold what the consumer refuses")
		}
	})
}
