package install

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const content = "an engine"

// npm is a stand-in that "installs" content, and counts its calls.
const npm = `#!/bin/sh
set -e
echo "$@" >> "$CALLS"
test -f package-lock.json
mkdir -p node_modules/@chdb/lib-linux-x64-gnu
printf 'an eng' > node_modules/@chdb/lib-linux-x64-gnu/libchdb.so
if [ -n "$HANG" ]; then touch "$HANG"; sleep 600; fi
printf ine >> node_modules/@chdb/lib-linux-x64-gnu/libchdb.so
`

type fixture struct {
	installer
	t     *testing.T
	calls string
	out   string
}

func setUp(t *testing.T, script string) fixture {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "npm")
	require.NoError(t, os.WriteFile(path, []byte(script), 0o755))
	out, err := os.Create(filepath.Join(dir, "out"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, out.Close()) })
	sum := sha256.Sum256([]byte(content))
	f := fixture{installer{filepath.Join(dir, "lib"), hex.EncodeToString(sum[:]), path, newReporter(out)}, t, filepath.Join(dir, "calls"), out.Name()}
	t.Setenv("CALLS", f.calls)
	return f
}

func (f fixture) npmCalls() int {
	b, err := os.ReadFile(f.calls)
	if errors.Is(err, os.ErrNotExist) {
		return 0
	}
	require.NoError(f.t, err)
	return strings.Count(string(b), "ci --ignore-scripts")
}

func (f fixture) said() string {
	b, err := os.ReadFile(f.out)
	require.NoError(f.t, err)
	return string(b)
}

func (f fixture) requireInstalled(library string, err error) {
	f.t.Helper()
	require.NoError(f.t, err)
	b, err := os.ReadFile(library)
	require.NoError(f.t, err)
	require.Equal(f.t, content, string(b))
	left, err := filepath.Glob(filepath.Join(f.dir, "new-*"))
	require.NoError(f.t, err)
	require.Empty(f.t, left)
}

func TestInstallOnce(t *testing.T) {
	f := setUp(t, npm)
	f.requireInstalled(f.ensure(t.Context()))
	require.Contains(t, f.said(), "178 MB to download, 569 MB on disk")
	f.requireInstalled(f.ensure(t.Context()))
	require.Equal(t, 1, f.npmCalls(), "the second call fetches nothing")

	// The same library, put there by other means: checked, not fetched.
	require.NoError(t, os.Remove(filepath.Join(f.dir, "checked.json")))
	f.requireInstalled(f.ensure(t.Context()))
	require.Equal(t, 1, f.npmCalls())

	// Something else in its place.
	require.NoError(t, os.WriteFile(Library(f.dir), []byte("something else"), 0o644))
	f.requireInstalled(f.ensure(t.Context()))
	require.Equal(t, 2, f.npmCalls())
	require.Contains(t, f.said(), "installing it anew")
}

func TestInstallInterrupted(t *testing.T) {
	f := setUp(t, npm)
	hang := filepath.Join(t.TempDir(), "hangs")
	t.Setenv("HANG", hang)
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error)
	go func() { _, err := f.ensure(ctx); done <- err }()
	require.Eventually(t, func() bool { _, err := os.Stat(hang); return err == nil }, 20*time.Second, 5*time.Millisecond)
	why := errors.New("Ctrl-C")
	cancel(why)
	require.ErrorIs(t, <-done, why)
	require.NoFileExists(t, Library(f.dir))

	// One that had no chance to tidy up.
	require.NoError(t, os.MkdirAll(filepath.Join(f.dir, "new-1", "node_modules"), 0o755))
	t.Setenv("HANG", "")
	f.requireInstalled(f.ensure(t.Context()))
}

func TestInstallTwiceAtOnce(t *testing.T) {
	f := setUp(t, npm)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { _, err := f.ensure(t.Context()); require.NoError(t, err) })
	}
	wg.Wait()
	require.Equal(t, 1, f.npmCalls())
	f.requireInstalled(f.ensure(t.Context()))
}

func TestInstallRefuses(t *testing.T) {
	f := setUp(t, npm)
	f.digest = strings.Repeat("0", 64)
	_, err := f.ensure(t.Context())
	require.ErrorContains(t, err, "not 0000")
	require.NoFileExists(t, Library(f.dir), "what was not checked is not left in place")

	f = setUp(t, "#!/bin/sh\necho the reason >&2\nexit 3\n")
	_, err = f.ensure(t.Context())
	require.ErrorContains(t, err, "the reason")

	f.npm = "no-such-npm"
	_, err = f.ensure(t.Context())
	require.ErrorContains(t, err, "install Node.js")
}

// The lock file must hold for every registry: it names what, not where.
func TestLockNamesNoAddress(t *testing.T) {
	require.NotContains(t, string(packageLock), "resolved")
	require.NotContains(t, string(packageLock), "://")
	var l struct {
		Packages map[string]struct{ Version string }
	}
	require.NoError(t, json.Unmarshal(packageLock, &l))
	require.Equal(t, version, l.Packages["node_modules/"+pkg].Version)
}
