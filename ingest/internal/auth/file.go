package auth

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"
)

// Entry is one key in the file.
type Entry struct {
	// ID names the key; it is part of its text.
	ID string `yaml:"id" json:"id"`
	// Name is for people.
	Name string `yaml:"name,omitempty" json:"name,omitempty"`
	// Hash is HMAC-SHA256 of the key's text with the pepper, hexadecimal.
	Hash string `yaml:"hash" json:"-"`
	// Sources are the sources that events may have: exact, or a prefix and an
	// asterisk ("shop-*"); "*" alone is every source. At least one.
	Sources []string `yaml:"sources" json:"sources"`
	// Rate is how many events a second the key may send in the long run; 0: as
	// many as it likes.
	Rate float64 `yaml:"rate,omitempty" json:"rate,omitempty"`
	// Burst is how many it may send at once after a pause. Default: twice Rate.
	Burst int `yaml:"burst,omitempty" json:"burst,omitempty"`
	// BodyBytes narrows the edge's bound on a request's body; 0 leaves it.
	BodyBytes int64 `yaml:"body_bytes,omitempty" json:"body_bytes,omitempty"`
	// Disabled keys are refused.
	Disabled bool `yaml:"disabled,omitempty" json:"disabled,omitempty"`
	// Created is when the key was made.
	Created time.Time `yaml:"created,omitempty" json:"created,omitzero"`
	// Expires is from when on the key is refused; zero: never.
	Expires time.Time `yaml:"expires,omitempty" json:"expires,omitzero"`
}

type fileForm struct {
	Keys []Entry `yaml:"keys"`
}

// maxFileBytes bounds the file of keys.
const maxFileBytes = 16 << 20

// ReadFile reads and checks the file of keys. One wrong entry makes the whole
// file wrong.
func ReadFile(path string) ([]Entry, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("the file of keys: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("the file of keys: %w", err)
	}
	if len(text) > maxFileBytes {
		return nil, fmt.Errorf("the file of keys %s has more than %d bytes", path, maxFileBytes)
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	var form fileForm
	if err := dec.Decode(&form); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("the file of keys %s: %w", path, err)
	}
	seen := map[string]bool{}
	var errs []error
	for i, e := range form.Keys {
		if err := e.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("key %d (%s): %w", i+1, e.ID, err))
		}
		if seen[e.ID] {
			errs = append(errs, fmt.Errorf("key %d: the id %s is there twice", i+1, e.ID))
		}
		seen[e.ID] = true
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("the file of keys %s: %w", path, err)
	}
	return form.Keys, nil
}

// Validate tells what is wrong with an entry.
func (e Entry) Validate() error {
	switch sum, err := hex.DecodeString(e.Hash); {
	case len(e.ID) != idChars:
		return fmt.Errorf("id has %d characters, want %d", len(e.ID), idChars)
	case err != nil || len(sum) != 32:
		return errors.New("hash: want 64 hexadecimal digits")
	case len(e.Sources) == 0:
		return errors.New("sources: want at least one, \"*\" for all")
	case math.IsNaN(e.Rate) || math.IsInf(e.Rate, 0): // YAML has both
		return fmt.Errorf("rate is %v, want a number of events a second, or none for no limit", e.Rate)
	case e.Rate < 0 || e.Burst < 0 || e.BodyBytes < 0:
		return errors.New("rate, burst and body_bytes must not be negative")
	case e.Burst > 0 && e.Rate == 0:
		return errors.New("burst without rate")
	}
	for _, s := range e.Sources {
		if s == "" || strings.Contains(strings.TrimSuffix(s, "*"), "*") {
			return fmt.Errorf("source %q: want a source, or a prefix and one asterisk at its end", s)
		}
	}
	return nil
}

// Update rewrites the file of keys with what change makes of its entries. The
// file is replaced at once, never seen half written, and survives a crash; of two
// updates at the same time the second waits for the first. A file that is not
// there counts as empty.
func Update(path string, change func([]Entry) ([]Entry, error)) error {
	unlock, err := lock(path + ".lock")
	if err != nil {
		return err
	}
	defer unlock()
	entries, err := ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if entries, err = change(slices.Clone(entries)); err != nil {
		return err
	}
	text, err := yaml.Marshal(fileForm{Keys: entries})
	if err != nil {
		return err
	}
	head := []byte("# API keys of Sluice's edge. \"ingest keys add|list|revoke\" writes this file; the\n# edge reads it again when it changes. Keys stand here as keyed hashes.\n")
	return replace(path, append(head, text...))
}

func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the file of keys: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("locking the file of keys: %w", errors.Join(err, f.Close()))
	}
	return func() { f.Close() }, nil
}

// replace writes the file beside itself and renames it.
func replace(path string, text []byte) error {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, filepath.Base(path)+".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("writing the file of keys: %w", err)
	}
	if info, serr := os.Stat(path); serr == nil {
		err = tmp.Chmod(info.Mode().Perm()) // someone let the edge's user read it
	}
	if err == nil {
		_, err = tmp.Write(text)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("writing the file of keys: %w", errors.Join(err, os.Remove(tmp.Name())))
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
