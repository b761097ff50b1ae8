package migrate

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	schema "sluice/schemas/clickhouse"
)

// row is what a test stores of an event; the rest is of no interest.
type row struct {
	source, eventType, actor string
	at                       time.Time
	payload                  string
	topic                    uuid.UUID
	partition                int32
	offset                   int64
	stamp                    time.Time
}

// insert stores rows as the consumer does: one INSERT, one block, one token.
func (d *database) insert(token string, rows ...row) {
	d.t.Helper()
	require.NoError(d.t, d.tryInsert(token, schema.InsertSettings(), rows...))
}

func (d *database) tryInsert(token string, more map[string]any, rows ...row) error {
	d.t.Helper()
	settings := clickhouse.Settings{"async_insert": 0, "insert_deduplicate": 1, "insert_deduplication_token": token, "max_partitions_per_insert_block": 0}
	for name, value := range more {
		settings[name] = value
	}
	b, err := d.conn.PrepareBatch(clickhouse.Context(d.t.Context(), clickhouse.WithSettings(settings)),
		"INSERT INTO event_log (event_id, client_event_id, source, event_type, actor_id, occurred_at, payload_text, payload_hash, received_at, topic_id, partition, offset, record_timestamp)")
	require.NoError(d.t, err)
	defer b.Close() //nolint:errcheck // Send tells
	for _, r := range rows {
		if r.payload == "" {
			r.payload = "{}"
		}
		if r.stamp.IsZero() {
			r.stamp = time.UnixMilli(0)
		}
		id := uuid.NewSHA1(uuid.Nil, []byte(r.source+r.eventType+r.actor+r.at.String()))
		require.NoError(d.t, b.Append(id, "", r.source, r.eventType, r.actor, r.at, r.payload, strings.Repeat("h", 16), r.stamp, r.topic, r.partition, r.offset, r.stamp))
	}
	return b.Send()
}

func nested(n int, open, middle, end string) string {
	return strings.Repeat(open, n) + middle + strings.Repeat(end, n)
}

func manyNames(n int, value string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"k%d":%s`, i, strings.ReplaceAll(value, "#", fmt.Sprint(i)))
	}
	return "{" + b.String()[1:] + "}"
}

// same: the payload reads as its text does.
const same = ""

// payloads are I-JSON objects that have broken INSERTs or look as if they could.
var payloads = []struct{ name, text, want string }{
	{"plain", `{"a":1,"b":"x","c":true,"d":1.5}`, same},
	{"empty", `{}`, same},
	{"names with dots that collide", `{"a":{"b":1},"a.b":2}`, `{"a":{"b":1}}`},
	{"the same, other way round", `{"a.b":2,"a":{"b":1}}`, `{"a":{"b":2}}`},
	{"collision in an array", `{"a":[{"b":{"c":1},"b.c":2}]}`, `{"a":[{"b":{"c":1}}]}`},
	{"collision of three", `{"a":1,"a.b":{"c":2},"a.b.c":3}`, `{"a":1,"a":{"b":{"c":2}}}`},
	{"empty names", `{"":{"":1},".":2}`, `{"":{"":1}}`},
	{"a name that ends in a dot", `{"a.":1,"a":{"":2}}`, `{"a":{"":1}}`},
	{"NUL in a name", `{"a\u0000b":1}`, same},
	{"NUL in a value", `{"a":"x\u0000y"}`, same},
	{"quotes in a name", "{\"a\\\"b`c'd\\\\e\":1}", same},
	{"names like ClickHouse's own", `{":a":4,"^a":2,"a[]":3}`, same},
	{"emoji", `{"emoji😀":"é"}`, same},
	{"5,000 names", manyNames(5000, "#"), "*"},
	{"2,000 names of arrays of objects", manyNames(2000, `{"x":#,"y":[{"z#":[{"w#":1}]}]}`), "*"},
	{"1e999", `{"a":1e999,"b":1}`, `{}`},
	{"an integer of 400 digits", `{"a":` + strings.Repeat("9", 400) + `}`, `{}`},
	{"2^64", `{"a":18446744073709551616}`, `{}`},
	{"2^64-1", `{"a":18446744073709551615}`, same},
	{"-2^63-1", `{"a":-9223372036854775809}`, `{}`},
	{"minus zero", `{"a":-0}`, `{"a":0}`},
	{"too small", `{"a":1e-999}`, `{"a":0}`},
	{"a mixed array", `{"a":[1,"x",null,true,[1,2],{"b":[1,"y"]},1.5,{"b":2}]}`, same},
	{"arrays of arrays of objects", `{"a":[[{"b":1},{"c":"x"}],[{"b":"q"}]]}`, same},
	{"128 levels of objects", nested(127, `{"a":`, "{}", "}"), `{}`},
	{"128 levels with a value", nested(128, `{"a":`, "1", "}"), same},
	{"128 levels of arrays", `{"a":` + nested(127, "[", "", "]") + `}`, same},
	{"256 levels of both", nested(128, `{"a":[`, "1", "]}"), same},
	{"like dates", `{"a":"2026-01-02","b":"2026-01-02 03:04:05","c":"2026-01-02T03:04:05.123Z","d":"0000-00-00"}`, same},
	{"arrays like dates", `{"a":["2026-01-02","2026-01-03T00:00:00Z"]}`, same},
	{"nulls", `{"a":null,"b":{"c":null},"d":[null,null],"e":[]}`, `{"d":[null,null],"e":[]}`},
	{"equal only when unescaped, but not equal", `{"a":1,"\u0061b":2}`, `{"a":1,"ab":2}`},
	{"white space", " {\n\"a\" :\t1 } \r\n", `{"a":1}`},
	{"1 MB in one string", `{"a":"` + strings.Repeat("x", 1_000_000) + `"}`, same},
	{"a name of 500 kB", `{"` + strings.Repeat("n", 500_000) + `":1}`, same},
	{"100,000 numbers", `{"a":[0` + strings.Repeat(",1", 99_999) + `]}`, same},
}

// No payload may make an INSERT fail, or a good event of the same batch would
// wait for ever behind the bad one; nor a merge, or the table would drown in
// parts. CAST(… AS JSON) alone throws for a dozen of these.
func TestNoPayloadFailsAnInsertOrAMerge(t *testing.T) {
	d := migrated(t)
	var rows []row
	for i, p := range payloads {
		rows = append(rows, row{source: "s", eventType: "t", actor: p.name, at: time.Unix(1767225600, 0), payload: p.text, offset: int64(i)})
	}
	d.insert("one", rows...)
	for i := range rows {
		rows[i].actor += " again"
	}
	d.insert("two", rows...)
	d.exec("OPTIMIZE TABLE event_log FINAL")
	require.Equal(t, []string{fmt.Sprint(2*len(payloads), "\t1")}, d.lines("SELECT count(), uniqExact(_part) FROM event_log"))
	for _, p := range payloads {
		var text, payload string
		require.NoError(t, d.conn.QueryRow(t.Context(), "SELECT payload_text, toString(payload) FROM events WHERE actor_id = ?", p.name).Scan(&text, &payload), p.name)
		require.True(t, text == p.text, "%s: payload_text is what was sent", p.name)
		switch p.want {
		case "*":
			require.JSONEq(t, text, payload, p.name)
		case same:
			require.True(t, text == payload, "%s: %.200s", p.name, payload)
		default:
			require.Equal(t, p.want, payload, p.name)
		}
	}
}

// Who inserts without the settings is told which one is missing, rather than
// given other payloads than the consumer's.
func TestInsertSettingsAreNeeded(t *testing.T) {
	d := migrated(t)
	r := row{source: "s", eventType: "t", actor: "a", at: time.Unix(1767225600, 0), payload: `{"a":{"b":1},"a.b":2}`}
	require.ErrorContains(t, d.tryInsert("one", nil, r), "type_json_skip_duplicated_paths")
	d.insert("two", r)
}

// generator makes JSON values out of few names and awkward leaves, so that
// the payloads of a batch disagree about the type of every path.
type generator struct{ names []string }

var (
	plainNames  = []string{"a", "b", "", "\x00", "`", `"`, "é", "a[]", ":Int64"}
	dottedNames = append([]string{".", "a.b", "b.a", "a.", ".a", "a.b.a"}, plainNames...)
	leaves      = []string{
		"0", "-0", "1", "-1.5", "2.5", "1e308", "1e-400", "18446744073709551615", "9007199254740993", "null", "true", "false", "[]", "{}",
		`""`, `"x"`, `"2026-01-02"`, `"2026-01-02T03:04:05Z"`, `"1"`, `"null"`, `"\u0000"`, `"127.0.0.1"`, `"a.b"`,
	}
	tooGreat = []string{"1e309", "18446744073709551616", "-9223372036854775809", "123456789012345678901234567890"}
)

func (g generator) object(depth int) *rapid.Generator[json.RawMessage] {
	return rapid.Custom(func(t *rapid.T) json.RawMessage {
		var b strings.Builder
		for i, name := range rapid.SliceOfNDistinct(rapid.SampledFrom(g.names), 0, 5, rapid.ID[string]).Draw(t, "names") {
			if i > 0 {
				b.WriteByte(',')
			}
			quoted, err := json.Marshal(name)
			require.NoError(t, err)
			fmt.Fprintf(&b, "%s:%s", quoted, g.value(depth-1).Draw(t, "value"))
		}
		return json.RawMessage("{" + b.String() + "}")
	})
}

func (g generator) value(depth int) *rapid.Generator[json.RawMessage] {
	return rapid.Custom(func(t *rapid.T) json.RawMessage {
		kind := rapid.IntRange(0, 49).Draw(t, "kind")
		switch {
		case kind == 0:
			return json.RawMessage(rapid.SampledFrom(tooGreat).Draw(t, "number"))
		case kind < 20 && depth > 0:
			items, err := json.Marshal(rapid.SliceOfN(g.value(depth-1), 0, 4).Draw(t, "items"))
			require.NoError(t, err)
			return items
		case kind < 30 && depth > 0:
			return g.object(depth).Draw(t, "object")
		}
		return json.RawMessage(rapid.SampledFrom(leaves).Draw(t, "leaf"))
	})
}

// typed is what payload is to be for a text without dots in its names: {} when
// there is a number that the type cannot hold; else the same but for members
// that are null or an empty object, with numbers as they are when read, and
// null among arrays or objects as one of them that is empty.
func typed(t require.TestingT, text string) any {
	for _, number := range tooGreat {
		if strings.Contains(text, number) {
			return map[string]any{}
		}
	}
	return parsed(t, text)
}

func parsed(t require.TestingT, text string) any {
	var v any
	require.NoError(t, json.Unmarshal([]byte(text), &v))
	return strip(v)
}

func strip(v any) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = strip(v[i])
			if a, ok := v[i].([]any); ok && len(a) == 0 || emptyObject(v[i]) {
				v[i] = nil
			}
		}
	case map[string]any:
		for name, member := range v {
			v[name] = strip(member)
			if v[name] == nil || emptyObject(v[name]) {
				delete(v, name)
			}
		}
	}
	return v
}

func emptyObject(v any) bool {
	o, ok := v.(map[string]any)
	return ok && len(o) == 0
}

// The same for whatever the table above does not think of; and payload says
// what payload_text says, also beside payloads of other shapes: JSONExtract in
// the place of the cast made [1,null] of [1,"x"] after a row that had [1].
func TestRandomPayloads(t *testing.T) {
	d := migrated(t)
	d.exec("SYSTEM STOP MERGES event_log")
	round := 0
	want := map[string]any{}
	rapid.Check(t, func(rt *rapid.T) {
		round++
		dotted := rapid.Bool().Draw(rt, "dotted")
		g := generator{plainNames}
		if dotted {
			g.names = dottedNames
		}
		var rows []row
		for i, p := range rapid.SliceOfN(g.object(4), 1, 40).Draw(rt, "payloads") {
			r := row{source: "s", eventType: "t", actor: fmt.Sprint(round, "/", i), at: time.Unix(1767225600, 0), payload: string(p), offset: int64(i)}
			rows = append(rows, r)
			if !dotted {
				want[r.actor] = typed(rt, r.payload)
			}
		}
		if err := d.tryInsert(fmt.Sprint(round), schema.InsertSettings(), rows...); err != nil {
			rt.Fatal(err)
		}
	})
	compare := func() {
		rows, err := d.conn.Query(t.Context(), "SELECT actor_id, payload_text, toString(payload) FROM event_log")
		require.NoError(t, err)
		defer rows.Close() //nolint:errcheck // Err tells
		for rows.Next() {
			var actor, text, payload string
			require.NoError(t, rows.Scan(&actor, &text, &payload))
			if w, ok := want[actor]; ok {
				require.Empty(t, cmp.Diff(w, parsed(t, payload)), "%s became %s", text, payload)
			}
		}
		require.NoError(t, rows.Err())
	}
	compare()
	d.exec("SYSTEM START MERGES event_log")
	d.exec("OPTIMIZE TABLE event_log FINAL")
	compare()
}

// Where ClickHouse keeps each path in files of its own, an array of objects
// multiplies them: with the JSON type's defaults one row of this payload needs
// more than 20,000 open files, and its merge is tried again for ever. What a
// part may need is bounded by the column's type.
func TestFilesOfAPartAreBounded(t *testing.T) {
	d := migrated(t)
	d.exec("ALTER TABLE event_log MODIFY SETTING min_bytes_for_wide_part = 0")
	var keys strings.Builder
	for i := range 250 {
		keys.WriteString(",")
		fmt.Fprintf(&keys, `"k%d":[`, i)
		for j := range 12 {
			if j > 0 {
				keys.WriteString(",")
			}
			fmt.Fprintf(&keys, `{"z%d":[{"y%d":[{"x%d":1,"w":"s"}]}]}`, j, i, j)
		}
		keys.WriteString("]")
	}
	for i := range 3 {
		d.insert(fmt.Sprint(i), row{source: "s", eventType: "t", actor: fmt.Sprint(i), at: time.Unix(1767225600, 0), payload: "{" + keys.String()[1:] + "}"})
	}
	d.exec("OPTIMIZE TABLE event_log FINAL")
	var part string
	var rows uint64
	require.NoError(t, d.conn.QueryRow(t.Context(), "SELECT path, rows FROM system.parts WHERE database = currentDatabase() AND table = 'event_log' AND active").Scan(&part, &rows))
	require.EqualValues(t, 3, rows)
	files, err := os.ReadDir(part)
	require.NoError(t, err)
	require.Greater(t, len(files), 100, "the part is a wide one")
	require.Less(t, len(files), 1000)
}

// Many small payloads, each of them ordinary, whose nested arrays together have
// many paths and types: with max_dynamic_types of 2 the INSERT of such a batch
// needed more than 20,000 open files, or failed in the engine's allocator.
func TestManyNestedPayloadsInABatch(t *testing.T) {
	d := migrated(t)
	rnd := rand.New(rand.NewPCG(7, 7))
	var value func(depth int) string
	value = func(depth int) string {
		var parts []string
		switch r := rnd.IntN(2); {
		case depth == 0:
			return []string{`1`, `"s"`, `1.5`, `true`}[rnd.IntN(4)]
		case r == 0:
			for range 1 + rnd.IntN(3) {
				parts = append(parts, value(depth-1))
			}
			return "[" + strings.Join(parts, ",") + "]"
		}
		for _, k := range rnd.Perm(4)[:1+rnd.IntN(3)] {
			parts = append(parts, fmt.Sprintf(`"%c":%s`, 'a'+k, value(depth-1)))
		}
		return "{" + strings.Join(parts, ",") + "}"
	}
	for batch := range 2 {
		var rows []row
		for i := range 12_000 {
			rows = append(rows, row{source: "s", eventType: "t", actor: fmt.Sprint(batch, "/", i), at: time.Unix(1767225600, 0),
				payload: fmt.Sprintf(`{"k%d":[%s,[%s]]}`, i%32, value(4), value(3))})
		}
		d.insert(fmt.Sprint(batch), rows...)
	}
	d.exec("OPTIMIZE TABLE event_log FINAL")
	require.Equal(t, []string{"24000\t24000"}, d.lines("SELECT count(), countIf(length(toJSONString(payload)) > 2) FROM events"))
}
