// Package install fetches the ClickHouse engine, libchdb, with npm and checks
// that it is the one this project was written for.
package install

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"sluice/deploy/local/lock"
)

// The engine: what package.json names, and what must come of it.
const (
	pkg           = "@chdb/lib-linux-x64-gnu"
	version       = "26.7.3-stable.1"
	digest        = "36ad4e999882821ef13cf2d0f52c93f48e6ee1b4498b35a201c23ce4b8d15bf5"
	downloadBytes = 178_000_000
	unpackedBytes = 569_043_000
)

//go:embed package.json
var packageJSON []byte

//go:embed package-lock.json
var packageLock []byte

// Dir is where the engine of a working copy is installed.
func Dir(root string) string { return filepath.Join(root, ".local", "engine-lib") }

// Library is the shared library in an installed dir.
func Library(dir string) string {
	return filepath.Join(dir, "node_modules", filepath.FromSlash(pkg), "libchdb.so")
}

// installer installs into dir. Tests put other things in place of the real
// npm and the real engine.
type installer struct {
	dir    string
	digest string
	npm    string
	report *reporter
}

// Ensure makes sure that dir holds the engine, and returns the library's path.
// What takes long is told on out: a bar on a terminal, else a line every few
// seconds. The library's checksum is verified once and then remembered by size
// and time of change. An install that was interrupted is done anew; one that
// another process is doing is waited for.
func Ensure(ctx context.Context, dir string, out *os.File) (library string, err error) {
	i := installer{dir: dir, digest: digest, npm: "npm", report: newReporter(out)}
	return i.ensure(ctx)
}

func (i installer) ensure(ctx context.Context) (string, error) {
	library := Library(i.dir)
	if i.known(library) {
		return library, nil
	}
	if err := supported(); err != nil {
		return "", err
	}
	if err := os.MkdirAll(i.dir, 0o755); err != nil {
		return "", fmt.Errorf("installing the ClickHouse engine: %w", err)
	}
	held, err := i.lock()
	if err != nil {
		return "", fmt.Errorf("installing the ClickHouse engine: %w", err)
	}
	defer func() { _ = held.Release() }() // its file needs nothing more
	if i.known(library) {
		return library, nil // another process was quicker
	}
	if _, err := os.Stat(library); err == nil {
		if err = i.check(library); err == nil {
			return library, i.remember(library)
		}
		i.report.say("%v: installing it anew", err)
	}
	if err := i.fetch(ctx); err != nil {
		return "", fmt.Errorf("installing the ClickHouse engine: %w", err)
	}
	return library, i.remember(library)
}

// supported refuses machines for which the library is not built.
func supported() error {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return fmt.Errorf("the local ClickHouse engine is built for Linux on x86-64 only, and this is %s on %s: use compose.yaml here", runtime.GOOS, runtime.GOARCH)
	}
	if _, err := os.Stat("/lib64/ld-linux-x86-64.so.2"); err != nil {
		return errors.New("the local ClickHouse engine needs glibc, which this Linux does not have (Alpine has musl): use compose.yaml here")
	}
	return nil
}

func (i installer) lock() (*lock.Lock, error) {
	path := filepath.Join(i.dir, "lock")
	l, err := lock.Try(path)
	var held *lock.HeldError
	if errors.As(err, &held) {
		i.report.say("process %d is installing the ClickHouse engine: waiting for it", held.PID)
		return lock.Wait(path)
	}
	return l, err
}

// fetch runs npm in a directory beside the final one and moves the outcome
// into place when it is whole and checked.
func (i installer) fetch(ctx context.Context) error {
	if _, err := exec.LookPath(i.npm); err != nil {
		return errors.New("npm is not on the PATH: install Node.js 18 or newer, which brings it")
	}
	leftover, err := filepath.Glob(filepath.Join(i.dir, "new-*"))
	if err != nil {
		return err
	}
	for _, path := range leftover {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	fresh, err := os.MkdirTemp(i.dir, "new-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(fresh) }() // or the next install does
	for name, b := range map[string][]byte{"package.json": packageJSON, "package-lock.json": packageLock} {
		if err := os.WriteFile(filepath.Join(fresh, name), b, 0o644); err != nil {
			return err
		}
	}
	i.report.say("fetching the ClickHouse engine: %s %s by npm, %d MB to download, %d MB on disk", pkg, version, downloadBytes/1_000_000, unpackedBytes/1_000_000)
	if err := i.runNPM(ctx, fresh); err != nil {
		return err
	}
	i.report.say("checking its sha256")
	if err := i.check(Library(fresh)); err != nil {
		return err
	}
	final := filepath.Join(i.dir, "node_modules")
	if err := os.RemoveAll(final); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(fresh, "node_modules"), final); err != nil {
		return err
	}
	i.report.say("the ClickHouse engine is installed")
	return nil
}

func (i installer) runNPM(ctx context.Context, dir string) error {
	var output strings.Builder
	cmd := exec.CommandContext(ctx, i.npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = &output, &output
	// npm is a script that starts node: both must end.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	stop := i.report.follow(dir, unpackedBytes)
	err := cmd.Run()
	stop()
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted: it starts anew the next time: %w", context.Cause(ctx))
	}
	if err != nil {
		return fmt.Errorf("npm ci: %w\n%s", err, strings.TrimSpace(output.String()))
	}
	return nil
}

func (i installer) check(library string) error {
	f, err := os.Open(library)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != i.digest {
		return fmt.Errorf("%s has the sha256 %s, not %s", library, got, i.digest)
	}
	return nil
}

// stamp is what is remembered of a library that was checked.
type stamp struct {
	SHA256  string    `json:"sha256"`
	Bytes   int64     `json:"bytes"`
	Changed time.Time `json:"changed"`
}

func (i installer) stampOf(library string) (stamp, error) {
	info, err := os.Stat(library)
	if err != nil {
		return stamp{}, err
	}
	return stamp{i.digest, info.Size(), info.ModTime().UTC()}, nil
}

// known says that library is there as it was when it was last checked.
func (i installer) known(library string) bool {
	now, err := i.stampOf(library)
	if err != nil {
		return false
	}
	var then stamp
	b, err := os.ReadFile(filepath.Join(i.dir, "checked.json"))
	return err == nil && json.Unmarshal(b, &then) == nil && then == now
}

func (i installer) remember(library string) error {
	s, err := i.stampOf(library)
	if err != nil {
		return err
	}
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(i.dir, "checked.json"), append(b, '\n'), 0o644)
}
