package event

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// canonicalizers holds the memory of earlier calls for later ones.
var canonicalizers = sync.Pool{New: func() any { return new(canonicalizer) }}

// canonicalHash hashes the text that [Canonical] makes, in one pass over a
// payload that [Decoder.Decode] has accepted and whose names are plain ASCII.
// For any other it may return false. A fuzz test compares the two.
func canonicalHash(payload []byte) ([sha256.Size]byte, bool) {
	c := canonicalizers.Get().(*canonicalizer)
	defer canonicalizers.Put(c)
	return c.hash(payload)
}

func (c *canonicalizer) hash(payload []byte) (sum [sha256.Size]byte, ok bool) {
	c.src, c.at, c.dst, c.members = payload, 0, c.dst[:0], c.members[:0]
	ok = c.value(0)
	c.space()
	if ok = ok && c.at == len(c.src); ok {
		sum = sha256.Sum256(c.dst)
	}
	c.letGo()
	return sum, ok
}

// letGo lets go of the payload, and of memory that few payloads need: one of a
// hundred thousand members made every later call clear room for as many.
func (c *canonicalizer) letGo() {
	c.src = nil
	clear(c.members[:c.most]) // they alias it
	c.most = 0
	if cap(c.dst)+cap(c.scratch) > keepBytes {
		c.dst, c.scratch = nil, nil
	}
	if cap(c.members) > keepMembers {
		c.members = nil
	}
}

// What is kept for the next call, at most: bytes of text, and members.
const (
	keepBytes   = 64 << 10
	keepMembers = 1 << 10
)

type canonicalizer struct {
	src []byte
	at  int
	dst []byte
	// members of the objects that are open, of each behind those of its parent.
	members []member
	most    int // how many there were at a time in this call
	scratch []byte
}

// member is one member of an object, as it stands in dst.
type member struct {
	name     []byte // in src, with its quotes
	from, to int
}

func (c *canonicalizer) space() {
	for c.at < len(c.src) {
		switch c.src[c.at] {
		case ' ', '\t', '\r', '\n':
			c.at++
		default:
			return
		}
	}
}

// next returns the first byte that is no white space, or 0.
func (c *canonicalizer) next() byte {
	c.space()
	if c.at == len(c.src) {
		return 0
	}
	return c.src[c.at]
}

func (c *canonicalizer) value(depth int) bool {
	const deepest = 300 // deeper than any limit; it bounds the recursion
	if depth > deepest {
		return false
	}
	switch c.next() {
	case 0:
		return false
	case '{':
		return c.object(depth)
	case '[':
		return c.array(depth)
	case '"':
		raw, plain := c.str()
		if raw == nil {
			return false
		}
		if plain {
			c.dst = append(c.dst, raw...)
			return true
		}
		text, err := jsontext.AppendUnquote(nil, raw)
		if err != nil {
			return false
		}
		c.dst, err = jsontext.AppendQuote(c.dst, text)
		return err == nil
	}
	begin := c.at // a number, true, false or null: as it is
	for c.at < len(c.src) {
		switch c.src[c.at] {
		case ',', ']', '}', ' ', '\t', '\r', '\n':
			c.dst = append(c.dst, c.src[begin:c.at]...)
			return c.at > begin
		}
		c.at++
	}
	c.dst = append(c.dst, c.src[begin:]...)
	return c.at > begin
}

// str takes a string literal; plain tells that it has no escapes, so that it is
// spelled in the shortest way already.
func (c *canonicalizer) str() (raw []byte, plain bool) {
	begin := c.at
	plain = true
	for i := begin + 1; i < len(c.src); i++ {
		switch c.src[i] {
		case '"':
			c.at = i + 1
			return c.src[begin:c.at], plain
		case '\\':
			plain = false
			i++
		}
	}
	return nil, false
}

func (c *canonicalizer) array(depth int) bool {
	c.at++
	c.dst = append(c.dst, '[')
	if c.next() == ']' {
		c.at++
		c.dst = append(c.dst, ']')
		return true
	}
	for {
		if !c.value(depth + 1) {
			return false
		}
		switch c.next() {
		case ',':
			c.at++
			c.dst = append(c.dst, ',')
		case ']':
			c.at++
			c.dst = append(c.dst, ']')
			return true
		default:
			return false
		}
	}
}

func (c *canonicalizer) object(depth int) bool {
	c.at++
	c.dst = append(c.dst, '{')
	start, first := len(c.dst), len(c.members)
	if c.next() == '}' {
		c.at++
		c.dst = append(c.dst, '}')
		return true
	}
	sorted := true
	for {
		if c.next() != '"' {
			return false
		}
		name, plain := c.str()
		if name == nil || !plain || !ascii(name) {
			return false // names are ordered by UTF-16 code units: not here
		}
		if n := len(c.members); n > first && bytes.Compare(inner(c.members[n-1].name), inner(name)) > 0 {
			sorted = false
		}
		from := len(c.dst)
		c.dst = append(c.dst, name...)
		if c.next() != ':' {
			return false
		}
		c.at++
		c.dst = append(c.dst, ':')
		if !c.value(depth + 1) {
			return false
		}
		c.members = append(c.members, member{name, from, len(c.dst)})
		c.most = max(c.most, len(c.members))
		switch c.next() {
		case ',':
			c.at++
			c.dst = append(c.dst, ',')
			continue
		case '}':
			c.at++
		default:
			return false
		}
		break
	}
	if !sorted {
		c.order(start, c.members[first:])
	}
	c.members = c.members[:first]
	c.dst = append(c.dst, '}')
	return true
}

// order rewrites what stands in dst from start on, the members, by name.
func (c *canonicalizer) order(start int, members []member) {
	slices.SortFunc(members, func(a, b member) int { return bytes.Compare(inner(a.name), inner(b.name)) })
	c.scratch = append(c.scratch[:0], c.dst[start:]...)
	c.dst = c.dst[:start]
	for i, m := range members {
		if i > 0 {
			c.dst = append(c.dst, ',')
		}
		c.dst = append(c.dst, c.scratch[m.from-start:m.to-start]...)
	}
}

func inner(name []byte) []byte { return name[1 : len(name)-1] }

func ascii(s []byte) bool {
	for _, c := range s {
		if c >= 0x80 {
			return false
		}
	}
	return true
}
