// Package page holds what the edge shows to people: the contract as a page, and
// the live page of the admin port. Neither fetches anything from elsewhere.
package page

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"html/template"
	"net/http"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

//go:embed docs.html
var docsTemplate string

// policy lets a page of ours use what it carries itself, and nothing else.
const policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Documents are the OpenAPI document as it is, at /openapi.yaml, and as a page,
// at /docs. It fails on a document that it cannot read.
func Documents(openAPI []byte) (map[string]http.Handler, error) {
	doc, err := read(openAPI)
	if err != nil {
		return nil, fmt.Errorf("the OpenAPI document: %w", err)
	}
	t, err := template.New("docs").Funcs(template.FuncMap{"prose": prose}).Parse(docsTemplate)
	if err != nil {
		return nil, fmt.Errorf("the page of the OpenAPI document: %w", err)
	}
	var out bytes.Buffer
	if err := t.Execute(&out, doc); err != nil {
		return nil, fmt.Errorf("the page of the OpenAPI document: %w", err)
	}
	return map[string]http.Handler{
		"/openapi.yaml": static("application/yaml", openAPI),
		"/docs":         static("text/html; charset=utf-8", out.Bytes()),
	}, nil
}

func static(media string, body []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Content-Type", media)
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		_, _ = w.Write(body) // the client has left
	})
}

// document is what the page shows of the OpenAPI document, in its order.
type document struct {
	Title, Version, Description string
	Operations                  []operation
	Schemas                     []named // as YAML
}

type operation struct {
	ID, Method, Path, Summary, Description string
	Parameters                             []parameter
	Body                                   string
	Bodies                                 []media
	Responses                              []response
}

type parameter struct{ Name, In, Description, Schema string }

type media struct {
	Type, Schema string
	Examples     []named
}

type response struct {
	Status, Description string
	Headers             []named
	Bodies              []media
}

type named struct{ Name, Text string }

// read picks the document apart. Nodes are walked rather than decoded, to keep
// the order in which they are written.
func read(text []byte) (*document, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		return nil, err
	}
	if len(root.Content) == 0 {
		return nil, errors.New("it is empty")
	}
	r := reader{root: root.Content[0]}
	info := r.get(r.root, "info")
	d := &document{Title: r.text(info, "title"), Version: r.text(info, "version"), Description: r.text(info, "description")}
	for path, item := range r.each(r.get(r.root, "paths")) {
		for method, op := range r.each(item) {
			if r.get(op, "responses") != nil {
				d.Operations = append(d.Operations, r.operation(path, method, op))
			}
		}
	}
	for name, schema := range r.each(r.get(r.root, "components", "schemas")) {
		d.Schemas = append(d.Schemas, named{name, r.source(schema)})
	}
	return d, r.err
}

// reader walks a document and keeps the first error.
type reader struct {
	root *yaml.Node
	deep int // references being followed
	err  error
}

// get follows names from n; nil when there is nothing.
func (r *reader) get(n *yaml.Node, names ...string) *yaml.Node {
	n = r.follow(n)
	for _, name := range names {
		var next *yaml.Node
		for key, value := range r.each(n) {
			if key == name {
				next = value
			}
		}
		n = r.follow(next)
	}
	return n
}

// follow returns what n stands for: an alias's anchor, or a $ref's target.
func (r *reader) follow(n *yaml.Node) *yaml.Node {
	r.deep++
	defer func() { r.deep-- }()
	for n != nil {
		if r.deep > 32 {
			r.err = errors.New("its references go in a circle")
			return nil
		}
		if n.Kind == yaml.AliasNode {
			n = n.Alias
			continue
		}
		ref := refOf(n)
		if ref == "" {
			return n
		}
		at := r.root
		for part := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
			at = r.get(at, part)
		}
		if at == nil && r.err == nil {
			r.err = fmt.Errorf("%s points at nothing", ref)
		}
		n = at
	}
	return nil
}

func refOf(n *yaml.Node) string {
	if n != nil && n.Kind == yaml.MappingNode && len(n.Content) == 2 && n.Content[0].Value == "$ref" {
		return n.Content[1].Value
	}
	return ""
}

// each ranges over the members of a mapping, in their order.
func (r *reader) each(n *yaml.Node) func(yield func(string, *yaml.Node) bool) {
	return func(yield func(string, *yaml.Node) bool) {
		for n != nil && n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		if n == nil || n.Kind != yaml.MappingNode {
			return
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if !yield(n.Content[i].Value, n.Content[i+1]) {
				return
			}
		}
	}
}

func (r *reader) text(n *yaml.Node, names ...string) string {
	if n = r.get(n, names...); n == nil {
		return ""
	}
	return n.Value
}

// source is n as YAML, its references as they are.
func (r *reader) source(n *yaml.Node) string {
	if n == nil {
		return ""
	}
	if ref := refOf(n); ref != "" {
		return ref[strings.LastIndexByte(ref, '/')+1:]
	}
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(n); err != nil && r.err == nil {
		r.err = err
	}
	return strings.TrimSpace(out.String())
}

func (r *reader) operation(path, method string, op *yaml.Node) operation {
	o := operation{
		ID: r.text(op, "operationId"), Method: strings.ToUpper(method), Path: path,
		Summary: r.text(op, "summary"), Description: r.text(op, "description"), Body: r.text(op, "requestBody", "description"),
	}
	if parameters := r.get(op, "parameters"); parameters != nil {
		for _, p := range parameters.Content {
			o.Parameters = append(o.Parameters, parameter{
				Name: r.text(p, "name"), In: r.text(p, "in"), Description: r.text(p, "description"),
				Schema: r.source(r.raw(p, "schema")),
			})
		}
	}
	o.Bodies = r.content(r.get(op, "requestBody", "content"))
	for status, answer := range r.each(r.get(op, "responses")) {
		answer = r.follow(answer)
		a := response{Status: status, Description: r.text(answer, "description"), Bodies: r.content(r.get(answer, "content"))}
		for name, h := range r.each(r.get(answer, "headers")) {
			a.Headers = append(a.Headers, named{name, r.text(h, "description")})
		}
		o.Responses = append(o.Responses, a)
	}
	return o
}

// raw is a member of n as it stands there, its reference not followed.
func (r *reader) raw(n *yaml.Node, name string) *yaml.Node {
	for key, value := range r.each(r.follow(n)) {
		if key == name {
			return value
		}
	}
	return nil
}

func (r *reader) content(n *yaml.Node) []media {
	var out []media
	for name, m := range r.each(n) {
		one := media{Type: name, Schema: r.source(r.raw(m, "schema"))}
		for example, e := range r.each(r.get(m, "examples")) {
			one.Examples = append(one.Examples, named{example, r.example(r.get(e, "value"))})
		}
		out = append(out, one)
	}
	return out
}

// example is a value as it is sent: a text as it is, anything else as JSON, in
// the order in which it is written.
func (r *reader) example(n *yaml.Node) string {
	if n == nil {
		return ""
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
		return strings.TrimRight(n.Value, "\n")
	}
	var out bytes.Buffer
	if err := json.Indent(&out, appendJSON(nil, n), "", "  "); err != nil && r.err == nil {
		r.err = err
	}
	return out.String()
}

func appendJSON(dst []byte, n *yaml.Node) []byte {
	switch {
	case n.Kind == yaml.AliasNode:
		return appendJSON(dst, n.Alias)
	case n.Kind == yaml.MappingNode:
		dst = append(dst, '{')
		for i := 0; i+1 < len(n.Content); i += 2 {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(appendJSON(dst, n.Content[i]), ':')
			dst = appendJSON(dst, n.Content[i+1])
		}
		return append(dst, '}')
	case n.Kind == yaml.SequenceNode:
		dst = append(dst, '[')
		for i, item := range n.Content {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendJSON(dst, item)
		}
		return append(dst, ']')
	case n.Tag == "!!str" || n.Tag == "!!timestamp":
		text, _ := json.Marshal(n.Value) // a string always has a form
		return append(dst, text...)
	}
	return append(dst, n.Value...) // numbers, true, false and null are as in JSON
}

var code = regexp.MustCompile("`([^`]*)`")

// prose is a description as HTML: paragraphs, and code between backquotes.
func prose(text string) template.HTML {
	var out strings.Builder
	for paragraph := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		if paragraph == "" {
			continue
		}
		out.WriteString("<p>" + code.ReplaceAllString(html.EscapeString(paragraph), "<code>$1</code>") + "</p>")
	}
	return template.HTML(out.String()) // escaped above
}
