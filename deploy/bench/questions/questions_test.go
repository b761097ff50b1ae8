package main

import (
	"bytes"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"sluice/deploy/bench/scratch"
	"sluice/deploy/local/enginetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestEveryQuestionIsAnsweredAsTheRowsAnswerIt: a question that a rollup answers
// otherwise than the rows, or that is about nothing, measures nothing.
func TestEveryQuestionIsAnsweredAsTheRowsAnswerIt(t *testing.T) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	cfg := config{rows: 60_000, runs: 1, settle: time.Minute}
	var out bytes.Buffer
	b := bench{Client: scratch.Client{URL: enginetest.Start(t).URL, Database: "sluice"}, cfg: cfg, words: os.Stderr}
	now := time.Now().UTC().Truncate(time.Minute)
	require.NoError(t, b.prepare(t.Context(), now))
	require.NoError(t, b.prepare(t.Context(), now), "a run that was cut short goes on")
	require.NoError(t, b.measure(t.Context(), now, &out))
	t.Logf("%s", &out)
	require.Len(t, questions(now, "someone"), 10)
}

func TestParse(t *testing.T) {
	env := map[string]string{"ROWS": "20000", "RUNS": "3"}
	c, err := parse([]string{"--json"}, func(name string) string { return env[name] })
	require.NoError(t, err)
	require.Equal(t, []any{20000, 3, true}, []any{c.rows, c.runs, c.json})
	env["ROWS"] = "50M"
	_, err = parse(nil, func(name string) string { return env[name] })
	require.ErrorContains(t, err, "ROWS=50M: want a number")
	none := func(string) string { return "" }
	_, err = parse([]string{"--rows", "5"}, none)
	require.ErrorContains(t, err, "at least")
	_, err = parse([]string{"20000"}, none)
	require.ErrorContains(t, err, "there are only flags")
	require.ErrorContains(t, scratch.Room(t.TempDir(), 1<<62, os.Stderr), "too little room")
}
