package scratch

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/docker/go-units"
	"github.com/prometheus/procfs"

	"sluice/deploy/local/engine/install"
	"sluice/deploy/local/lifeline"
)

// Engine is a running one.
type Engine struct {
	// URL is http://127.0.0.1:PORT.
	URL string
	// PID is its process.
	PID int

	stop func() error
}

// Stop ends it. It must be called once.
func (e *Engine) Stop() error { return e.stop() }

// CPU is the user and system time that a process has taken, to the hundredth of a
// second.
func CPU(pid int) (time.Duration, error) {
	proc, err := procfs.NewProc(pid)
	if err != nil {
		return 0, fmt.Errorf("process %d: %w", pid, err)
	}
	stat, err := proc.Stat()
	if err != nil {
		return 0, fmt.Errorf("process %d: %w", pid, err)
	}
	return time.Duration(stat.CPUTime() * float64(time.Second)), nil
}

// Room refuses a disk that would be filled by need bytes in dir, and tells words how
// much there is.
func Room(dir string, need uint64, words io.Writer) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("the room on the disk of %s: %w", dir, err)
	}
	free := fs.Bavail * uint64(fs.Bsize)
	fmt.Fprintf(words, "disk: at most %s of %s free in %s\n", units.HumanSize(float64(need)), units.HumanSize(float64(free)), dir)
	if need > free*9/10 {
		return fmt.Errorf("too little room in %s: %s of %s free (ask for fewer rows: ROWS=)", dir, units.HumanSize(float64(need)), units.HumanSize(float64(free)))
	}
	return nil
}

// Start starts the engine that "make build engine" left under root, on a free port
// and the data in dir, which must be there. It ends with this process at the latest.
func Start(ctx context.Context, root, dir string) (*Engine, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(root, ".local", "bin", "engine"),
		"--listen", "127.0.0.1:0", "--library", install.Library(install.Dir(root)), "--data", filepath.Join(dir, "data"), "--"+lifeline.Flag)
	cmd.Dir = dir
	// What it has in flight is not wanted; a SIGTERM would wait for it.
	log, err := os.Create(filepath.Join(dir, "engine.log"))
	if err != nil {
		return nil, err
	}
	cmd.Stderr = log
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("the engine: %w (make build engine)", err)
	}
	stop := func() error {
		defer log.Close()
		_ = in.Close() // which tells it to stop
		if err := cmd.Wait(); err != nil && ctx.Err() == nil {
			return fmt.Errorf("the engine: %w", err)
		}
		return nil
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		text, _ := os.ReadFile(log.Name()) // it adds to the error only
		return nil, errors.Join(fmt.Errorf("the engine did not start: %w: %s", err, text), stop())
	}
	return &Engine{URL: strings.TrimSpace(line), PID: cmd.Process.Pid, stop: stop}, nil
}
