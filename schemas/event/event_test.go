package event_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"sluice/schemas/event"
)

var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

const (
	head = `{"source":"s","event_type":"t","actor_id":"u","occurred_at":"2026-01-02T03:04:05Z"`
	tail = `}`
)

func TestDecode(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	rows := []struct {
		name, body string
		want       event.Event
	}{
		{"least", head + tail, event.Event{Source: "s", EventType: "t", ActorID: "u", OccurredAt: at, Payload: []byte("{}")}},
		{"all", head + `,"client_event_id":"c","payload":{"a" : 1.0}` + tail,
			event.Event{Source: "s", EventType: "t", ActorID: "u", OccurredAt: at, ClientEventID: "c", Payload: []byte(`{"a" : 1.0}`)}},
		{"escapes", `{"so\u0075rce":"\u0041\ud83c\udf0a\/","event_type":"\"","actor_id":"\\","occurred_at":"2026-01-02T03:04:05\u005a"}`,
			event.Event{Source: "A🌊/", EventType: `"`, ActorID: `\`, OccurredAt: at, Payload: []byte("{}")}},
		{"512 bytes", strings.Replace(head, `"s"`, `"`+strings.Repeat("é", 256)+`"`, 1) + tail,
			event.Event{Source: strings.Repeat("é", 256), EventType: "t", ActorID: "u", OccurredAt: at, Payload: []byte("{}")}},
		{"128 levels", head + `,"payload":` + strings.Repeat(`{"a":`, 126) + "{}" + strings.Repeat("}", 126) + tail,
			event.Event{Source: "s", EventType: "t", ActorID: "u", OccurredAt: at, Payload: []byte(strings.Repeat(`{"a":`, 126) + "{}" + strings.Repeat("}", 126))}},
		{"five minutes ahead", strings.Replace(head, "2026-01-02T03:04:05Z", "2026-06-01T12:05:00Z", 1) + tail,
			event.Event{Source: "s", EventType: "t", ActorID: "u", OccurredAt: now.Add(5 * time.Minute), Payload: []byte("{}")}},
		{"the earliest", strings.Replace(head, "2026-01-02T03:04:05Z", "1900-01-01T00:00:00Z", 1) + tail,
			event.Event{Source: "s", EventType: "t", ActorID: "u", OccurredAt: event.Earliest, Payload: []byte("{}")}},
		{"40 names in an object", head + `,"payload":` + names(40) + tail,
			event.Event{Source: "s", EventType: "t", ActorID: "u", OccurredAt: at, Payload: []byte(names(40))}},
	}
	d := event.NewDecoder(event.DefaultLimits())
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			got, faults := d.Decode([]byte(r.body), now)
			require.Empty(t, faults)
			require.Empty(t, cmp.Diff(r.want, got))
		})
	}
}

func names(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"n%d":%d`, i, i)
	}
	return "{" + b.String()[1:] + "}"
}

// TestFaults: of each kind, where it is and in which order they come.
func TestFaults(t *testing.T) {
	type fault struct {
		Kind    event.FaultKind
		Pointer string
	}
	rows := []struct {
		name, body string
		want       []fault
	}{
		{"empty", "", []fault{{event.FaultMalformed, ""}}},
		{"array", "[]", []fault{{event.FaultType, ""}}},
		{"everything missing", "{}", []fault{{event.FaultMissing, "/source"}, {event.FaultMissing, "/event_type"}, {event.FaultMissing, "/actor_id"}, {event.FaultMissing, "/occurred_at"}}},
		{"several", `{"source":"","event_type":7,"Actor_ID":"u","actor_id":"a\u0000","occurred_at":"yesterday","payload":"x"}`, []fault{
			{event.FaultLength, "/source"}, {event.FaultType, "/event_type"}, {event.FaultUnknown, "/Actor_ID"}, {event.FaultCharacter, "/actor_id"}, {event.FaultTime, "/occurred_at"}, {event.FaultType, "/payload"}}},
		{"repeated", head + `,"source":"x"}`, []fault{{event.FaultRepeatedName, "/source"}}},
		{"repeated among 40", head + `,"payload":` + strings.Replace(names(40), `"n39"`, `"n0"`, 1) + tail, []fault{{event.FaultRepeatedName, "/payload/n0"}}},
		{"129 levels", head + `,"payload":` + strings.Repeat(`{"a":`, 127) + "{}" + strings.Repeat("}", 127) + tail, []fault{{event.FaultTooDeep, ""}}},
		{"513 bytes", strings.Replace(head, `"s"`, `"`+strings.Repeat("x", 513)+`"`, 1) + tail, []fault{{event.FaultLength, "/source"}}},
		{"too far ahead", strings.Replace(head, "2026-01-02T03:04:05Z", "2026-06-01T12:05:00.000000001Z", 1) + tail, []fault{{event.FaultTimeRange, "/occurred_at"}}},
		{"too early to store", strings.Replace(head, "2026-01-02T03:04:05Z", "1899-12-31T23:59:59.999999999Z", 1) + tail, []fault{{event.FaultTimeRange, "/occurred_at"}}},
		{"a million unknown members", "{" + strings.Repeat(`"`, 1) + `x0":0` + unknown(1000) + "}", nil},
	}
	d := event.NewDecoder(event.DefaultLimits())
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			e, faults := d.Decode([]byte(r.body), now)
			require.Empty(t, e)
			if r.want == nil {
				require.NotEmpty(t, faults)
				require.LessOrEqual(t, len(faults), 30)
				return
			}
			var got []fault
			for _, f := range faults {
				got = append(got, fault{f.Kind, f.Pointer})
			}
			require.Equal(t, r.want, got)
		})
	}
}

func unknown(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"y%d":0`, i)
	}
	return b.String()
}

// TestUncheckedTime: the zero time leaves age and skew to the edge; a record of
// the log is never refused by the consumer's clock.
func TestUncheckedTime(t *testing.T) {
	limits := event.DefaultLimits()
	limits.MaxAge = time.Hour
	d := event.NewDecoder(limits)
	for _, at := range []string{"2200-01-01T00:00:00Z", "1901-01-01T00:00:00Z"} {
		body := []byte(strings.Replace(head, "2026-01-02T03:04:05Z", at, 1) + tail)
		_, faults := d.Decode(body, now)
		require.Len(t, faults, 1)
		_, faults = d.Decode(body, time.Time{})
		require.Empty(t, faults)
	}
}

// TestDecoderForgets: nothing of a body shows up in what is made of a later one.
func TestDecoderForgets(t *testing.T) {
	d := event.NewDecoder(event.DefaultLimits())
	first := []byte(head + `,"client_event_id":"c","payload":{"a":1}` + tail)
	e, faults := d.Decode(first, now)
	require.Empty(t, faults)
	for i := range first {
		first[i] = 'x'
	}
	require.Equal(t, "s:t:u:2026-01-02T03:04:05.000000000Z", e.Key(), "strings must not alias the body")
	_, faults = d.Decode([]byte("{"), now)
	require.NotEmpty(t, faults)
	again, faults := d.Decode([]byte(head+tail), now)
	require.Empty(t, faults)
	require.Empty(t, again.ClientEventID)
	require.Equal(t, "{}", string(again.Payload))
}

// TestKey pins the key and the id: both stand in logs and databases for good.
func TestKey(t *testing.T) {
	at := time.Date(2026, 1, 2, 4, 4, 5, 0, time.FixedZone("", 3600))
	e := event.Event{Source: "a:b", EventType: "t", ActorID: "u", OccurredAt: at}
	require.Equal(t, "a%3Ab:t:u:2026-01-02T03:04:05.000000000Z", e.Key())
	require.Equal(t, "0515e8cf-37b8-84ef-9ead-e2ca0bcdd0dd", e.ID().String())
	require.Equal(t, uuid.Version(8), e.ID().Version())
	require.Equal(t, uuid.RFC4122, e.ID().Variant())
}

var part = rapid.OneOf(
	rapid.StringOfN(rapid.RuneFrom([]rune(":%235Aa")), 1, 6, -1), // what escaping could confuse
	rapid.StringN(1, 20, 60),
)

var instant = rapid.Custom(func(t *rapid.T) time.Time {
	from, to := event.Earliest.Unix(), event.Latest.Unix()
	return time.Unix(rapid.Int64Range(from, to).Draw(t, "second"), rapid.Int64Range(0, 999_999_999).Draw(t, "nanosecond")).UTC()
})

// TestKeyIsInjective: two events have the same key exactly when they have the
// same tuple, and a key parses back to it.
func TestKeyIsInjective(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(n string) event.Event {
			return event.Event{
				Source: part.Draw(t, "source"+n), EventType: part.Draw(t, "type"+n), ActorID: part.Draw(t, "actor"+n),
				OccurredAt: rapid.SampledFrom([]time.Time{now, now.Add(1)}).Draw(t, "at"+n),
			}
		}
		a, b := draw("A"), draw("B")
		require.Equal(t, cmp.Equal(a, b), a.Key() == b.Key(), "%q %q", a.Key(), b.Key())
		require.Equal(t, cmp.Equal(a, b), a.ID() == b.ID())
		source, eventType, actorID, at, err := event.ParseKey(a.Key())
		require.NoError(t, err)
		require.Empty(t, cmp.Diff(a, event.Event{Source: source, EventType: eventType, ActorID: actorID, OccurredAt: at}, cmpopts.EquateEmpty()))
	})
}

// TestAppendTime: the hand-written form is the standard library's.
func TestAppendTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := instant.Draw(t, "at")
		require.Equal(t, at.Format("2006-01-02T15:04:05.000000000Z"), string(event.AppendTime([]byte("x"), at)[1:]))
	})
	far := time.Date(12026, 1, 2, 3, 4, 5, 6, time.UTC)
	require.Equal(t, far.Format("2006-01-02T15:04:05.000000000Z"), string(event.AppendTime(nil, far)))
}

// TestPartition: Java's values, from org.apache.kafka.common.utils.UtilsTest.
// Every date that exists is read as itself, and none that does not is read.
func TestDates(t *testing.T) {
	for at := time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC); at.Year() < 10_000; at = at.AddDate(0, 0, 1) {
		text := string(event.AppendTime(nil, at))
		got, msg := event.ParseTime(text)
		if msg != "" || got != at {
			t.Fatalf("%s is read as %s %s", text, got, msg)
		}
		if at.AddDate(0, 0, 1).Day() != 1 || at.Year()%100 > 4 {
			continue
		}
		for day := at.Day() + 1; day < 100; day++ {
			text := fmt.Sprintf("%s%02d%s", text[:8], day, text[10:])
			if got, msg := event.ParseTime(text); msg == "" {
				t.Fatalf("%s is read as %s", text, got)
			}
		}
	}
	for _, text := range []string{"2026-00-01T00:00:00Z", "2026-13-01T00:00:00Z", "2026-99-01T00:00:00Z", "2026-01-00T00:00:00Z"} {
		_, msg := event.ParseTime(text)
		require.NotEmpty(t, msg, text)
	}
	for text, say := range map[string]string{"2026-01-01t00:00:00Z": "write T", "2026-01-01T00:00:00z": "write Z", "2026-01-01T00:00:00.5z": "write Z"} {
		_, msg := event.ParseTime(text)
		require.Contains(t, msg, say, text)
	}
}

func TestPartition(t *testing.T) {
	for key, hash := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		require.Equal(t, hash&0x7fffffff%1000, event.Partition([]byte(key), 1000), key)
	}
}

// TestPayloadHash: which payloads are equal.
func TestPayloadHash(t *testing.T) {
	same := [][]string{
		{`{"a":1,"b":[true,null]}`, `{"b":[true,null],"a":1}`, " {\n\"a\" : 1 ,\t\"b\" : [ true , null ] } ", `{"\u0061":1,"b":[true,null]}`},
		{`{"a":1.0}`},
		{`{"a":1}`},
		{`{"a":1e0}`},
		{`{"a":"é/\n"}`, `{"a":"\u00e9\/\u000A"}`},
		{`{"a":{"y":1,"x":2},"b":{"d":[{"q":1,"p":2}],"c":3}}`, `{"b":{"c":3,"d":[{"p":2,"q":1}]},"a":{"x":2,"y":1}}`},
		{`{"é":1,"e":2,"😀":3,"\uffff":4}`, `{"😀":3,"\uffff":4,"e":2,"é":1}`},
		{`{"b":[1,2]}`}, {`{"b":[2,1]}`}, {`{}`, ` { } `}, {`{"a":{}}`}, {`{"a":[]}`}, {`{"a":""}`}, {`{"a":null}`},
	}
	seen := map[event.Hash]string{}
	for _, group := range same {
		want := event.PayloadHash([]byte(group[0]))
		for _, p := range group {
			require.Equal(t, want, event.PayloadHash([]byte(p)), p)
		}
		require.NotContains(t, seen, want, "%s and %s", group[0], seen[want])
		seen[want] = group[0]
	}
}

func TestNearest(t *testing.T) {
	known := []string{"source", "event_type", "actor_id", "occurred_at"}
	for name, want := range map[string]string{
		"Source": "source", "sourc": "source", "eventtype": "event_type", "eventType": "event_type", "actor": "", "actorid": "actor_id",
		"zzz": "", "": "", strings.Repeat("source", 100): "",
	} {
		require.Equal(t, want, event.Nearest(name, known), name)
	}
}

// A namer says of every event what the event says itself, whatever it named before.
func TestNamer(t *testing.T) {
	var names event.Namer
	rapid.Check(t, func(t *rapid.T) {
		field := rapid.StringMatching(`[a-c%:\x{e9}]{1,300}`)
		e := event.Event{
			Source: field.Draw(t, "source"), EventType: field.Draw(t, "type"), ActorID: field.Draw(t, "actor"),
			OccurredAt: time.Unix(rapid.Int64Range(-2e9, 9e9).Draw(t, "s"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns")).UTC(),
		}
		id, key := names.Name(&e)
		require.Equal(t, e.Key(), string(key))
		require.Equal(t, e.ID(), id)
		require.Equal(t, event.IDOf(key), id)
		_, _, actor, at, err := event.ParseKey(string(key))
		require.NoError(t, err)
		require.Equal(t, e.ActorID, actor)
		require.True(t, e.OccurredAt.Equal(at))
		require.Equal(t, e.OccurredAt.Format("2006-01-02T15:04:05.000000000Z"), string(event.AppendTime(nil, e.OccurredAt)))
	})
}
