package schema

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"sluice/ingest/internal/logtest"
	"sluice/schemas/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
}

func load(t testing.TB, files map[string]string) *Set {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, files)
	set, err := Load(dir, DefaultLimits())
	require.NoError(t, err)
	return set
}

const order = `{
	"$schema": "https://json-schema.org/draft/2020-12/schema",
	"type": "object",
	"required": ["id", "total"],
	"properties": {
		"id": {"type": "string", "pattern": "^o-[0-9]+$"},
		"total": {"type": "number", "minimum": 0, "multipleOf": 0.01},
		"ship": {"$ref": "_address.json"},
		"at": {"format": "date-time"}
	},
	"additionalProperties": false
}`

const addressFile = `{"type": "object", "required": ["city"], "properties": {"city": {"type": "string", "maxLength": 5}}}`

// TestCheck: what is refused, where, and in which words.
func TestCheck(t *testing.T) {
	set := load(t, map[string]string{"order.v1.json": order, "_address.json": addressFile})
	rows := []struct{ payload, want string }{
		{`{"id":"o-1","total":0.10}`, ""},
		{`{"id":"o-1","total":9007199254740993.01,"ship":{"city":"Bonn"},"at":"2026-01-02T03:04:05Z"}`, ""},
		{`{}`, `/payload lacks "id", "total"`},
		{`{"id":"x","total":1}`, `/payload/id does not match the pattern (allowed: ^o-[0-9]+$)`},
		{`{"id":"o-1","total":0.105}`, `/payload/total is not a multiple (allowed: multiples of 0.01)`},
		// As doubles these two are the same number.
		{`{"id":"o-1","total":9007199254740993.005}`, `/payload/total is not a multiple (allowed: multiples of 0.01)`},
		{`{"id":"o-1","total":-1}`, `/payload/total is too small (allowed: at least 0)`},
		{`{"id":"o-1","total":"1"}`, `/payload/total is of type string (allowed: number)`},
		{`{"id":"o-1","total":1,"ship":{"city":"Amsterdam"}}`, `/payload/ship/city has 9 characters (allowed: at most 5)`},
		{`{"id":"o-1","total":1,"x/y~z":1}`, `/payload has members that are not allowed: "x/y~z"`},
		{`{"id":"o-1","total":1,"at":"today"}`, `/payload/at is not a valid date-time`},
		{`{"id":"o-1","total":1e999999}`, `/payload/total is a number that is not compared: more than 512 characters, or an exponent beyond ±400`},
		{`{"id":7,"total":-1}`, "/payload/id is of type number (allowed: string)\n/payload/total is too small (allowed: at least 0)"},
	}
	for _, r := range rows {
		v, faults := set.Check("order", []byte(r.payload))
		require.Equal(t, r.want, lines(faults), r.payload)
		if r.want == "" {
			require.Equal(t, "order.v1", v.String())
		}
	}
	v, faults := set.Check("other", []byte(`{}`))
	require.Nil(t, v)
	require.Nil(t, faults)
}

// lines writes faults one a line, sorted as they come from maps.
func lines(faults []event.Fault) string {
	var out []string
	for _, f := range faults {
		out = append(out, f.String())
	}
	if len(out) > 1 && out[0] > out[1] {
		out[0], out[1] = out[1], out[0]
	}
	return strings.Join(out, "\n")
}

// TestNearestAlternative: of alternatives only the nearest is told.
func TestNearestAlternative(t *testing.T) {
	set := load(t, map[string]string{"a.v1.json": `{"oneOf":[
		{"properties":{"kind":{"const":"card"},"number":{"type":"string","minLength":12}},"required":["kind","number"]},
		{"properties":{"kind":{"const":"cash"}},"required":["kind","till"]}]}`})
	_, faults := set.Check("a", []byte(`{"kind":"card","number":"1"}`))
	require.Len(t, faults, 2)
	require.Equal(t, "/payload is none of the 2 alternatives; what follows is about the nearest", faults[0].String())
	require.Equal(t, "/payload/number has 1 character (allowed: at least 12)", faults[1].String())
}

// TestVersions: any version may accept an event, the newest first; the faults
// are the newest's.
func TestVersions(t *testing.T) {
	set := load(t, map[string]string{
		"a.v2.json":  `{"required":["two"]}`,
		"a.v10.json": `{"required":["ten"]}`,
	})
	for payload, want := range map[string]string{`{"two":1}`: "a.v2", `{"ten":1}`: "a.v10", `{"two":1,"ten":1}`: "a.v10"} {
		v, faults := set.Check("a", []byte(payload))
		require.Nil(t, faults)
		require.Equal(t, want, v.String())
	}
	_, faults := set.Check("a", []byte(`{}`))
	require.Equal(t, `/payload lacks "ten" (by version 10; the other 1 do not accept it either)`, lines(faults))
}

// TestBroken: one file that is wrong refuses the whole directory, by name.
func TestBroken(t *testing.T) {
	big := `{"enum":[` + strings.Repeat("1,", 1000) + `1]}`
	rows := []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"not JSON", map[string]string{"b.v1.json": `{`}, "b.v1.json: "},
		{"a name twice", map[string]string{"b.v1.json": `{"type":"object","type":"string"}`}, "duplicate"},
		{"not an object", map[string]string{"b.v1.json": `true`}, "b.v1.json: want an object"},
		{"another draft", map[string]string{"b.v1.json": `{"$schema":"http://json-schema.org/draft-07/schema#"}`}, "want \"https://json-schema.org/draft/2020-12/schema\""},
		{"not a schema", map[string]string{"b.v1.json": `{"type":"objekt"}`}, "/type"},
		{"no version", map[string]string{"b.json": `{}`}, "b.json: want <event type>.v<number>.json"},
		{"a zero in front", map[string]string{"b.v01.json": `{}`}, "name it b.v1.json"},
		{"escaped needlessly", map[string]string{"%62.v1.json": `{}`}, "name it b.v1.json"},
		{"a reference to nothing", map[string]string{"b.v1.json": `{"$ref":"_c.json"}`}, "_c.json"},
		{"a reference over the network", map[string]string{"b.v1.json": `{"$ref":"http://127.0.0.1:1/x.json"}`}, "refers only to files"},
		{"a reference to a file", map[string]string{"b.v1.json": `{"$ref":"file:///etc/passwd"}`}, "refers only to files"},
		{"a reference upwards", map[string]string{"b.v1.json": `{"$ref":"../../etc/passwd"}`}, "refers only to files"},
		{"no RE2", map[string]string{"b.v1.json": `{"pattern":"(a)\\1"}`}, "RE2"},
		{"a huge pattern", map[string]string{"b.v1.json": `{"pattern":"` + strings.Repeat("[a-z]{1000}", 6) + `"}`}, "instructions"},
		{"a huge enum", map[string]string{"b.v1.json": big}, "an enum has 1001 values"},
		{"a huge number", map[string]string{"b.v1.json": `{"minimum":1e100000}`}, "minimum: is a number that is not compared"},
		{"nested deep", map[string]string{"b.v1.json": strings.Repeat(`{"not":`, 70) + "{}" + strings.Repeat("}", 70)}, "nested more than 64 deep"},
		{"too many bytes", map[string]string{"b.v1.json": `{"description":"` + strings.Repeat("x", 256<<10) + `"}`}, "at most 262144 are allowed"},
		{"a million branches", map[string]string{"b.v1.json": `{"anyOf":[` + strings.Repeat("{},", 20_000) + "{}]}"}, "schemas or more, at most 5000"},
		{"a million booleans", map[string]string{"b.v1.json": `{"anyOf":[` + strings.Repeat("true,", 20_000) + "true]}"}, "schemas or more, at most 5000"},
		{"dynamic", map[string]string{"b.v1.json": `{"$dynamicRef":"#x","$defs":{"x":{"$dynamicAnchor":"x"}}}`}, "$dynamicRef is not taken"},
		{"the same $id", map[string]string{"b.v1.json": `{"$id":"https://x.example/a"}`, "c.v1.json": `{"$id":"https://x.example/a"}`}, "another file's too"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, r.files)
			write(t, dir, map[string]string{"good.v1.json": `{}`})
			_, err := Load(dir, DefaultLimits())
			require.ErrorContains(t, err, r.want)
			require.NotContains(t, err.Error(), base)
		})
	}
}

// TestNotAFile: a pipe named like a schema must not be waited for.
func TestNotAFile(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "a.v1.json"), 0o700))
	_, err := Load(dir, DefaultLimits())
	require.ErrorContains(t, err, "a.v1.json: is not a file")
}

// TestID: files refer to each other by $id as well.
func TestID(t *testing.T) {
	set := load(t, map[string]string{
		"a.v1.json": `{"$id":"https://x.example/a","properties":{"b":{"$ref":"b#/$defs/small"}}}`,
		"_b.json":   `{"$id":"https://x.example/b","$defs":{"small":{"maximum":3}}}`,
	})
	_, faults := set.Check("a", []byte(`{"b":4}`))
	require.Equal(t, "/payload/b is too large (allowed: at most 3)", lines(faults))
}

func TestWarnings(t *testing.T) {
	set := load(t, map[string]string{"a.v1.json": `{"requierd":["x"],"x-owner":"web"}`})
	require.Equal(t, []string{`a.v1.json: JSON Schema has no keyword "requierd", so it does nothing; did you mean "required"?`}, set.Warnings())
}

// TestBoundedCost: schemas whose cost grows without bound for a small event.
// Each must end by the steps it may take; without them the first would apply
// some 2^40 schemas, and the run would not end.
func TestBoundedCost(t *testing.T) {
	var doubling strings.Builder
	doubling.WriteString(`{"$ref":"#/$defs/d0","$defs":{`)
	for i := range 40 {
		fmt.Fprintf(&doubling, `"d%d":{"allOf":[{"$ref":"#/$defs/d%d"},{"$ref":"#/$defs/d%d"}]},`, i, i+1, i+1)
	}
	doubling.WriteString(`"d40":{"required":["x"]}}}`)
	nested := strings.Repeat(`{"a":`, 60) + "1" + strings.Repeat("}", 60)
	long := `{"a":"` + strings.Repeat("a", 900_000) + `"}`
	rows := []struct{ name, schema, payload string }{
		{"branches that double", doubling.String(), `{}`},
		{"recursion that doubles", `{"allOf":[{"properties":{"a":{"$ref":"#"}}},{"additionalProperties":{"$ref":"#"}},{"patternProperties":{"a":{"$ref":"#"}}}]}`, nested},
		{"a pattern of many states", `{"properties":{"a":{"pattern":"(x+x+)+y|(a?){1000}b"}}}`, long},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			set := load(t, map[string]string{"a.v1.json": r.schema})
			_, faults := set.Check("a", []byte(r.payload))
			require.True(t, Exhausted(faults), "%v", faults)
			// What gave up serves the next event as before.
			_, faults = set.Check("a", []byte(r.payload))
			require.True(t, Exhausted(faults), "%v", faults)
		})
	}
}

// TestCatastrophicPattern: what takes other engines for ever takes this one no
// time, and is answered.
func TestCatastrophicPattern(t *testing.T) {
	set := load(t, map[string]string{"a.v1.json": `{"properties":{"a":{"pattern":"^(a+)+$"}}}`})
	_, faults := set.Check("a", []byte(`{"a":"`+strings.Repeat("a", 100_000)+`!"}`))
	require.Equal(t, "/payload/a does not match the pattern (allowed: ^(a+)+$)", lines(faults))
}

// TestEndlessReference: a schema that means nothing but itself.
func TestEndlessReference(t *testing.T) {
	set := load(t, map[string]string{"a.v1.json": `{"allOf":[{"$ref":"#"}]}`})
	_, faults := set.Check("a", []byte(`{}`))
	require.NotEmpty(t, faults)
}

// TestPlainCost: an ordinary large event is far from the bound.
func TestPlainCost(t *testing.T) {
	set := load(t, map[string]string{"a.v1.json": `{"properties":{"list":{"items":{"type":"object","properties":{"n":{"type":"integer","minimum":0},"s":{"pattern":"^[a-z]{1,20}$"}},"required":["n"]}}}}`})
	payload := []byte(`{"list":[` + strings.TrimSuffix(strings.Repeat(`{"n":12,"s":"abcdefgh"},`, 40_000), ",") + `]}`)
	_, faults := set.Check("a", payload)
	require.Nil(t, faults)
	c := set.Of("a")[0].take()
	used := DefaultLimits().Steps + DefaultLimits().StepsPerByte*int64(len(payload)) - c.meter.left
	require.Less(t, used, int64(len(payload)), "steps")
}

// TestFileNames: every type has one file name, which says it.
func TestFileNames(t *testing.T) {
	require.Equal(t, "shop%2Forder.v2.json", FileName("shop/order", 2))
	require.Equal(t, "%5Fx.v.v1.json", FileName("_x.v", 1))
	require.Equal(t, "%2Egit.v1.json", FileName(".git", 1))
	rapid.Check(t, func(t *rapid.T) {
		eventType := rapid.StringN(1, 20, -1).Draw(t, "type")
		n := rapid.IntRange(1, 1000).Draw(t, "n")
		gotType, gotN, err := ParseFileName(FileName(eventType, n))
		if err != nil || gotType != eventType || gotN != n {
			t.Fatalf("%q %d: %q %d %v", eventType, n, gotType, gotN, err)
		}
	})
}

func decoded(t testing.TB, eventType, payload string) *event.Event {
	t.Helper()
	text := fmt.Sprintf(`{"source":"s","event_type":%q,"actor_id":"a","occurred_at":"2026-01-02T03:04:05Z","payload":%s}`, eventType, payload)
	e, faults := event.NewDecoder(event.DefaultLimits()).Decode([]byte(text), time.Time{})
	require.Nil(t, faults)
	return &e
}

// TestReload: a directory that became wrong leaves the old set in force, whole,
// and says so; once it is right again it takes effect.
func TestReload(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"a.v1.json": `{"required":["x"]}`})
	var log bytes.Buffer
	r, err := Open(Config{Dir: dir}, logtest.New(&log), prometheus.NewRegistry())
	require.NoError(t, err)
	refused := func() bool { _, f := r.Check(decoded(t, "a", `{}`)); return f != nil }
	require.True(t, refused())

	write(t, dir, map[string]string{"a.v1.json": `{}`, "b.v1.json": `{"type":`})
	require.ErrorContains(t, r.Reload(), "b.v1.json")
	require.True(t, refused(), "the good half of a bad directory took effect")
	require.Contains(t, r.State().Error, "b.v1.json")
	require.Equal(t, 1, r.State().Versions)
	require.Contains(t, log.String(), "those read before stay in force")

	write(t, dir, map[string]string{"b.v1.json": `{}`})
	require.NoError(t, r.Reload())
	require.False(t, refused())
	require.Empty(t, r.State().Error)
	require.Equal(t, 2, r.State().Versions)

	require.NoError(t, os.RemoveAll(dir))
	require.Error(t, r.Reload())
	require.False(t, refused())
}

func TestOpenBroken(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"a.v1.json": `{`})
	_, err := Open(Config{Dir: dir}, logtest.New(io.Discard), prometheus.NewRegistry())
	require.ErrorContains(t, err, "a.v1.json")
}

func TestUnregistered(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"order.v1.json": `{}`})
	for _, refuse := range []bool{false, true} {
		r, err := Open(Config{Dir: dir, RefuseUnregistered: refuse}, logtest.New(io.Discard), nil)
		require.NoError(t, err)
		name, faults := r.Check(decoded(t, "order", `{}`))
		require.Equal(t, "order.v1", name)
		require.Nil(t, faults)
		_, faults = r.Check(decoded(t, "Order", `{}`))
		if refuse {
			require.Equal(t, `/event_type is not a registered event type; did you mean "order"?`, lines(faults))
		} else {
			require.Nil(t, faults)
		}
	}
}

// TestConcurrent: more goroutines than compiled copies, and reloads beside them.
func TestConcurrent(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"order.v1.json": order, "_address.json": addressFile})
	r, err := Open(Config{Dir: dir}, logtest.New(io.Discard), nil)
	require.NoError(t, err)
	good, bad := decoded(t, "order", `{"id":"o-1","total":1}`), decoded(t, "order", `{"id":"o-1","total":-1}`)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 200 {
				if _, f := r.Check(good); f != nil {
					t.Error(f)
				}
				if _, f := r.Check(bad); len(f) != 1 {
					t.Error(f)
				}
			}
		})
	}
	for range 5 {
		require.NoError(t, r.Reload())
	}
	wg.Wait()
}

func BenchmarkCheck(b *testing.B) {
	set := load(b, map[string]string{"order.v1.json": order, "_address.json": addressFile})
	payload := []byte(`{"id":"o-1","total":12.50,"ship":{"city":"Bonn"},"at":"2026-01-02T03:04:05Z"}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, f := set.Check("order", payload); f != nil {
			b.Fatal(f)
		}
	}
}
