// Package schema holds the JSON Schemas (2020-12) that events' payloads must
// keep to, per event type and version.
//
// A schema is a file of one directory, named by event type and version
// ([FileName]). It constrains the payload alone: what an event is beyond it is
// the contract's business ([sluice/schemas/event]). Several versions of a type
// can stand side by side: an event is good when any of them accepts it, the
// newest asked first, so that senders can move one after the other; a version
// is retired by removing its file.
//
// Validation is bounded whatever a schema says, by steps rather than by time,
// so that the same event has the same verdict on every edge: see [Limits].
//
// The library is santhosh-tekuri/jsonschema: it passes the official suite of
// 2020-12, keeps numbers as they are written, takes a regular expression engine
// and a loader of ours, and reports every fault with its place. google's
// jsonschema-go stops at the first fault and reads numbers as floats;
// kaptinlin's brings a dozen dependencies.
package schema

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"sluice/schemas/event"
)

// Limits bound what a directory may hold and what validating may cost.
type Limits struct {
	// Files is the most files, definitions included. Default 1,000.
	Files int
	// FileBytes is the most bytes of one file. Default 256 KiB.
	FileBytes int64
	// Subschemas is the most schemas (objects and booleans, wherever they stand)
	// in the file of a version and those it refers to. Default 5,000.
	Subschemas int
	// Versions is the most versions of one type. Default 16.
	Versions int
	// Steps is how many schemas may be applied for one event, whatever its size;
	// a regular expression counts by its size and the text's. Default 10,000.
	Steps int64
	// StepsPerByte is how many more for each byte of the payload. Default 32.
	StepsPerByte int64
}

// DefaultLimits are the limits an edge has.
func DefaultLimits() Limits {
	return Limits{
		Files: 1000, FileBytes: 256 << 10, Subschemas: 5000, Versions: 16,
		Steps: 10_000, StepsPerByte: 32,
	}
}

// Set is what a directory held when it was read. It does not change, and is safe
// for concurrent use.
type Set struct {
	types    map[string][]*Version // newest first
	warnings []string
}

// Load reads and compiles every schema of dir. It fails as a whole: the error
// joins one of each file that is wrong.
//
// Names that begin with a dot are passed over, and names that do not end in
// .json; those that begin with _ are definitions for others to refer to.
func Load(dir string, limits Limits) (*Set, error) {
	files, err := read(dir, limits)
	if err != nil {
		return nil, err
	}
	src, err := parse(files)
	if err != nil {
		return nil, err
	}
	set := &Set{types: map[string][]*Version{}}
	var errs []error
	for _, name := range src.names {
		if strings.HasPrefix(name, "_") {
			continue
		}
		eventType, number, err := ParseFileName(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		v := &Version{EventType: eventType, Number: number, src: src, limits: limits}
		if err := v.open(); err != nil {
			errs = append(errs, err)
			continue
		}
		set.types[eventType] = append(set.types[eventType], v)
	}
	for eventType, versions := range set.types {
		if len(versions) > limits.Versions {
			errs = append(errs, fmt.Errorf("event type %q has %d versions, at most %d are allowed: remove those that nobody sends", eventType, len(versions), limits.Versions))
		}
		slices.SortFunc(versions, func(a, b *Version) int { return b.Number - a.Number })
		for _, v := range versions {
			set.warnings = append(set.warnings, v.warnings...)
		}
	}
	sort.Strings(set.warnings)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return set, nil
}

// Warnings tell of what is allowed and hardly meant, such as a keyword that
// JSON Schema does not have.
func (s *Set) Warnings() []string { return s.warnings }

// Versions lists all, by type, newest first.
func (s *Set) Versions() []*Version {
	var out []*Version
	for _, t := range s.typeNames() {
		out = append(out, s.types[t]...)
	}
	return out
}

// Of lists the versions of one type, newest first; none when it is not
// registered.
func (s *Set) Of(eventType string) []*Version { return s.types[eventType] }

func (s *Set) typeNames() []string {
	names := make([]string, 0, len(s.types))
	for t := range s.types {
		names = append(names, t)
	}
	sort.Strings(names)
	return names
}

// Check validates the payload of an event of that type, which must have come
// from [event.Decoder.Decode]. It returns
//   - the version that accepts it and no faults,
//   - nil and the faults that the newest version finds,
//   - nil and nil when the type is not registered.
//
// The payload's memory is not kept.
func (s *Set) Check(eventType string, payload []byte) (*Version, []event.Fault) {
	versions := s.types[eventType]
	if len(versions) == 0 {
		return nil, nil
	}
	value, fault := parsePayload(payload)
	if fault != nil {
		return nil, []event.Fault{*fault}
	}
	var first []event.Fault
	for i, v := range versions {
		faults := v.check(value, len(payload))
		if faults == nil {
			return v, nil
		}
		if i == 0 {
			first = faults
		}
	}
	if n := len(versions); n > 1 {
		first[0].Detail += fmt.Sprintf(" (by version %d; the other %d do not accept it either)", versions[0].Number, n-1)
	}
	return nil, first
}

// read reads the files of dir that count. Links are followed, as Kubernetes
// mounts its files.
func read(dir string, limits Limits) (map[string][]byte, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading the schemas: %w", err)
	}
	files := map[string][]byte{}
	var errs []error
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") || filepath.Ext(name) != ".json" {
			continue
		}
		if len(files) == limits.Files {
			errs = append(errs, fmt.Errorf("%s holds more than %d files", dir, limits.Files))
			break
		}
		text, err := readFile(filepath.Join(dir, name), limits.FileBytes)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			continue
		}
		files[name] = text
	}
	return files, errors.Join(errs...)
}

func readFile(path string, most int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("is not a file")
	}
	if info.Size() > most {
		return nil, fmt.Errorf("has %d bytes, at most %d are allowed", info.Size(), most)
	}
	return os.ReadFile(path)
}
