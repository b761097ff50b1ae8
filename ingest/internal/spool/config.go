package spool

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// Config says where the spool is, and when it is used.
type Config struct {
	// Dir is the folder. One process at a time has it.
	Dir string
	// Bytes bounds the segment files together. What was set aside counts
	// beside it. Default 1 GiB.
	Bytes int64
	// SegmentBytes is the size at which a segment is closed and the next
	// begun, and so the unit in which room comes back. Default: an eighth of
	// Bytes, at most 16 MiB.
	SegmentBytes int64
	// After is how long a post waits for the log's acknowledgement before its
	// event goes to the spool. Default 250ms.
	After time.Duration
	// DrainBytes is the most bytes a second that are sent to the log from the
	// spool, beside live traffic. Default 16 MiB.
	DrainBytes int64
	// Edge names this edge in its watermarks. Empty: the name in the folder,
	// made when the folder is.
	Edge string

	// open makes or opens a file for writing; tests put a failing one here.
	open func(path string) (file, error)
	// openAside opens the file of refused records, to append to.
	openAside func(path string) (asideFile, error)
	// syncDir syncs a folder's list of files.
	syncDir func(dir string) error
	// noSync leaves out what only a power failure would miss, for tests that
	// start hundreds of times.
	noSync bool
}

// file is what is written to.
type file interface {
	Write(b []byte) (int, error)
	Sync() error
	Truncate(size int64) error
	Close() error
}

// DefaultConfig is a spool in dir with the defaults.
func DefaultConfig(dir string) Config {
	return Config{Dir: dir, Bytes: 1 << 30, After: 250 * time.Millisecond, DrainBytes: 16 << 20}
}

const (
	// MinBytes is the least a spool may be bounded to: room for the largest
	// record twice.
	MinBytes        = 8 << 20
	maxSegmentBytes = 64 << 20
)

// Validate tells what is wrong.
func (c Config) Validate() error {
	switch {
	case c.Dir == "":
		return errors.New("spool.dir must name a folder")
	case c.Bytes < MinBytes:
		return fmt.Errorf("spool.bytes is %d, want at least %d", c.Bytes, int64(MinBytes))
	case c.SegmentBytes < 0 || c.SegmentBytes > maxSegmentBytes:
		return fmt.Errorf("segment bytes are %d, want at most %d", c.SegmentBytes, int64(maxSegmentBytes))
	case c.After < time.Millisecond:
		return fmt.Errorf("spool.after is %v, want at least 1ms", c.After)
	case c.DrainBytes < 1<<10:
		return fmt.Errorf("spool.drain_bytes is %d, want at least 1024", c.DrainBytes)
	}
	return nil
}

func (c Config) complete() Config {
	if c.SegmentBytes == 0 {
		c.SegmentBytes = min(c.Bytes/8, 16<<20)
	}
	if c.open == nil {
		c.open = func(path string) (file, error) {
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
			if err == nil && c.noSync {
				return unsynced{f}, nil
			}
			return f, err
		}
	}
	if c.openAside == nil {
		c.openAside = func(path string) (asideFile, error) {
			return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
		}
	}
	if c.noSync {
		c.syncDir = func(string) error { return nil }
	}
	if c.syncDir == nil {
		c.syncDir = syncDir
	}
	return c
}

type unsynced struct{ *os.File }

func (unsynced) Sync() error { return nil }
