package spool

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Exported is a record as JSON: one line of an export, or of the file of those
// that the log refuses for good.
type Exported struct {
	Key       string            `json:"key"`
	Timestamp time.Time         `json:"timestamp"`
	Headers   map[string]string `json:"headers,omitempty"`
	// Value is the event; ValueBytes instead when it is not JSON.
	Value      json.RawMessage `json:"value,omitempty"`
	ValueBytes []byte          `json:"value_bytes,omitempty"`
	// Reason and Refused are set of a record that the log refuses.
	Reason  string     `json:"reason,omitempty"`
	Refused *time.Time `json:"refused,omitempty"`
}

// Export makes r a line's object.
func Export(r *kgo.Record) Exported {
	e := Exported{Key: string(r.Key), Timestamp: r.Timestamp.UTC()}
	if utf8.Valid(r.Value) && json.Valid(r.Value) {
		e.Value = r.Value
	} else {
		e.ValueBytes = r.Value
	}
	for _, h := range r.Headers {
		if e.Headers == nil {
			e.Headers = map[string]string{}
		}
		e.Headers[h.Key] = string(h.Value)
	}
	return e
}

const refusedFile = "refused.ndjson"

// asideFile is the file of refused records.
type asideFile interface {
	file
	ReadAt(b []byte, at int64) (int, error)
	Stat() (os.FileInfo, error)
}

// SetAside takes the chunk's record i out of the way, since the log will never
// take it: with the reason it becomes a line of refused.ndjson, synced when
// SetAside returns. When the disk takes no such line, the record waits in its
// segment until it does, also across a crash, and nothing waits for it. An error
// means that too many wait like that.
func (s *Store) SetAside(c *Chunk, i int, reason error) error {
	at := c.places[i]
	if s.passed[at.offset] {
		return nil
	}
	r := c.Records[i]
	text := reason.Error()
	if len(text) > maxReasonBytes {
		text = strings.ToValidUTF8(text[:maxReasonBytes], "")
	}
	if err := s.refuse(r, text); err != nil {
		if err := s.owe(owed{seg: c.seg, at: at, bytes: frameBytes(r), reason: text}, err); err != nil {
			return err
		}
	}
	if s.passed == nil {
		s.passed = map[int64]bool{}
	}
	s.passed[at.offset] = true
	return nil
}

// maxReasonBytes bounds what is kept of the log's words.
const maxReasonBytes = 500

// aside tells whether the chunk's record i has been set aside: the same chunk
// may come again.
func (s *Store) aside(c *Chunk, i int) bool { return s.passed[c.places[i].offset] }

// refuse writes r as a line of refused.ndjson. A line that is not whole is taken
// back, or else ended before the next, so that it spoils no other.
func (s *Store) refuse(r *kgo.Record, reason string) error {
	e, now := Export(r), s.now().UTC()
	e.Reason, e.Refused = reason, &now
	line, err := json.Marshal(e)
	if err == nil {
		err = s.appendLine(append(line, '\n'))
	}
	if err != nil {
		return fmt.Errorf("spool: setting aside a refused record: %w", err)
	}
	s.mu.Lock()
	s.counts.Aside++
	s.mu.Unlock()
	return nil
}

func (s *Store) appendLine(line []byte) error {
	s.lines.Lock()
	defer s.lines.Unlock()
	f, err := s.cfg.openAside(filepath.Join(s.cfg.Dir, refusedFile))
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	size := info.Size()
	if last := []byte{'\n'}; size > 0 {
		if _, err := f.ReadAt(last, size-1); err != nil {
			return errors.Join(err, f.Close())
		}
		if last[0] != '\n' { // a crash cut the last line off
			line = append([]byte{'\n'}, line...)
		}
	}
	_, err = f.Write(line)
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		err = errors.Join(err, f.Truncate(size))
	}
	err = errors.Join(err, f.Close())
	if err == nil && size == 0 {
		err = s.cfg.syncDir(s.cfg.Dir)
	}
	return err
}

// KeptIn counts what stands aside in the folder dir.
func KeptIn(dir string) (Kept, error) {
	var k Kept
	entries, err := os.ReadDir(filepath.Join(dir, damagedDir))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return k, fmt.Errorf("spool: %w", err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			k.DamagedFiles++
			k.DamagedBytes += info.Size()
		}
	}
	f, err := os.Open(filepath.Join(dir, refusedFile))
	if errors.Is(err, os.ErrNotExist) {
		return k, nil
	}
	if err != nil {
		return k, fmt.Errorf("spool: %w", err)
	}
	defer f.Close()
	b := make([]byte, 64<<10)
	for {
		n, err := f.Read(b)
		k.RefusedRecords += int64(bytes.Count(b[:n], []byte{'\n'}))
		if errors.Is(err, io.EOF) {
			return k, nil
		}
		if err != nil {
			return k, fmt.Errorf("spool: %w", err)
		}
	}
}

// edgeName is the name in the folder's file "edge", made when there is none:
// the machine's name and something random, so that it stays with the folder
// wherever that goes.
func edgeName(cfg Config) (string, error) {
	if cfg.Edge != "" {
		return cfg.Edge, nil
	}
	name, err := edgeFile(cfg.Dir)
	if err == nil && name != "" {
		return name, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("spool: the edge's name: %w", err)
	}
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "edge"
	}
	name = host + "-" + uuid.NewString()[:8]
	if err := writeSynced(filepath.Join(cfg.Dir, "edge"), []byte(name+"\n")); err != nil {
		return "", fmt.Errorf("spool: the edge's name: %w", err)
	}
	return name, nil
}

// writeSynced makes b what stands in the file at path, and syncs it.
func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

func edgeFile(dir string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, "edge"))
	return strings.TrimSpace(string(b)), err
}
