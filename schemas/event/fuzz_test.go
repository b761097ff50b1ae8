package event

import (
	"crypto/sha256"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
)

var seeds = []string{
	`{"source":"app","event_type":"click","actor_id":"u1","occurred_at":"2026-01-02T03:04:05Z","payload":{"a":1}}`,
	`{"source":"a:b%3A","event_type":"\u00e9\ud83c\udf0a","actor_id":"🌊","occurred_at":"2026-01-02T05:04:05.123456789+02:00","client_event_id":"x"}`,
	` { "payload" : { "b" : [ 1 , -0.5e+3 , true , null , "\"\\\/\b\f\n\r\t\u0041" ] , "a" : { } , "c" : [ ] } , "occurred_at" : "1970-01-01T00:00:00.5Z" , "actor_id" : "u" , "event_type" : "t" , "source" : "s" } `,
	`{"source":"app","event_type":"click","actor_id":"u1","occurred_at":"2026-01-02T03:04:05Z","payload":{"a":1,"a":2}}`,
	`{"source":"app","event_type":"click","actor_id":"u1","occurred_at":"2026-01-02T03:04:05Z","payload":{"a":1,"\u0061":2}}`,
	`{"source":"app","source":"b","event_type":"click","actor_id":"u1","occurred_at":"2026-01-02T03:04:05Z"}`,
	`{"source":"app","event_type":"click","actor_id":"u1","occurred_at":"2026-01-02T03:04:05Z","payload":{"é":1,"e":2,"\uffff":3,"😀":4}}`,
	`{"source":"a\u0000","event_type":1,"actor_id":"","occurred_at":"2026-02-30T03:04:05Z","payload":[],"zzz":0,"Source":1}`,
	`{"source":"\ud800","event_type":"t","actor_id":"u","occurred_at":"2026-01-02T03:04:05Z"}`,
	"{\"source\":\"\xff\",\"event_type\":\"t\",\"actor_id\":\"u\",\"occurred_at\":\"2026-01-02T03:04:05Z\"}",
	`{"source":"s","event_type":"t","actor_id":"u","occurred_at":"2026-01-02T03:04:05Z","payload":{"a":01}}`,
	`{"source":"s","event_type":"t","actor_id":"u","occurred_at":"2026-01-02T03:04:05Z","payload":{"a":1.,"b":.5,"c":1e}}`,
	`{"source":"s","event_type":"t","actor_id":"u","occurred_at":"2026-01-02T03:04:05Z","payload":{"a":[[[[[[[[[[]]]]]]]]]]}}`,
	`{"source":"s","event_type":"t","actor_id":"u","occurred_at":"2026-01-02T03:04:05Z","payload":{}}{}`,
	`{"source":"s","event_type":"t","actor_id":"u","occurred_at":"2026-01-02T03:04:05Z","payload":{"a":NaN}}`,
	"\xef\xbb\xbf{}", "", "null", "[]", "{", `{"source"`, `{"source":"s",}`, strings.Repeat("[", 300), strings.Repeat(`{"a":`, 300),
}

// narrow are limits that short inputs reach.
var narrow = Limits{FieldBytes: 24, Depth: 6, MaxAhead: time.Minute, MaxAge: 200 * 365 * 24 * time.Hour}

// FuzzDecode states what decoding promises:
//
//   - it never panics, and returns an event or faults, never both or neither;
//   - what the fast path accepts, the general one accepts with the same result;
//   - what is accepted is I-JSON, and encoding/json reads the same from it;
//   - encoding an accepted event and decoding that is a fixed point, so the
//     consumer reads what the edge read;
//   - its key parses back to the tuple;
//   - its payload's hash is that of the canonical form;
//   - a fault has a kind of the closed set, is UTF-8, short, and its pointer is one.
func FuzzDecode(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	decoders := []*Decoder{NewDecoder(DefaultLimits()), NewDecoder(narrow), NewDecoder(Ceiling())}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, d := range decoders {
			e, faults := d.Decode(body, now)
			slow, slowFaults := d.general(body, now)
			if diff := cmp.Diff(slow, e); diff != "" {
				t.Fatalf("the two paths differ on %q:\n%s", body, diff)
			}
			require.Equal(t, slowFaults, faults)
			if faults != nil {
				require.Empty(t, e)
				checkFaults(t, faults)
				continue
			}
			checkAccepted(t, d, body, e, now)
		}
	})
}

func checkFaults(t *testing.T, faults []Fault) {
	t.Helper()
	require.NotEmpty(t, faults)
	for _, f := range faults {
		require.True(t, slices.Contains(FaultKinds(), f.Kind), "%+v", f)
		require.NotEmpty(t, f.Detail)
		require.True(t, utf8.ValidString(f.Pointer) && utf8.ValidString(f.Detail) && utf8.ValidString(f.Allowed), "%+q", f)
		require.True(t, f.Pointer == "" || f.Pointer[0] == '/', "%+v", f)
		require.Less(t, len(f.Pointer)+len(f.Detail)+len(f.Allowed), 1500, "%+v", f)
	}
}

func checkAccepted(t *testing.T, d *Decoder, body []byte, e Event, now time.Time) {
	t.Helper()
	require.True(t, jsontext.Value(body).IsValid(), "accepted, but no I-JSON: %q", body)
	var std struct {
		Source        string          `json:"source"`
		EventType     string          `json:"event_type"`
		ActorID       string          `json:"actor_id"`
		OccurredAt    time.Time       `json:"occurred_at"`
		ClientEventID string          `json:"client_event_id"`
		Payload       json.RawMessage `json:"payload"`
	}
	require.NoError(t, json.Unmarshal(body, &std), "%q", body)
	require.Equal(t, []string{std.Source, std.EventType, std.ActorID, std.ClientEventID},
		[]string{e.Source, e.EventType, e.ActorID, e.ClientEventID})
	require.True(t, std.OccurredAt.Equal(e.OccurredAt))
	if std.Payload != nil {
		require.Equal(t, string(std.Payload), string(e.Payload))
	} else {
		require.Equal(t, "{}", string(e.Payload))
	}
	require.NotEmpty(t, e.Source)
	require.NotEmpty(t, e.EventType)
	require.NotEmpty(t, e.ActorID)

	kept := e
	kept.Payload = slices.Clone(e.Payload)
	encoded := kept.AppendJSON(nil)
	again, faults := d.Decode(encoded, now)
	require.Empty(t, faults, "%s", encoded)
	if diff := cmp.Diff(kept, again); diff != "" {
		t.Fatalf("decoding the encoded event makes another one:\n%s", diff)
	}
	require.Equal(t, string(encoded), string(again.AppendJSON(nil)))

	source, eventType, actorID, at, err := ParseKey(kept.Key())
	require.NoError(t, err)
	require.Equal(t, []string{kept.Source, kept.EventType, kept.ActorID}, []string{source, eventType, actorID})
	require.True(t, at.Equal(kept.OccurredAt))
	require.Equal(t, IDOf([]byte(kept.Key())), kept.ID())

	canonical, err := Canonical(nil, kept.Payload)
	require.NoError(t, err)
	sum := sha256.Sum256(canonical)
	require.Equal(t, Hash(sum[:16]), PayloadHash(kept.Payload), "%s", kept.Payload)
	require.Equal(t, PayloadHash(canonical), PayloadHash(kept.Payload))

	var same Event
	hash, faults := d.DecodeInto(&same, body, now)
	require.Empty(t, faults)
	require.Empty(t, cmp.Diff(kept, same))
	require.Equal(t, Hash(sum[:16]), hash, "%s", kept.Payload)
}

// FuzzParseKey: a key that parses is the only spelling of its tuple.
func FuzzParseKey(f *testing.F) {
	f.Add("a%3Ab:t:u:2026-01-02T03:04:05.000000000Z")
	f.Add("a%3ab:t:u:2026-01-02T03:04:05.000000000Z")
	f.Add("%25:%25%3A::2026-01-02T03:04:05.000000000Z")
	f.Add("a:b:c:2026-01-02T03:04:05Z")
	f.Add("a:b:c:d")
	f.Add("%")
	f.Fuzz(func(t *testing.T, key string) {
		source, eventType, actorID, at, err := ParseKey(key)
		if err != nil {
			return
		}
		e := Event{Source: source, EventType: eventType, ActorID: actorID, OccurredAt: at}
		require.Equal(t, key, e.Key())
	})
}

// FuzzParseTime: what is accepted is a time to time.Parse, too, the same one, and
// its canonical form is a fixed point.
func FuzzParseTime(f *testing.F) {
	for _, s := range []string{
		"2026-01-02T03:04:05Z", "2026-01-02T03:04:05.123456789+02:00", "2016-12-31T23:59:60Z", "2024-02-29T00:00:00-00:00",
		"2026-01-02T03:04:05,5Z", "2026-01-02T03:04:05.Z", "2026-01-02t03:04:05z", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, msg := ParseTime(s)
		if msg != "" {
			require.Zero(t, got)
			return
		}
		want, err := time.Parse(time.RFC3339Nano, s)
		require.NoError(t, err)
		require.True(t, want.Equal(got))
		require.Equal(t, time.UTC, got.Location())
		if got.Year() < 0 || got.Year() > 9999 {
			return // a zone moved it out of what RFC 3339 can write
		}
		canonical := string(AppendTime(nil, got))
		again, msg := ParseTime(canonical)
		require.Empty(t, msg)
		require.True(t, again.Equal(got))
		require.Equal(t, canonical, string(AppendTime(nil, again)))
	})
}
