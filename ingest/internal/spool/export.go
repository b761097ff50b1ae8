package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Walk calls each with every record in the folder that the log has not
// acknowledged, oldest first, and returns how many bytes it could not read. It
// changes nothing and takes no lock, so it may be called beside the edge that
// has the folder: then it sees each record that was there throughout, and maybe
// some that came or went meanwhile. The record must not be kept.
func Walk(dir string, each func(*kgo.Record) error) (unreadable int64, err error) {
	names, err := segmentFiles(dir)
	if err != nil {
		return 0, err
	}
	at, err := peekCursor(dir)
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		number, _ := segmentNumber(name)
		if number < at.segment {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it went meanwhile
		}
		if err != nil {
			return unreadable, fmt.Errorf("spool: %w", err)
		}
		from := int64(0)
		if number == at.segment && at.offset <= int64(len(b)) {
			from = at.offset
		}
		n, err := walk(b[from:], each)
		unreadable += n
		if err != nil {
			return unreadable, err
		}
	}
	return unreadable, nil
}

// walk calls each with the records in b, the rest of a segment.
func walk(b []byte, each func(*kgo.Record) error) (unreadable int64, err error) {
	for len(b) > 0 {
		body, n, err := frame(b)
		if err == nil && body[0] == kindFooter {
			return unreadable, nil
		}
		if err == nil {
			if r, err := parseRecord(body); err == nil {
				if err := each(r); err != nil {
					return unreadable, err
				}
				b = b[n:]
				continue
			}
		}
		next := resync(b)
		if next < 0 {
			next = len(b)
		}
		unreadable += int64(next)
		b = b[next:]
	}
	return unreadable, nil
}

// Peek tells how the folder is without taking it, for a command beside the edge
// or without one. It reads every record.
func Peek(cfg Config) (Status, error) {
	st := Status{Dir: cfg.Dir, LimitBytes: cfg.Bytes}
	if b, err := edgeFile(cfg.Dir); err == nil {
		st.Edge = b
	}
	names, err := segmentFiles(cfg.Dir)
	if err != nil {
		return st, err
	}
	for _, name := range names {
		if info, err := os.Stat(filepath.Join(cfg.Dir, name)); err == nil {
			st.Bytes += info.Size()
			st.Segments++
		}
	}
	_, err = Walk(cfg.Dir, func(r *kgo.Record) error {
		st.Records++
		if at := r.Timestamp.UTC(); st.Oldest == nil || at.Before(*st.Oldest) {
			st.Oldest = &at
		}
		return nil
	})
	if err != nil {
		return st, err
	}
	st.Kept, err = KeptIn(cfg.Dir)
	return st, err
}
