package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/consumer/internal/migrate"
	"sluice/deploy/local/enginetest"
)

// reporting runs "consumer report" against an engine.
func reporting(t *testing.T, dsn string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := command()
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(append([]string{"report", "--clickhouse.dsn", dsn}, args...))
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestReportIsWrittenAsAWhole(t *testing.T) {
	dsn := enginetest.Start(t).URL + "/sluice"
	dir := t.TempDir()
	file := filepath.Join(dir, "page.html")
	require.NoError(t, os.WriteFile(file, []byte("an older page"), 0o644))

	// Without the tables there is no page, and the older one stays.
	_, err := reporting(t, dsn, "-o", file)
	require.Error(t, err)
	kept, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "an older page", string(kept))

	require.NoError(t, migrate.Up(t.Context(), dsn, func(string) {}))
	out, err := reporting(t, dsn, "-o", file, "--from", "7d")
	require.NoError(t, err)
	require.Contains(t, out, "page.html: 0 events from ")
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Contains(t, string(text), "<!doctype html>")
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 1, "nothing is left beside the page")

	out, err = reporting(t, dsn, "-o", "-")
	require.NoError(t, err)
	require.Contains(t, out, "</html>")
	out, err = reporting(t, dsn, "--json")
	require.NoError(t, err)
	require.Contains(t, out, `"events":0`)

	_, err = reporting(t, dsn, "-o", filepath.Join(dir, "no", "such", "directory.html"))
	require.ErrorContains(t, err, "choose another file with -o")
	_, err = reporting(t, dsn, "--from", "2026-02-01", "--to", "2026-01-01")
	require.ErrorContains(t, err, "the beginning must be before the end")
	_, err = reporting(t, dsn, "--from", "last week")
	require.ErrorContains(t, err, "want a time")
}

func TestReportTime(t *testing.T) {
	now := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"":                          {},
		"2026-01-02T03:04:05+01:00": time.Date(2026, 1, 2, 2, 4, 5, 0, time.UTC),
		"2026-01-02":                time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC),
		"36h":                       now.Add(-36 * time.Hour),
		"1.5d":                      now.Add(-36 * time.Hour),
		"2w":                        now.AddDate(0, 0, -14),
		"0d":                        now,
	} {
		got, err := reportTime("--from", text, now)
		require.NoError(t, err, text)
		require.True(t, want.Equal(got), "%s: %s", text, got)
	}
	for _, text := range []string{"d", "-7d", "7", "7 d", "999999999999h", "2000000w", "yesterday", "2026-13-01", "2026-01-02T03:04:05"} {
		_, err := reportTime("--to", text, now)
		require.ErrorContains(t, err, "--to", text)
	}
}
