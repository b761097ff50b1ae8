package event

import (
	"crypto/sha256"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var (
	fragment = rapid.SampledFrom([]string{
		"a", "b", "n0", "é", "🌊", "\uffff", `\u0061`, `\u00e9`, `\ud83c\udf0a`, `\ud800`, `\"`, `\\`, `\/`, `\n`, `\u0000`, `\u001F`, "\x7f", "\x1f", "\xff", "\xed\xa0\x80", ":", "%",
	})
	fair = rapid.SampledFrom([]string{
		"a", "b", "n0", "é", "🌊", "\uffff", `\u0061`, `\u00e9`, `\"`, `\\`, `\/`, `\n`, `\u001F`, "\x7f", ":", "%",
	})
	space  = rapid.SampledFrom([]string{"", "", "", " ", "\t\r\n"})
	scalar = rapid.Custom(func(t *rapid.T) string {
		if seldom(t) {
			return rapid.SampledFrom([]string{"01", "1.", ".5", "+1", "0x1", "NaN", "tru", "nulll", "-", "1e", "1e+", "'a'", ""}).Draw(t, "wrong")
		}
		return rapid.SampledFrom([]string{"0", "-0", "1.0", "12e3", "-0.5E-7", "9007199254740993", "1e999", "true", "false", "null"}).Draw(t, "right")
	})
	quoted = rapid.Custom(func(t *rapid.T) string {
		of := fair
		if seldom(t) {
			of = fragment
		}
		return `"` + strings.Join(rapid.SliceOfN(of, 0, 3).Draw(t, "text"), "") + `"`
	})
)

func seldom(t *rapid.T) bool { return rapid.IntRange(0, 29).Draw(t, "seldom") == 29 }

// value draws JSON, and now and then what is nearly JSON.
func value(depth int) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		kind := rapid.IntRange(0, 5).Draw(t, "kind")
		if depth == 0 && kind > 3 {
			kind = 0
		}
		switch kind {
		case 0, 1:
			return scalar.Draw(t, "scalar")
		case 2, 3:
			return quoted.Draw(t, "string")
		case 4:
			return "[" + list(t, value(depth-1)) + "]"
		}
		return object(depth).Draw(t, "object")
	})
}

func list(t *rapid.T, of *rapid.Generator[string]) string {
	return space.Draw(t, "space") + strings.Join(rapid.SliceOfN(of, 0, 4).Draw(t, "items"), ","+space.Draw(t, "space")) + space.Draw(t, "space")
}

func object(depth int) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		return "{" + list(t, rapid.Custom(func(t *rapid.T) string {
			return quoted.Draw(t, "name") + space.Draw(t, "space") + ":" + value(depth-1).Draw(t, "value")
		})) + "}"
	})
}

var drawnEvent = rapid.Custom(func(t *rapid.T) string {
	field := rapid.Custom(func(t *rapid.T) string {
		if seldom(t) {
			return rapid.OneOf(quoted, scalar).Draw(t, "any")
		}
		return rapid.SampledFrom([]string{`"x"`, `"é:%"`, `"\u0061"`}).Draw(t, "field")
	})
	at := rapid.SampledFrom([]string{
		`"2026-01-02T03:04:05Z"`, `"2026-01-02T03:04:05.5+01:00"`, `"2026-05-02T03:04:05.123456789-00:00"`, `"1970-01-01T00:00:00Z"`,
		`"2026-01-02T03:04:05\u005a"`, `"2099-01-01T00:00:00Z"`,
	})
	members := map[string]*rapid.Generator[string]{
		`"source"`: field, `"event_type"`: field, `"actor_id"`: field, `"occurred_at"`: at,
		`"payload"`: object(3), `"client_event_id"`: field, `"sourc\u0065"`: field, `"zzz"`: field,
	}
	names := rapid.Permutation([]string{`"source"`, `"event_type"`, `"actor_id"`, `"occurred_at"`, `"payload"`}).Draw(t, "names")
	if rapid.Bool().Draw(t, "client event id") {
		names = append(names, `"client_event_id"`)
	}
	if seldom(t) {
		names = append(names, rapid.SampledFrom([]string{`"sourc\u0065"`, `"zzz"`, `"source"`}).Draw(t, "more"))
	}
	if seldom(t) {
		names = names[1:]
	}
	var parts []string
	for _, n := range names {
		parts = append(parts, space.Draw(t, "space")+n+space.Draw(t, "space")+":"+members[n].Draw(t, n))
	}
	return space.Draw(t, "space") + "{" + strings.Join(parts, ",") + "}" + space.Draw(t, "space")
})

// TestPathsAgree draws events that are right or nearly right, breaks some of
// them further, and sees that the fast path and the general one agree, and that
// the two ways to hash a payload do. Both verdicts must come up.
func TestPathsAgree(t *testing.T) {
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	accepted, fast, byNotes, refused := 0, 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		for _, text := range rapid.SliceOfN(drawnEvent, 20, 20).Draw(t, "events") {
			body := broken(t, []byte(text))
			d := NewDecoder(narrow)
			e, ok := d.fast(body, now)
			general, faults := d.general(body, now)
			if faults != nil {
				require.False(t, ok, "the fast path accepts %q", body)
				refused++
				continue
			}
			if ok {
				require.Empty(t, cmp.Diff(general, e))
				fast++
			}
			accepted++
			canonical, err := Canonical(nil, general.Payload)
			require.NoError(t, err)
			sum := sha256.Sum256(canonical)
			require.Equal(t, Hash(sum[:16]), PayloadHash(general.Payload), "%s", general.Payload)
			var same Event
			hash, faults := d.DecodeInto(&same, body, now)
			require.Empty(t, faults)
			require.Empty(t, cmp.Diff(general, same))
			require.Equal(t, Hash(sum[:16]), hash, "%s", general.Payload)
			if ok && !d.noted.other {
				byNotes++
			}
		}
	})
	require.Positive(t, fast, "accepted by the fast path")
	require.Greater(t, accepted, fast, "accepted by the general one alone")
	require.Positive(t, byNotes, "hashed by what was noted")
	require.Greater(t, fast, byNotes, "hashed by reading the payload again")
	require.Positive(t, refused)
}

// broken deletes, replaces or inserts a byte or two, seldom.
func broken(t *rapid.T, body []byte) []byte {
	for range rapid.SampledFrom([]int{0, 0, 0, 0, 0, 0, 1, 2}).Draw(t, "breaks") {
		at := rapid.IntRange(0, len(body)-1).Draw(t, "at")
		switch rapid.IntRange(0, 2).Draw(t, "how") {
		case 0:
			body = slices.Delete(body, at, at+1)
		case 1:
			body[at] = rapid.Byte().Draw(t, "byte")
		case 2:
			body = slices.Insert(body, at, rapid.SampledFrom([]byte(`{}[]",:\ 0`)).Draw(t, "byte"))
		}
	}
	return body
}
