package main

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"sluice/deploy/local/enginetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRefusals(t *testing.T) {
	e := enginetest.Start(t)
	log := slog.New(slog.DiscardHandler)
	err := run(t.Context(), "127.0.0.1:0", "no.so", e.Dir, io.Discard, log)
	require.ErrorContains(t, err, e.Dir+" is in use")
	require.Regexp(t, `process \d+ holds`, err.Error())
	require.ErrorContains(t, run(t.Context(), e.Addr, "no.so", t.TempDir(), io.Discard, log), "--listen")
	require.ErrorContains(t, run(t.Context(), "127.0.0.1:0", "no.so", t.TempDir(), io.Discard, log), "no.so")
}

// A stop lets the queries that run come to their end, and their rows in.
func TestStopLetsQueriesFinish(t *testing.T) {
	e := enginetest.Start(t)
	ask := func(query string) (string, error) {
		resp, err := http.Post(e.URL, "", strings.NewReader(query))
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return fmt.Sprint(resp.StatusCode, " ", strings.TrimSpace(string(b))), err
	}
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	answer, err := ask("CREATE TABLE t (n UInt64) ENGINE = MergeTree ORDER BY n")
	require.NoError(t, err)
	require.Equal(t, "200 ", answer)
	done := make(chan string)
	go func() {
		answer, err := ask("INSERT INTO t SELECT number + sleep(1) FROM numbers(3)")
		done <- fmt.Sprint(answer, err)
	}()
	for answer != "200 1" {
		answer, err = ask("SELECT count() FROM system.processes WHERE query LIKE 'INSERT INTO t%'")
		require.NoError(t, err)
	}
	e.Restart()
	require.Equal(t, "200 <nil>", <-done)
	answer, err = ask("SELECT count() FROM t")
	require.NoError(t, err)
	require.Equal(t, "200 3", answer)
}
