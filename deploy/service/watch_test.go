package service_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"sluice/deploy/service"
)

// TestWatch: a file that is written, replaced, gone for a moment, or reached
// through a link that moves, is told of each time; viper's own watch ends at the
// third.
func TestWatch(t *testing.T) {
	defer goleak.VerifyNone(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	dir := t.TempDir()
	file := filepath.Join(dir, "edge.yaml")
	write := func(path, text string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o600)) }
	write(file, "a: 1")
	changed, err := service.Watch(ctx, file, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	for _, change := range []func(){
		func() { write(file, "a: 2") },
		func() {
			write(file+".new", "a: 3")
			require.NoError(t, os.Rename(file+".new", file))
		},
		func() {
			require.NoError(t, os.Remove(file))
			write(file, "a: 4")
		},
		func() {
			write(filepath.Join(dir, "v1"), "a: 5")
			require.NoError(t, os.Symlink(filepath.Join(dir, "v1"), file+".link"))
			require.NoError(t, os.Rename(file+".link", file))
		},
	} {
		change()
		<-changed
	}
	select {
	case <-changed:
		t.Fatal("told twice")
	default:
	}
	none, err := service.Watch(ctx, "", slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.Nil(t, none)
	_, err = service.Watch(ctx, filepath.Join(dir, "absent", "edge.yaml"), slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, "absent")
	cancel()
}
