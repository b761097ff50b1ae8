package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"regexp/syntax"
	"runtime"
	"sort"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"sluice/schemas/event"
)

// draft is the one dialect there is.
const draft = "https://json-schema.org/draft/2020-12/schema"

// base is where the files are said to be, so that they refer to each other by
// their names. Nothing is ever fetched from there, or from anywhere.
const base = "https://schemas.invalid/"

const (
	maxEnum         = 1000 // values of one enum
	maxInstructions = 5000 // of a compiled regular expression
	maxDepth        = 64   // of a schema file
)

// source is the directory's files, parsed.
type source struct {
	names []string            // sorted
	docs  map[string]document // by address: that of the name, and that of $id
}

type document struct {
	value any
	size  int // objects and booleans: what can be a schema
}

func address(name string) string { return base + url.PathEscape(name) }

func parse(files map[string][]byte) (*source, error) {
	src := &source{docs: map[string]document{}}
	for name := range files {
		src.names = append(src.names, name)
	}
	sort.Strings(src.names)
	var errs []error
	for _, name := range src.names {
		if err := src.add(name, files[name]); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	return src, errors.Join(errs...)
}

func (s *source) add(name string, text []byte) error {
	// I-JSON, as events are; the library's own reading would keep the last of
	// repeated names.
	size, err := measure(text)
	if err != nil {
		return err
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return err
	}
	obj, ok := doc.(map[string]any)
	if !ok {
		return errors.New("want an object: a JSON Schema")
	}
	if d, given := obj["$schema"]; given && d != draft {
		return fmt.Errorf("$schema is %v, want %q or none", d, draft)
	}
	s.docs[address(name)] = document{doc, size}
	if id, ok := obj["$id"].(string); ok && strings.Contains(id, ":") {
		id = strings.TrimSuffix(id, "#")
		if _, taken := s.docs[id]; taken {
			return fmt.Errorf("$id %q is another file's too", id)
		}
		s.docs[id] = document{doc, size}
	}
	return nil
}

// measure refuses what is not I-JSON or nested too deep, and counts.
func measure(text []byte) (size int, err error) {
	dec := jsontext.NewDecoder(bytes.NewReader(text))
	for {
		tok, err := dec.ReadToken()
		if errors.Is(err, io.EOF) {
			return size, nil
		}
		if err != nil {
			return 0, err
		}
		switch tok.Kind() {
		case '{', 't', 'f':
			size++
		}
		if dec.StackDepth() > maxDepth {
			return 0, fmt.Errorf("is nested more than %d deep", maxDepth)
		}
	}
}

// Version is one schema of one event type.
type Version struct {
	EventType string
	Number    int

	name     string
	src      *source
	limits   Limits
	warnings []string

	// A compiled schema counts its steps, so it is used by one goroutine at a
	// time. One more is compiled when all are in use, up to one a processor.
	free chan *compiled
	made chan struct{} // one element for each that exists
}

// String is what a record's header names the version by: the file's name
// without its ending.
func (v *Version) String() string { return v.name }

type compiled struct {
	schema *jsonschema.Schema
	meter  *meter
}

// open compiles the first.
func (v *Version) open() error {
	v.name = stem(v.EventType, v.Number)
	n := runtime.GOMAXPROCS(0)
	v.free, v.made = make(chan *compiled, n), make(chan struct{}, n)
	first := &compiler{limits: v.limits, watch: true}
	c, err := first.compile(v.src, FileName(v.EventType, v.Number))
	if err != nil {
		return err
	}
	for _, w := range first.warnings {
		v.warnings = append(v.warnings, FileName(v.EventType, v.Number)+": "+w)
	}
	v.made <- struct{}{}
	v.free <- c
	return nil
}

// take returns a compiled schema that nobody else uses; put it back into free.
func (v *Version) take() *compiled {
	select {
	case c := <-v.free:
		return c
	default:
	}
	select {
	case c := <-v.free:
		return c
	case v.made <- struct{}{}:
		more := &compiler{limits: v.limits}
		c, err := more.compile(v.src, FileName(v.EventType, v.Number))
		if err == nil {
			return c
		}
		// It compiled before from the same parsed text.
		return <-v.free
	}
}

// Load gives the library the files of the directory, and nothing else. The time
// to compile grows with the square of the size, which is therefore bounded.
func (c *compiler) Load(url string) (any, error) {
	doc, ok := c.src.docs[url]
	if !ok {
		return nil, errors.New("a schema refers only to files of its directory, by name or by their $id")
	}
	if c.size += doc.size; c.size > c.limits.Subschemas {
		return nil, fmt.Errorf("with what it refers to it consists of %d schemas or more, at most %d are allowed", c.size, c.limits.Subschemas)
	}
	return doc.value, nil
}

// compiler makes one compiled schema.
type compiler struct {
	limits   Limits
	src      *source
	size     int  // of the files that were read
	watch    bool // collect warnings
	warnings []string
	meter    *meter
}

func (c *compiler) compile(src *source, name string) (*compiled, error) {
	c.src, c.meter = src, new(meter)
	lib := jsonschema.NewCompiler()
	lib.DefaultDraft(jsonschema.Draft2020)
	lib.AssertFormat() // a "format" that is not checked surprises everyone
	lib.UseLoader(c)
	lib.UseRegexpEngine(c.regexp)
	// A vocabulary without keywords: the library asks it about every schema as
	// it compiles it, and calls what it gets each time the schema is applied.
	lib.RegisterVocabulary(&jsonschema.Vocabulary{URL: base + "vocabulary", Compile: c.extend})
	lib.AssertVocabs()
	s, err := lib.Compile(address(name))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, plain(err))
	}
	return &compiled{schema: s, meter: c.meter}, nil
}

// plain leaves the invented address out of an error.
func plain(err error) error {
	return errors.New(strings.ReplaceAll(strings.ReplaceAll(err.Error(), base, ""), "jsonschema: ", ""))
}

func (c *compiler) extend(_ *jsonschema.CompilerContext, obj map[string]any) (jsonschema.SchemaExt, error) {
	if values, ok := obj["enum"].([]any); ok && len(values) > maxEnum {
		return nil, fmt.Errorf("an enum has %d values, at most %d are allowed", len(values), maxEnum)
	}
	if _, dynamic := obj["$dynamicRef"]; dynamic {
		return nil, errors.New("$dynamicRef is not taken: write $ref")
	}
	for _, key := range []string{"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "const"} {
		if n, ok := obj[key].(json.Number); ok && !inBounds(n.String()) {
			return nil, fmt.Errorf("%s: %s", key, tooLong)
		}
	}
	if c.watch {
		for key := range obj {
			if !keywords[key] && !strings.HasPrefix(key, "x-") {
				w := fmt.Sprintf("JSON Schema has no keyword %q, so it does nothing", key)
				if near := event.Nearest(key, keywordList); near != "" {
					w += fmt.Sprintf("; did you mean %q?", near)
				}
				c.warnings = append(c.warnings, w)
			}
		}
	}
	// What the library does for each member of a schema it does besides the
	// schemas below, which are counted by themselves.
	weight := int64(1 + len(obj)/8)
	for _, key := range []string{"required", "properties", "patternProperties", "dependentRequired"} {
		switch v := obj[key].(type) {
		case []any:
			weight += int64(len(v) / 8)
		case map[string]any:
			weight += int64(len(v) / 8)
		}
	}
	return step{c.meter, weight}, nil
}

// expression is a regular expression whose use is counted. Go's do not
// backtrack: the time is at most the product of its size and the text's.
type expression struct {
	*regexp.Regexp
	meter *meter
	size  int64 // instructions
}

func (c *compiler) regexp(pattern string) (jsonschema.Regexp, error) {
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("%w (RE2's syntax: no back-references, no look-around)", err)
	}
	prog, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, err
	}
	if len(prog.Inst) > maxInstructions {
		return nil, fmt.Errorf("the pattern has %d instructions once its repeats are written out, at most %d are allowed", len(prog.Inst), maxInstructions)
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	return expression{re, c.meter, int64(len(prog.Inst))}, nil
}

func (e expression) MatchString(s string) bool {
	e.meter.spend(1 + e.size*int64(len(s))/bytesPerStep)
	return e.Regexp.MatchString(s)
}

var (
	keywordList = strings.Fields(`$id $schema $ref $anchor $defs $comment $vocabulary $dynamicAnchor
		allOf anyOf oneOf not if then else dependentSchemas prefixItems items contains
		properties patternProperties additionalProperties propertyNames
		unevaluatedItems unevaluatedProperties
		type const enum multipleOf maximum exclusiveMaximum minimum exclusiveMinimum
		maxLength minLength pattern maxItems minItems uniqueItems maxContains minContains
		maxProperties minProperties required dependentRequired
		title description default deprecated readOnly writeOnly examples
		format contentEncoding contentMediaType contentSchema definitions`)
	keywords = func() map[string]bool {
		m := map[string]bool{}
		for _, k := range keywordList {
			m[k] = true
		}
		return m
	}()
)
