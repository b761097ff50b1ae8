package promote

import (
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	schema "sluice/schemas/clickhouse"
)

func folder(t *testing.T) *Registry {
	t.Helper()
	r, err := Open(os.DirFS(filepath.Join("..", "..", "..", "schemas", "jsonschema")))
	require.NoError(t, err)
	return r
}

func TestFindTheRegistered(t *testing.T) {
	r := folder(t)
	for name, want := range map[string]Kind{
		"page_view.duration_ms": Integer, "page_view.path": String, "order.order_id": String, "order.total.amount": Number, "order.total.currency": String,
	} {
		p, err := r.Find(name)
		require.NoError(t, err, name)
		require.Equal(t, want, p.Kind, name)
	}
	for name, want := range map[string]error{
		"order.total": ErrMixed, "order.lines": ErrMixed, "page_view.durations": ErrUnknown, "nope.x": ErrUnknown, "page_view": ErrUnknown, "page_view.": ErrUnknown,
		"page_view.duration_ms.x": ErrUnknown, "page_view.duration_ms) , DROP COLUMN payload --": ErrUnknown,
	} {
		_, err := r.Find(name)
		require.ErrorIs(t, err, want, name)
	}
	var names []string
	for _, p := range r.List() {
		names = append(names, p.Name())
	}
	require.Equal(t, []string{"order.order_id", "order.total.amount", "order.total.currency", "page_view.duration_ms", "page_view.path", "page_view.referrer"}, names)
}

func TestKinds(t *testing.T) {
	for schemas, want := range map[[2]string]Kind{
		{`{"type":"integer"}`, `{"type":"number"}`}:                     Number,
		{`{"enum":["a","b",null]}`, `{"type":"string"}`}:                String,
		{`{"type":["string","null"],"enum":["a"]}`, `{"const":"b"}`}:    Enum,
		{`{"type":"string","format":"date-time"}`, ``}:                  Time,
		{`{"type":["boolean","null"]}`, ``}:                             Boolean,
		{`{"type":["integer","number"]}`, ``}:                           Number,
		{`{"$ref":"#/$defs/n"}`, ``}:                                    Integer,
		{`{"type":["integer","string"]}`, ``}:                           "",
		{`{"type":"integer"}`, `{"type":"string"}`}:                     "",
		{`{"type":"string"}`, `{"type":"string","format":"date-time"}`}: "",
		{`{"enum":["a",1]}`, ``}:                                        "",
		{`{"anyOf":[{"type":"integer"}]}`, ``}:                          "",
		{`{}`, ``}:                                                      "",
		{`{"$ref":"#/properties/m"}`, ``}:                               "",
		{`{"$ref":"gone.json"}`, ``}:                                    "",
	} {
		dir := fstest.MapFS{}
		for i, s := range schemas {
			if s != "" {
				dir[[]string{"a.b.v1.json", "a.b.v2.json"}[i]] = &fstest.MapFile{Data: []byte(`{"properties":{"m":` + s + `},"$defs":{"n":{"type":"integer"}}}`)}
			}
		}
		dir["a.v1.json"] = &fstest.MapFile{Data: []byte(`{"properties":{"b":{"properties":{"m":{"type":"object"}}}}}`)} // the longer type's name wins
		r, err := Open(dir)
		require.NoError(t, err)
		p, err := r.Find("a.b.m")
		if want == "" {
			require.ErrorIs(t, err, ErrMixed, schemas)
			continue
		}
		require.NoError(t, err, schemas)
		require.Equal(t, want, p.Kind, schemas)
		require.Equal(t, "a.b", p.EventType)
	}
}

func TestNames(t *testing.T) {
	p := Property{EventType: "shop's/order`", Path: []string{"größe", "a`b\\"}, Kind: Integer}
	c, err := NewColumn(p, "")
	require.NoError(t, err)
	require.Equal(t, "shop_s_order__gr__e_a_b_", c.Column)
	require.Contains(t, c.Add(), `event_type = 'shop\'s/order`+"`"+`'`)
	require.Contains(t, c.Add(), "payload.`größe`.`a\\`b\\\\`.:Int64")
	for _, bad := range []string{"1x", "a b", "x; DROP TABLE event_log", "é", "x`", string(make([]byte, 70))} {
		_, err := NewColumn(p, bad)
		require.Error(t, err, bad)
	}
	_, err = NewColumn(Property{EventType: "数据", Path: []string{"x\n"}, Kind: String}, "x")
	require.ErrorContains(t, err, "control characters")
	_, err = NewColumn(Property{EventType: "数据", Path: []string{"値"}, Kind: String}, "")
	require.ErrorContains(t, err, "--column")
}

func TestJudge(t *testing.T) {
	c, err := NewColumn(Property{EventType: "page_view", Path: []string{"duration_ms"}, Kind: Integer}, "")
	require.NoError(t, err)
	own := Existing{"payload", "JSON", "MATERIALIZED", ""}
	other := Existing{"x", "Nullable(String)", "MATERIALIZED", schema.PromotedComment + "a.x"}
	mine := Existing{c.Column, c.Type(), "MATERIALIZED", c.Comment()}
	there, others, err := Judge(c, []Existing{own, other})
	require.NoError(t, err)
	require.False(t, there)
	require.Equal(t, []string{"x"}, others)
	there, _, err = Judge(c, []Existing{own, mine, other})
	require.NoError(t, err)
	require.True(t, there)
	_, _, err = Judge(c, nil)
	require.ErrorContains(t, err, "consumer migrate")
	for _, in := range []Existing{
		{c.Column, "String", "", ""}, {c.Column, c.Type(), "MATERIALIZED", schema.PromotedComment + "page.view_duration_ms"},
		{c.Column, "Nullable(String)", "MATERIALIZED", c.Comment()}, {"y", c.Type(), "MATERIALIZED", c.Comment()},
	} {
		_, _, err = Judge(c, []Existing{own, in})
		require.ErrorIs(t, err, ErrTaken, in)
	}
	c.Column = "payload"
	_, _, err = Judge(c, []Existing{own})
	require.ErrorIs(t, err, ErrTaken)
}

// Every statement of a migration has a form for a cluster.
func TestClusterForm(t *testing.T) {
	c, err := NewColumn(Property{EventType: "page_view", Path: []string{"at"}, Kind: Time}, "")
	require.NoError(t, err)
	for _, s := range append(schema.EventsViews([]string{c.Column}), c.Add(), c.Fill("")) {
		_, err := schema.Cluster(s, "main")
		require.NoError(t, err, s)
	}
}
