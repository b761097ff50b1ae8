package reload

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"sluice/ingest/internal/logtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// watched is a directory and a file under watch, and how often each was read.
type watched struct {
	dir, file   string
	dirs, files atomic.Int32
	w           *Watcher
	ended       chan struct{}
}

func watch(t *testing.T) *watched {
	t.Helper()
	root := t.TempDir()
	w := &watched{dir: filepath.Join(root, "schemas"), file: filepath.Join(root, "keys", "keys.yaml"), ended: make(chan struct{})}
	require.NoError(t, os.MkdirAll(w.dir, 0o700))
	require.NoError(t, os.MkdirAll(filepath.Dir(w.file), 0o700))
	require.NoError(t, os.WriteFile(w.file, nil, 0o600))
	var err error
	w.w, err = New(logtest.New(io.Discard))
	require.NoError(t, err)
	w.w.Add(Source{Name: "directory", Paths: []string{w.dir}, Reload: func() error { w.dirs.Add(1); return nil }})
	w.w.Add(Source{Name: "file", Paths: []string{w.file}, Reload: func() error { w.files.Add(1); return errors.New("is wrong") }})
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		defer close(w.ended)
		w.w.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-w.ended
		w.w.Close()
		w.w.Close()
	})
	return w
}

func (w *watched) becomes(t *testing.T, n *atomic.Int32, what string) {
	t.Helper()
	require.Eventually(t, func() bool { return n.Load() > 0 }, 20*time.Second, 10*time.Millisecond, what)
}

func TestDirectory(t *testing.T) {
	w := watch(t)
	path := filepath.Join(w.dir, "a.json")
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"a file written", func() error { return os.WriteFile(path, []byte("{}"), 0o600) }},
		{"written again", func() error { return os.WriteFile(path, []byte("[]"), 0o600) }},
		{"renamed", func() error { return os.Rename(path, path+"l") }},
		{"removed", func() error { return os.Remove(path + "l") }},
		{"links switched, as Kubernetes does", func() error {
			return errors.Join(os.Symlink("x", filepath.Join(w.dir, "..new")), os.Rename(filepath.Join(w.dir, "..new"), filepath.Join(w.dir, "..data")))
		}},
	} {
		w.dirs.Store(0)
		require.NoError(t, step.do())
		w.becomes(t, &w.dirs, step.what)
	}
	require.Zero(t, w.files.Load(), "a change of another source read the file")
}

func TestFile(t *testing.T) {
	w := watch(t)
	require.NoError(t, os.WriteFile(w.file+".new", []byte("x"), 0o600))
	require.NoError(t, os.Rename(w.file+".new", w.file))
	w.becomes(t, &w.files, "replaced")
	// After it is gone and came back it is still watched; that its reading fails
	// changes nothing.
	require.NoError(t, os.Remove(w.file))
	w.files.Store(0)
	require.NoError(t, os.WriteFile(w.file, []byte("y"), 0o600))
	w.becomes(t, &w.files, "made anew")
	require.Zero(t, w.dirs.Load())
}

// TestLinks: a file is read again when a link takes its place, when a link on its
// way leads elsewhere, under any name, and when what it leads to then is written.
func TestLinks(t *testing.T) {
	w := watch(t)
	dir := filepath.Dir(w.file)
	for _, v := range []string{"v1", "v2"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, v), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, v, "keys.yaml"), []byte(v), 0o600))
	}
	link := func(to, at string) error {
		at = filepath.Join(dir, at)
		return errors.Join(os.Symlink(to, at+".new"), os.Rename(at+".new", at))
	}
	require.NoError(t, link("v1", "current"))
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"a link in its place", func() error { return link("current/keys.yaml", "keys.yaml") }},
		{"a link on its way", func() error { return link("v2", "current") }},
		{"written where it leads", func() error { return os.WriteFile(filepath.Join(dir, "v2", "keys.yaml"), []byte("x"), 0o600) }},
	} {
		time.Sleep(settle) // what was told of before
		w.files.Store(0)
		require.NoError(t, step.do())
		w.becomes(t, &w.files, step.what)
	}
}

// TestRelative: a file named by a relative path, as --config edge.yaml, was not
// seen to be replaced: its folder tells of "./edge.yaml".
func TestRelative(t *testing.T) {
	t.Chdir(t.TempDir())
	w, err := New(logtest.New(io.Discard))
	require.NoError(t, err)
	defer w.Close()
	require.NoError(t, os.WriteFile("edge.yaml", nil, 0o600))
	read := make(chan struct{}, 16)
	w.Add(Source{Name: "configuration", Paths: []string{"edge.yaml"}, Reload: func() error { read <- struct{}{}; return nil }})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.Run(ctx)
	}()
	for range 2 {
		require.NoError(t, os.WriteFile("edge.yaml.new", []byte("a: 1"), 0o600))
		require.NoError(t, os.Rename("edge.yaml.new", "edge.yaml"))
		<-read
	}
	stop()
	<-ended
}

func TestNow(t *testing.T) {
	w := watch(t)
	w.w.Now()
	w.becomes(t, &w.dirs, "directory")
	w.becomes(t, &w.files, "file")
}

// TestNoSuchPath: what cannot be watched is told of, and read on demand.
func TestNoSuchPath(t *testing.T) {
	w, err := New(logtest.New(io.Discard))
	require.NoError(t, err)
	defer w.Close()
	w.Add(Source{Name: "nothing", Paths: []string{"/nowhere/at/all"}, Reload: func() error { return nil }})
}
