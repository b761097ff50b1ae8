// Package reload calls what must be read again when files change: schemas, keys,
// certificates, the configuration. It is quick rather than certain: a network file system tells of
// no changes, so SIGHUP and the admin port do the same by hand.
package reload

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long nothing must change before files are read: who writes
// several of them, or one in pieces, or empties one before, is done by then.
const settle = 200 * time.Millisecond

// latest is the longest a change waits while others follow it.
const latest = 2 * time.Second

// Source is something that is read from files.
type Source struct {
	// Name is for the log.
	Name string
	// Paths are the files, or one directory.
	Paths []string
	// Reload reads them anew, and logs what is wrong itself.
	Reload func() error
}

// Watcher watches the folders in which sources lie, rather than the files: an
// editor, "ingest keys" and Kubernetes all replace a file instead of writing it.
//
// viper's WatchConfig, which could watch the configuration, is not used: it ends
// for good when the file is gone for a moment, ends the process when the system
// has no more watches, and cannot be stopped.
type Watcher struct {
	log     *slog.Logger
	sources []Source
	notify  *fsnotify.Watcher
	again   chan struct{}
	real    map[string]string // of each path, where its links lead
}

// New returns a watcher of nothing. It must be closed.
func New(log *slog.Logger) (*Watcher, error) {
	n, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watching files: %w", err)
	}
	return &Watcher{log: log, notify: n, again: make(chan struct{}, 1), real: map[string]string{}}, nil
}

// Add begins to watch s; before Run. A source that is read after Add is never left
// behind its files.
func (w *Watcher) Add(s Source) {
	w.sources = append(w.sources, s)
	for _, p := range s.Paths {
		w.moved(filepath.Clean(p))
		// A file's own watch ends with the file; its folder's does not.
		w.follow(p)
		w.follow(filepath.Dir(p))
	}
}

// follow watches what path leads to.
func (w *Watcher) follow(path string) {
	if err := w.notify.Add(path); err != nil {
		w.log.Warn("changes are not noticed by themselves: send SIGHUP after one", "path", path, "error", err)
	}
}

// Close ends the watcher. It can be called again.
func (w *Watcher) Close() {
	if err := w.notify.Close(); err != nil {
		w.log.Debug("watching files", "error", err)
	}
}

// Now has everything read again soon, as after a SIGHUP.
func (w *Watcher) Now() {
	select {
	case w.again <- struct{}{}:
	default: // it is about to be
	}
}

// Run reloads after changes until ctx ends.
func (w *Watcher) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	timer.Stop()
	defer timer.Stop()
	var since time.Time // of the first change that waits
	dirty := map[int]bool{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.again:
			for i := range w.sources {
				dirty[i] = true
			}
			timer.Reset(0)
		case e, ok := <-w.notify.Events:
			if !ok {
				return
			}
			if e.Op == fsnotify.Chmod || !w.mark(e.Name, dirty) {
				continue
			}
			if since.IsZero() {
				since = time.Now()
			}
			timer.Reset(min(settle, max(0, latest-time.Since(since))))
		case err, ok := <-w.notify.Errors:
			if !ok {
				return
			}
			// Events may be lost: read everything.
			w.log.Warn("watching files", "error", err)
			w.Now()
		case <-timer.C:
			since = time.Time{}
			for i, s := range w.sources {
				if dirty[i] {
					if err := s.Reload(); err != nil {
						w.log.Debug("not reloaded", "what", s.Name, "error", err)
					}
				}
			}
			clear(dirty)
		}
	}
}

// moved tells whether path's links lead elsewhere than when it was last asked; not
// when they lead nowhere.
func (w *Watcher) moved(path string) bool {
	now, err := filepath.EvalSymlinks(path)
	was := w.real[path]
	if err != nil || now == was {
		return false
	}
	w.real[path] = now
	return true
}

// mark notes which sources the change of name concerns: those it belongs to; those
// in whose folder something else with a dot in front changed, as Kubernetes
// switches the files it mounts, or a link that they are reached by.
func (w *Watcher) mark(name string, dirty map[int]bool) bool {
	name = filepath.Clean(name) // the folder "." tells of "./a"
	found := false
	for i, s := range w.sources {
		for _, p := range s.Paths {
			p = filepath.Clean(p)
			beside := filepath.Dir(name) == filepath.Dir(p)
			hidden := beside && strings.HasPrefix(filepath.Base(name), "..")
			linked := beside && w.moved(p)
			if linked && name != p {
				w.follow(p)
			}
			if name == p || filepath.Dir(name) == p || hidden || linked {
				dirty[i], found = true, true
			}
		}
	}
	return found
}
