package logtest

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What every log is looked through for is found in a line of it, as the log quotes
// it.
func TestSecret(t *testing.T) {
	for _, secret := range []string{
		"sluice_abc_" + strings.Repeat("x", 43), "Authorization: Bearer x", `{"payload":{"a":1}}`, `"occurred_at" : 1`,
		"app:click:u1:2026-01-02T03:04:05.000000000Z",
	} {
		log := New(io.Discard)
		require.Panics(t, func() { log.Debug("x", "about", secret) }, secret)
		require.Panics(t, func() { log.Info(secret) }, secret)
		require.Panics(t, func() { log.With("about", secret).Error("x") }, secret)
	}
	var out bytes.Buffer
	New(&out).Debug("the key sluice_abc is expired", "pointer", "/payload/a")
	require.Contains(t, out.String(), "sluice_abc is expired")
}

// TestEveryLogIsLookedThrough: a test of the edge's packages that throws its log away
// would let a secret in it pass.
func TestEveryLogIsLookedThrough(t *testing.T) {
	seen := 0
	require.NoError(t, fs.WalkDir(os.DirFS(".."), ".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") || strings.HasPrefix(path, "logtest/") {
			return err
		}
		text, err := fs.ReadFile(os.DirFS(".."), path)
		require.NoError(t, err)
		for _, other := range []string{"slog.DiscardHandler", "slog.NewTextHandler", "slog.NewJSONHandler", "slog.Default"} {
			require.NotContains(t, string(text), other, "%s: use logtest.New", path)
		}
		seen += strings.Count(string(text), "logtest.New(")
		return nil
	}))
	require.Greater(t, seen, 10)
}
