package event

import (
	"bytes"
	"time"
	"unicode/utf8"
)

// fast decodes an event in one pass when there is nothing remarkable about it:
// members known, in plain spelling, everything within the limits. Of anything
// else, faulty or only unusual, it makes nothing and returns false; the general
// decoder then has the say, and words the faults.
//
// Whatever it accepts the general decoder accepts, too, with the same result;
// a fuzz test holds it to that.
func (d *Decoder) fast(body []byte, now time.Time) (Event, bool) {
	s := &d.scan
	s.src, s.at, s.names, s.most = body, 0, s.names[:0], d.limits.Depth
	e, ok := d.fastEvent(now)
	s.src = nil
	clear(s.names[:cap(s.names)]) // they alias body
	return e, ok
}

func (d *Decoder) fastEvent(now time.Time) (Event, bool) {
	var e Event
	s := &d.scan
	if !s.take('{') {
		return e, false
	}
	var seen struct{ source, eventType, actorID, occurredAt, payload, clientEventID bool }
	for {
		name, ok := s.plain()
		if !ok || !s.take(':') {
			return e, false
		}
		switch string(name) {
		case MemberSource:
			ok = d.fastField(&e.Source, &seen.source, &d.kept)
		case MemberEventType:
			ok = d.fastField(&e.EventType, &seen.eventType, &d.kept)
		case MemberActorID:
			ok = d.fastField(&e.ActorID, &seen.actorID, nil)
		case MemberClientEventID:
			ok = d.fastField(&e.ClientEventID, &seen.clientEventID, nil)
		case MemberOccurredAt:
			ok = !seen.occurredAt && d.fastTime(&e.OccurredAt, now)
			seen.occurredAt = true
		case MemberPayload:
			begin := s.space()
			ok = !seen.payload && begin < len(s.src) && s.src[begin] == '{' && s.value(2)
			seen.payload = true
			e.Payload = s.src[begin:s.at:s.at]
		default:
			return e, false
		}
		if !ok {
			return e, false
		}
		if s.take(',') {
			continue
		}
		break
	}
	if !s.take('}') || s.space() != len(s.src) {
		return e, false
	}
	if !seen.payload {
		e.Payload = []byte("{}")
	}
	return e, seen.source && seen.eventType && seen.actorID && seen.occurredAt
}

func (d *Decoder) fastField(to *string, seen *bool, known *kept) bool {
	text, ok := d.scan.plain()
	if !ok || *seen || len(text) == 0 || len(text) > d.limits.FieldBytes {
		return false
	}
	*seen = true
	*to = known.text(text)
	return true
}

// kept are the sources and event types that a decoder met last. There are few of
// each, and most events repeat one: its string is used again instead of made.
type kept [64]string

// longestKept bounds what a decoder holds on to.
const longestKept = 64

// text is b as a string. A nil kept makes it anew.
func (k *kept) text(b []byte) string {
	if k == nil || len(b) > longestKept {
		return string(b)
	}
	at := &k[(len(b)+7*int(b[0])+31*int(b[len(b)-1])+13*int(b[len(b)/2]))%len(k)]
	if *at != string(b) {
		*at = string(b)
	}
	return *at
}

func (d *Decoder) fastTime(to *time.Time, now time.Time) bool {
	text, ok := d.scan.plain()
	if !ok {
		return false
	}
	t, msg := ParseTime(string(text))
	if msg != "" {
		return false
	}
	*to = t
	_, ok = d.inBounds(t, now)
	return ok
}

// scanner reads JSON, strictly and without making anything of it.
type scanner struct {
	src  []byte
	at   int
	most int // levels
	// names of the objects that are open, of each behind those of its parent.
	names [][]byte
}

// manyNames is the most names in an object that are compared with one another;
// an object with more is the general decoder's.
const manyNames = 32

// space skips white space and returns where it ends.
func (s *scanner) space() int {
	for s.at < len(s.src) {
		switch s.src[s.at] {
		case ' ', '\t', '\r', '\n':
			s.at++
		default:
			return s.at
		}
	}
	return s.at
}

// take takes c, after white space, if it comes next.
func (s *scanner) take(c byte) bool {
	if at := s.space(); at < len(s.src) && s.src[at] == c {
		s.at++
		return true
	}
	return false
}

// plain takes a string without escapes and returns what is between its quotes.
func (s *scanner) plain() ([]byte, bool) {
	if !s.take('"') {
		return nil, false
	}
	begin, wide := s.at, byte(0)
	for i := begin; i < len(s.src); i++ {
		c := s.src[i]
		if c == '"' {
			s.at = i + 1
			text := s.src[begin:i]
			return text, wide < utf8.RuneSelf || utf8.Valid(text)
		}
		if c < ' ' || c == '\\' {
			return nil, false
		}
		wide |= c
	}
	return nil, false
}

// str takes a string, of which the opening quote comes next.
func (s *scanner) str() bool {
	s.at++
	begin, wide := s.at, byte(0)
	for s.at < len(s.src) {
		c := s.src[s.at]
		s.at++
		switch {
		case c == '"':
			return wide < utf8.RuneSelf || utf8.Valid(s.src[begin:s.at-1])
		case c < ' ':
			return false
		case c == '\\':
			if !s.escape() {
				return false
			}
		default:
			wide |= c
		}
	}
	return false
}

// escape takes what follows a backslash. Halves of surrogate pairs are left to
// the general decoder.
func (s *scanner) escape() bool {
	if s.at == len(s.src) {
		return false
	}
	c := s.src[s.at]
	s.at++
	switch c {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return true
	case 'u':
	default:
		return false
	}
	if len(s.src)-s.at < 4 {
		return false
	}
	r := 0
	for _, h := range s.src[s.at : s.at+4] {
		switch {
		case '0' <= h && h <= '9':
			r = r<<4 | int(h-'0')
		case 'a' <= h && h <= 'f':
			r = r<<4 | int(h-'a'+10)
		case 'A' <= h && h <= 'F':
			r = r<<4 | int(h-'A'+10)
		default:
			return false
		}
	}
	s.at += 4
	return r < 0xd800 || r > 0xdfff
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
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.word("null")
	default:
		return s.number()
	}
}

func (s *scanner) word(w string) bool {
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
	first := len(s.names)
	for {
		name, ok := s.plain()
		if !ok || len(s.names)-first == manyNames {
			return false
		}
		for _, other := range s.names[first:] {
			if bytes.Equal(name, other) {
				return false
			}
		}
		s.names = append(s.names, name)
		if !s.take(':') || !s.value(level+1) {
			return false
		}
		if !s.take(',') {
			s.names = s.names[:first]
			return s.take('}')
		}
	}
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
