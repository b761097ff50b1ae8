package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const root = "../.."

func none(string) string { return "" }

func TestParse(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		err  string
	}{
		{"all", nil, ""},
		{"some", []string{"--scale=0.5", "backlog", "inserts"}, ""},
		{"no such experiment", []string{"insert"}, `there is no experiment "insert"`},
		{"no such broker", []string{"--broker=rabbit"}, "want kfake or apache"},
		{"no time", []string{"--scale=0"}, "must be positive"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, err := parse(c.args, none)
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			require.NotEmpty(t, cfg.experiments)
		})
	}
}

// What a slow answer holds up is not asked later: it is asked at once, and its
// time is when it was due.
func TestPacedIsAnOpenLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var dues []time.Duration
		n, worst, err := paced(t.Context(), 100, time.Second, func(n int, due time.Time) {
			dues = append(dues, due.Sub(begin))
			if n == 10 {
				time.Sleep(200 * time.Millisecond)
			}
		})
		require.NoError(t, err)
		require.Equal(t, 100, n)
		for i, due := range dues {
			require.Equal(t, time.Duration(i)*10*time.Millisecond, due)
		}
		require.GreaterOrEqual(t, worst, 190*time.Millisecond)
		require.Less(t, time.Since(begin), 1010*time.Millisecond)
	})
}

func TestPacedEndsByItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		n, _, err := paced(ctx, 1000, time.Hour, func(int, time.Time) {})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.InDelta(t, 50, n, 2)
	})
}

func TestQuantile(t *testing.T) {
	require.Zero(t, quantile(nil, 0.99))
	var sorted []time.Duration
	for i := 1; i <= 200; i++ {
		sorted = append(sorted, time.Duration(i))
	}
	require.EqualValues(t, 100, quantile(sorted, 0.5))
	require.EqualValues(t, 198, quantile(sorted, 0.99))
	require.EqualValues(t, 200, quantile(sorted, 1))
	require.EqualValues(t, 7, quantile([]time.Duration{7}, 0.5))
}

// The rows that an experiment expects are counted by this.
func TestSampleRepeatsWhatItMeansTo(t *testing.T) {
	s, err := readSample()
	require.NoError(t, err)
	require.Greater(t, len(s.events), 1000)
	base, keys := time.Unix(1_700_000_000, 0), map[string]bool{}
	const n = 10_000
	for i := range n {
		which := original(i)
		r := s.record(which, base.Add(time.Duration(which)*time.Microsecond), time.Time{}, 4)
		keys[string(r.Key)] = true
	}
	require.Len(t, keys, n-n/20)
}

func TestTable(t *testing.T) {
	table := newTable(column{"what", "what", "%s"}, column{"took_seconds", "took", "%v"}, column{"n", "how many", "%d"})
	table.add("one", 1234567*time.Microsecond, nil)
	table.add("another", time.Minute, 3)
	table.note("seen %d times", 2)
	cfg, err := parse([]string{"--scale=0.5", "--partitions=1,2", "--json", "inserts"}, none)
	require.NoError(t, err)
	table.finish(experiment{name: "inserts", what: "what it asks"}, cfg)

	var text bytes.Buffer
	require.NoError(t, table.print(&text))
	require.Contains(t, text.String(), "BROKER=kfake go run ./deploy/bench --partitions 1,2 --scale 0.5 inserts")
	require.Regexp(t, `one +1\.235s +- `, text.String())
	require.Regexp(t, `another +1m0s +3 `, text.String())
	require.Contains(t, text.String(), "seen 2 times")

	text.Reset()
	require.NoError(t, table.json(&text))
	var got struct{ Rows []map[string]any }
	require.NoError(t, json.Unmarshal(text.Bytes(), &got))
	require.InDelta(t, 1.234567, got.Rows[0]["took_seconds"], 1e-9)
	require.Nil(t, got.Rows[0]["n"])
}

// A bench that measures wrong rows measures nothing: the experiment that goes
// through every program runs for half a second, and says so if a row is missing.
func TestThroughEveryProgram(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "bin")
	build := exec.Command("go", "build", "-o", bin+"/", "./ingest", "./consumer", "./deploy/local/broker", "./deploy/local/engine")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	words, err := build.CombinedOutput()
	require.NoError(t, err, "%s", words)
	cfg, err := parse([]string{"--root=" + root, "--bin=" + bin, "--scale=0.02", "--json", "freshness"}, none)
	require.NoError(t, err)
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), cfg, &out, os.Stderr))
	var got struct{ Rows []map[string]any }
	require.NoError(t, json.Unmarshal(out.Bytes(), &got))
	require.Len(t, got.Rows, 3)
	for _, row := range got.Rows {
		require.EqualValues(t, 600, row["count"])
		require.Positive(t, row["p99_seconds"])
	}
}
