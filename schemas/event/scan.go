package event

import (
	"bytes"
	"encoding/binary"
)

// scanner reads JSON, strictly and without making anything of it. On its way it
// notes how the payload is written, so that its canonical form can be had without
// reading it again.
type scanner struct {
	src  []byte
	at   int
	most int // levels
	// names of the objects that are open, of each behind those of its parent.
	names []name
	noted noted
}

// name is a member's name: where it stands in src, without its quotes.
type name struct {
	// head is its first eight bytes, as a number, zeros behind a shorter one. Since
	// no name taken here has a zero byte, heads that differ are ordered as the
	// names are.
	head          uint64
	from, to, end int // end is of the member's value
}

// noted is what was seen of a payload since it began.
type noted struct {
	// other: it has white space, a string with an escape, a name that is not ASCII,
	// or inside it an object whose members are not in order. Its canonical form is
	// more than its members in order, then.
	other bool
	// unordered: its own members are not in order. They are the first so many of
	// the scanner's names.
	unordered bool
	members   int
}

// payloadLevel is the level of a payload: the event itself is level 1.
const payloadLevel = 2

// manyNames is the most names in an object that are compared with one another;
// an object with more is the general decoder's.
const manyNames = 32

// space skips white space and returns where it ends.
func (s *scanner) space() int {
	for s.at < len(s.src) {
		switch s.src[s.at] {
		case ' ', '\t', '\r', '\n':
			s.at++
			s.noted.other = true
		default:
			return s.at
		}
	}
	return s.at
}

// take takes c, after white space, if it comes next.
func (s *scanner) take(c byte) bool {
	if s.at < len(s.src) && s.src[s.at] == c { // nearly always
		s.at++
		return true
	}
	return s.takeSpaced(c)
}

func (s *scanner) takeSpaced(c byte) bool {
	if at := s.space(); at < len(s.src) && s.src[at] == c {
		s.at++
		return true
	}
	return false
}

// value takes a value that stands at the given level.
func (s *scanner) value(level int) bool {
	at := s.space()
	if at == len(s.src) {
		return false
	}
	switch c := s.src[at]; c {
	case '{':
		return level <= s.most && s.object(level)
	case '[':
		return level <= s.most && s.array(level)
	case '"':
		return s.str()
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	default:
		return s.number()
	}
}

func (s *scanner) literal(w string) bool {
	if len(s.src)-s.at < len(w) || string(s.src[s.at:s.at+len(w)]) != w {
		return false
	}
	s.at += len(w)
	return true
}

func (s *scanner) array(level int) bool {
	s.at++
	if s.take(']') {
		return true
	}
	for {
		if !s.value(level + 1) {
			return false
		}
		if !s.take(',') {
			return s.take(']')
		}
	}
}

func (s *scanner) object(level int) bool {
	s.at++
	if s.take('}') {
		return true
	}
	first, ordered := len(s.names), true
	for {
		n, ok := s.name()
		if !ok || len(s.names)-first == manyNames {
			return false
		}
		if last := len(s.names) - 1; last >= first && ordered {
			ordered = s.before(&s.names[last], &n)
		}
		if !ordered {
			for i := first; i < len(s.names); i++ {
				if s.same(&s.names[i], &n) {
					return false
				}
			}
		}
		at := len(s.names)
		s.names = append(s.names, n)
		if !s.take(':') || !s.value(level+1) {
			return false
		}
		s.names[at].end = s.at
		if !s.take(',') {
			break
		}
	}
	if level == payloadLevel {
		s.noted.unordered, s.noted.members = !ordered, len(s.names)-first
	} else if !ordered {
		s.noted.other = true
	}
	s.names = s.names[:first]
	return s.take('}')
}

// name takes the name of a member.
func (s *scanner) name() (name, bool) {
	text, wide, ok := s.word()
	if !ok {
		return name{}, false
	}
	if wide {
		s.noted.other = true
	}
	n := name{to: s.at - 1}
	n.from = n.to - len(text)
	if len(s.src)-n.from >= 8 {
		n.head = binary.BigEndian.Uint64(s.src[n.from:])
		if len(text) < 8 {
			n.head &^= 1<<(64-8*len(text)) - 1
		}
		return n, true
	}
	for i, c := range text { // the end of src is that near
		n.head |= uint64(c) << (56 - 8*i)
	}
	return n, true
}

// before tells whether a is ordered before b, by their bytes.
func (s *scanner) before(a, b *name) bool {
	if a.head != b.head {
		return a.head < b.head
	}
	return bytes.Compare(s.src[a.from:a.to], s.src[b.from:b.to]) < 0
}

func (s *scanner) same(a, b *name) bool {
	return a.head == b.head && bytes.Equal(s.src[a.from:a.to], s.src[b.from:b.to])
}

// number takes a number (RFC 8259, section 6).
func (s *scanner) number() bool {
	s.skip('-')
	switch {
	case s.skip('0'):
	case !s.digits():
		return false
	}
	if s.skip('.') && !s.digits() {
		return false
	}
	if s.skip('e') || s.skip('E') {
		if !s.skip('+') {
			s.skip('-')
		}
		return s.digits()
	}
	return true
}

func (s *scanner) skip(c byte) bool {
	if s.at < len(s.src) && s.src[s.at] == c {
		s.at++
		return true
	}
	return false
}

// digits takes at least one digit.
func (s *scanner) digits() bool {
	begin := s.at
	for s.at < len(s.src) && '0' <= s.src[s.at] && s.src[s.at] <= '9' {
		s.at++
	}
	return s.at > begin
}
