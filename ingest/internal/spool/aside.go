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

// Refuse sets aside a record that the log will never take, with the reason, as
// a line of the file refused.ndjson. It is on the disk when Refuse returns nil.
func (s *Store) Refuse(r *kgo.Record, reason error) error {
	e, now := Export(r), s.now().UTC()
	e.Reason, e.Refused = reason.Error(), &now
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("spool: setting aside a refused record: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(s.cfg.Dir, refusedFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err == nil {
		_, err = f.Write(append(line, '\n'))
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err != nil {
		return fmt.Errorf("spool: setting aside a refused record: %w", err)
	}
	s.mu.Lock()
	s.counts.Aside++
	s.mu.Unlock()
	return nil
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
	if err := os.WriteFile(filepath.Join(cfg.Dir, "edge"), []byte(name+"\n"), 0o644); err != nil {
		return "", fmt.Errorf("spool: the edge's name: %w", err)
	}
	return name, nil
}

func edgeFile(dir string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, "edge"))
	return strings.TrimSpace(string(b)), err
}
