package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"sluice/deploy/bench/scratch"
	"sluice/deploy/local/enginetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestEveryTableIsMade: on a few rows times mean nothing, but sizes, errors and
// answers do.
func TestEveryTableIsMade(t *testing.T) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	root, err := filepath.Abs("../../..")
	require.NoError(t, err)
	engine := enginetest.Start(t)
	b := bench{
		cfg: config{rows: 6_000, batch: 1_000, runs: 1, trials: 2, actors: []int{500, 20_000}, json: true, root: root},
		url: engine.URL, words: t.Output(), began: time.Now(), cpu: func() (time.Duration, error) { return scratch.CPU(engine.PID()) },
	}
	var out bytes.Buffer
	require.NoError(t, b.measure(t.Context(), &out))
	require.Greater(t, b.rows, 5_900)

	type row = map[string]any
	found := map[string]map[string]row{}
	for d := json.NewDecoder(&out); d.More(); {
		var r row
		require.NoError(t, d.Decode(&r))
		kind := r["kind"].(string)
		if found[kind] == nil {
			found[kind] = map[string]row{}
		}
		name := ""
		for _, key := range []string{"table", "column", "question", "sketch"} {
			if v, ok := r[key].(string); ok {
				name = v
			}
		}
		found[kind][name] = r // of sketches, those of the most actors
	}
	bytesOf := func(kind, table string) float64 { return found[kind][table]["bytes_per_row"].(float64) }
	for _, kind := range []string{"inserts", "merges"} {
		require.Len(t, found[kind], len(variants()))
		require.Zero(t, found[kind]["without any projection"]["projection_bytes_per_row"])
		require.Greater(t, bytesOf(kind, "as it is"), bytesOf(kind, "without by_actor"))
		require.Greater(t, bytesOf(kind, "without both"), bytesOf(kind, "without any projection"))
	}
	require.Len(t, found["final"], 3)
	times := found["codecs"]["occurred_at"]
	require.Equal(t, "GCD, ZSTD(1)", times["codec"])
	require.Less(t, times["chosen"], times["plain"])
	require.Positive(t, times["chosen"])
	require.Zero(t, found["sketches"]["uniqExact"]["worst_percent"])
	require.Positive(t, found["sketches"]["uniqHLL12"]["worst_percent"])
}

func TestParse(t *testing.T) {
	env := map[string]string{"ROWS": "20000", "EVENTS": "x.gz"}
	c, err := parse([]string{"--json", "--runs", "3"}, func(name string) string { return env[name] })
	require.NoError(t, err)
	require.Equal(t, []any{20000, 3, true, "x.gz"}, []any{c.rows, c.runs, c.json, c.events})
	env["ROWS"] = "2M"
	_, err = parse(nil, func(name string) string { return env[name] })
	require.ErrorContains(t, err, "ROWS=2M: want a number")
	none := func(string) string { return "" }
	_, err = parse([]string{"--rows", "5"}, none)
	require.ErrorContains(t, err, "at least")
	_, err = parse([]string{"20000"}, none)
	require.ErrorContains(t, err, "there are only flags")
}
