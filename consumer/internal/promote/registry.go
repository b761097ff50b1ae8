// Package promote makes a typed column of a member of the payload, as the
// registered JSON Schemas describe it: it finds the member's type, writes the
// statements, and fills the column month by month.
//
// The column is MATERIALIZED from payload, so an INSERT neither names it nor can
// make it differ, and a part that has no such column yet is read by the same
// expression. It is right from the moment that it is there; filling it makes it
// quick.
package promote

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Kind is what a member is, by its schemas.
type Kind string

// The kinds. Enum is a string of a closed list, Time a string of format date-time.
const (
	Integer Kind = "integer"
	Number  Kind = "number"
	Boolean Kind = "boolean"
	String  Kind = "string"
	Enum    Kind = "enum"
	Time    Kind = "date-time"
)

// Property is a member of an event type's payload that can be a column.
type Property struct {
	EventType string
	// Path is the names from the payload's root, never empty.
	Path []string
	Kind Kind
	// Versions of the event type's schema that have it, ascending.
	Versions []int
}

// Name is the event type and the path, joined by dots.
func (p Property) Name() string { return p.EventType + "." + strings.Join(p.Path, ".") }

// Errors of [Registry.Find], wrapped with what there is instead.
var (
	ErrUnknown = errors.New("no registered schema has it")
	ErrMixed   = errors.New("it has no one type")
)

// Registry is a folder of registered schemas, as the edge reads it:
// <event type>.v<number>.json, and _<name>.json for what others refer to.
type Registry struct {
	docs  map[string]map[string]any // by file name
	types map[string]map[int]string // event type, version: file name
}

// Open reads the folder.
func Open(dir fs.FS) (*Registry, error) {
	names, err := fs.Glob(dir, "*.json")
	if err != nil {
		return nil, fmt.Errorf("listing schemas: %w", err)
	}
	r := &Registry{docs: map[string]map[string]any{}, types: map[string]map[int]string{}}
	for _, name := range names {
		text, err := fs.ReadFile(dir, name)
		if err != nil {
			return nil, fmt.Errorf("schema %s: %w", name, err)
		}
		var doc map[string]any
		if err := json.Unmarshal(text, &doc); err != nil {
			return nil, fmt.Errorf("schema %s: %w", name, err)
		}
		r.docs[name] = doc
		if strings.HasPrefix(name, "_") {
			continue
		}
		base := strings.TrimSuffix(name, ".json")
		i := strings.LastIndex(base, ".v")
		if i < 1 {
			return nil, fmt.Errorf("schema %s: want <event type>.v<number>.json, such as order.v1.json", name)
		}
		number, err := strconv.Atoi(base[i+2:])
		if err != nil || number < 1 {
			return nil, fmt.Errorf("schema %s: want <event type>.v<number>.json, such as order.v1.json", name)
		}
		eventType, err := url.PathUnescape(base[:i])
		if err != nil {
			return nil, fmt.Errorf("schema %s: %w", name, err)
		}
		if r.types[eventType] == nil {
			r.types[eventType] = map[int]string{}
		}
		r.types[eventType][number] = name
	}
	if len(r.types) == 0 {
		return nil, errors.New("no <event type>.v<number>.json is there")
	}
	return r, nil
}

// Find finds a member by its event type and path, as in order.total.amount. All
// versions of the schema that have it must agree on its type, since rows of all of
// them are stored; of an integer and a number the column is for numbers, of an enum
// and a string for strings.
func (r *Registry) Find(name string) (Property, error) {
	var p Property
	rest := ""
	for eventType := range r.types {
		if after, ok := strings.CutPrefix(name, eventType+"."); ok && after != "" && len(eventType) > len(p.EventType) {
			p.EventType, rest = eventType, after
		}
	}
	if p.EventType == "" {
		return p, fmt.Errorf("%q: %w: want <event type>.<member>, of the event types %s", name, ErrUnknown, quoted(slices.Sorted(maps.Keys(r.types))))
	}
	p.Path = strings.Split(rest, ".")
	for _, number := range slices.Sorted(maps.Keys(r.types[p.EventType])) {
		file := r.types[p.EventType][number]
		kind, err := r.kindAt(file, p.Path)
		if errors.Is(err, errAbsent) {
			continue
		}
		if err != nil {
			return p, fmt.Errorf("%q in %s: %w", name, file, err)
		}
		p.Versions = append(p.Versions, number)
		if p.Kind == "" {
			p.Kind = kind
		}
		merged, ok := merge(p.Kind, kind)
		if !ok {
			return p, fmt.Errorf("%q: %w: %s in an older version, %s in %s", name, ErrMixed, p.Kind, kind, file)
		}
		p.Kind = merged
	}
	if p.Kind == "" {
		var have []string
		for _, other := range r.list(p.EventType) {
			have = append(have, other.Name())
		}
		return p, fmt.Errorf("%q: %w: those of %s are %s", name, ErrUnknown, p.EventType, quoted(have))
	}
	return p, nil
}

// List is every member that can be a column, by name.
func (r *Registry) List() []Property {
	var out []Property
	for _, eventType := range slices.Sorted(maps.Keys(r.types)) {
		out = append(out, r.list(eventType)...)
	}
	return out
}

func (r *Registry) list(eventType string) []Property {
	paths := map[string]bool{}
	for _, file := range r.types[eventType] {
		r.walk(file, r.docs[file], nil, func(path []string) { paths[strings.Join(path, ".")] = true })
	}
	var out []Property
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		if p, err := r.Find(eventType + "." + path); err == nil && p.EventType == eventType {
			out = append(out, p)
		}
	}
	return out
}

// depth bounds paths and references, which may go in a circle.
const depth = 16

func (r *Registry) walk(file string, node map[string]any, path []string, see func([]string)) {
	file, node, err := r.resolve(file, node)
	if err != nil || len(path) > depth {
		return
	}
	properties, _ := node["properties"].(map[string]any)
	for name, child := range properties {
		if c, ok := child.(map[string]any); ok {
			at := append(slices.Clone(path), name)
			see(at)
			r.walk(file, c, at, see)
		}
	}
}

var errAbsent = errors.New("absent")

func (r *Registry) kindAt(file string, path []string) (Kind, error) {
	node := r.docs[file]
	var err error
	for _, name := range path {
		if file, node, err = r.resolve(file, node); err != nil {
			return "", err
		}
		properties, _ := node["properties"].(map[string]any)
		child, there := properties[name].(map[string]any)
		if !there {
			return "", errAbsent
		}
		node = child
	}
	if _, node, err = r.resolve(file, node); err != nil {
		return "", err
	}
	return kindOf(node)
}

// resolve follows $ref within the folder.
func (r *Registry) resolve(file string, node map[string]any) (string, map[string]any, error) {
	for range depth {
		ref, ok := node["$ref"].(string)
		if !ok {
			return file, node, nil
		}
		target, pointer, _ := strings.Cut(ref, "#")
		if target != "" {
			file = strings.TrimPrefix(target, "./")
		}
		if node, ok = r.docs[file]; !ok {
			return file, nil, fmt.Errorf("%w: its schema refers to %q, which is not in the folder", ErrMixed, ref)
		}
		for step := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
			if step == "" {
				continue
			}
			step = strings.NewReplacer("~1", "/", "~0", "~").Replace(step)
			if node, ok = node[step].(map[string]any); !ok {
				return file, nil, fmt.Errorf("%w: its schema refers to %q, which is not there", ErrMixed, ref)
			}
		}
	}
	return file, nil, fmt.Errorf("%w: its schema refers to itself", ErrMixed)
}

func kindOf(node map[string]any) (Kind, error) {
	var types []string
	switch t := node["type"].(type) {
	case string:
		types = []string{t}
	case []any:
		for _, x := range t {
			if s, ok := x.(string); ok && s != "null" {
				types = append(types, s)
			}
		}
	}
	values, enumerated := node["enum"].([]any)
	if c, ok := node["const"]; ok {
		values, enumerated = []any{c}, true
	}
	strs := enumerated
	for _, v := range values {
		if _, ok := v.(string); !ok && v != nil {
			strs = false
		}
	}
	switch {
	case len(types) == 0 && strs, len(types) == 1 && types[0] == "string" && strs:
		return Enum, nil
	case len(types) == 0:
		return "", fmt.Errorf("%w: its schema names no type", ErrMixed)
	case len(types) == 2 && slices.Contains(types, "integer") && slices.Contains(types, "number"):
		return Number, nil
	case len(types) > 1:
		return "", fmt.Errorf("%w: %s", ErrMixed, strings.Join(types, " or "))
	}
	switch types[0] {
	case "integer":
		return Integer, nil
	case "number":
		return Number, nil
	case "boolean":
		return Boolean, nil
	case "string":
		if node["format"] == "date-time" {
			return Time, nil
		}
		return String, nil
	}
	return "", fmt.Errorf("%w that a column holds: it is an %s; name a member of it", ErrMixed, types[0])
}

// merge is the kind that takes the values of both.
func merge(a, b Kind) (Kind, bool) {
	pair := func(x, y Kind) bool { return a == x && b == y || a == y && b == x }
	switch {
	case a == b:
		return a, true
	case pair(Integer, Number):
		return Number, true
	case pair(Enum, String):
		return String, true
	}
	return "", false
}

func quoted(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = strconv.Quote(n)
	}
	return strings.Join(out, ", ")
}
