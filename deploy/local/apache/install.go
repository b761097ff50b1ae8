package apache

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"sluice/deploy/local/lock"
)

// Version is the Kafka that is installed, as pom.xml names it.
const Version = "4.3.1"

//go:embed pom.xml
var pom []byte

// Dir is where a working copy keeps Kafka's jars.
func Dir(root string) string { return filepath.Join(root, ".local", "kafka-lib", Version) }

// installer installs into dir. Tests put another program in mvn's place.
type installer struct {
	dir string
	mvn string
	out io.Writer
}

// Ensure makes sure that dir holds Kafka's jars, fetched by Maven, and that
// there is a Java to run them. What takes long is told on out. It costs nothing
// when all is there; an install that was interrupted is done anew, and one that
// another process is at is waited for.
func Ensure(ctx context.Context, dir string, out io.Writer) (Library, error) {
	java, err := findJava(ctx)
	if err != nil {
		return Library{}, err
	}
	if err := (installer{dir: dir, mvn: "mvn", out: out}).ensure(ctx); err != nil {
		return Library{}, fmt.Errorf("installing Apache Kafka %s: %w", Version, err)
	}
	return Library{Java: java, Jars: filepath.Join(dir, "jars")}, nil
}

// Library is an installed Kafka.
type Library struct {
	Java string // the program
	Jars string // the directory
}

func (i installer) ensure(ctx context.Context) error {
	if i.known() {
		return nil
	}
	if err := os.MkdirAll(i.dir, 0o755); err != nil {
		return err
	}
	path := filepath.Join(i.dir, "lock")
	held, err := lock.Try(path)
	if other := (*lock.HeldError)(nil); errors.As(err, &other) {
		fmt.Fprintf(i.out, "process %d is installing Apache Kafka: waiting for it\n", other.PID)
		held, err = lock.Wait(path)
	}
	if err != nil {
		return err
	}
	defer func() { _ = held.Release() }() // its file needs nothing more
	if i.known() {
		return nil // another process was quicker
	}
	return i.fetch(ctx)
}

// fetch has Maven copy the jars into a directory beside the final one, moves
// them into place when all are there, and then says so in the marker.
func (i installer) fetch(ctx context.Context) error {
	if _, err := exec.LookPath(i.mvn); err != nil {
		return errors.New("mvn is not on the PATH: install Maven 3.6 or newer (Debian: apt-get install maven)")
	}
	fresh, final := filepath.Join(i.dir, "new"), filepath.Join(i.dir, "jars")
	for _, old := range []string{fresh, final, i.marker()} {
		if err := os.RemoveAll(old); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(i.dir, "pom.xml"), pom, 0o644); err != nil {
		return err
	}
	begun := time.Now()
	fmt.Fprintf(i.out, "fetching Apache Kafka %s by Maven: 92 jars, 54 MB; once, up to a minute or two\n", Version)
	var output strings.Builder
	cmd := exec.CommandContext(ctx, i.mvn, "-q", "-B", "-C", "dependency:copy-dependencies",
		"-DincludeScope=runtime", "-DoutputDirectory="+fresh)
	cmd.Dir = i.dir
	cmd.Stdout, cmd.Stderr = &output, &output
	// mvn is a script that starts java: both must end.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted: it starts anew the next time: %w", context.Cause(ctx))
	}
	if err != nil {
		return fmt.Errorf("mvn dependency:copy-dependencies: %w\n%s", err, strings.TrimSpace(output.String()))
	}
	for _, jar := range []string{"kafka_2.13-" + Version + ".jar", "kafka-tools-" + Version + ".jar"} {
		if _, err := os.Stat(filepath.Join(fresh, jar)); err != nil {
			return fmt.Errorf("maven said it was done, but: %w", err)
		}
	}
	if err := os.Rename(fresh, final); err != nil {
		return err
	}
	if err := os.WriteFile(i.marker(), []byte(pomDigest()+"\n"), 0o644); err != nil {
		return err
	}
	fmt.Fprintf(i.out, "Apache Kafka is installed, after %s\n", time.Since(begun).Round(100*time.Millisecond))
	return nil
}

// marker is written last: it says that the jars of the pom with that digest are
// all there.
func (i installer) marker() string { return filepath.Join(i.dir, "installed") }

func (i installer) known() bool {
	b, err := os.ReadFile(i.marker())
	return err == nil && strings.TrimSpace(string(b)) == pomDigest()
}

func pomDigest() string {
	sum := sha256.Sum256(pom)
	return hex.EncodeToString(sum[:])
}
