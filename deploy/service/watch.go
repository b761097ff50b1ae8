package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long a file must have been left alone before a change of it is
// told: an editor empties it before it writes.
const settle = 200 * time.Millisecond

// Watch tells, on the channel, that file was written, replaced, or that a link on
// its way now leads elsewhere (as Kubernetes does it), until ctx ends. Changes
// that follow each other closely are told once. No file: nothing is ever told.
//
// The rule is that of viper's WatchConfig, which is not used itself: it ends for
// good when the file is gone for a moment, ends the process when the system has
// no more watches, and cannot be stopped.
func Watch(ctx context.Context, file string, log *slog.Logger) (<-chan struct{}, error) {
	if file == "" {
		return nil, nil
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watching %s: %w", file, err)
	}
	file = filepath.Clean(file)
	// The folder, since a file that is replaced is another file.
	if err := watcher.Add(filepath.Dir(file)); err != nil {
		return nil, fmt.Errorf("watching %s: %w", file, errors.Join(err, watcher.Close()))
	}
	changed := make(chan struct{}, 1)
	go func() {
		defer func() { _ = watcher.Close() }() // it ends all the same
		real, _ := filepath.EvalSymlinks(file)
		quiet := time.NewTimer(time.Hour)
		quiet.Stop()
		defer quiet.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case err := <-watcher.Errors:
				log.Warn("watching a file", "file", file, "error", err)
			case e := <-watcher.Events:
				now, _ := filepath.EvalSymlinks(file)
				written := filepath.Clean(e.Name) == file && (e.Has(fsnotify.Write) || e.Has(fsnotify.Create))
				if written || now != "" && now != real {
					real = now
					quiet.Reset(settle)
				}
			case <-quiet.C:
				select {
				case changed <- struct{}{}:
				default: // told already, and not looked at yet
				}
			}
		}
	}()
	return changed, nil
}
