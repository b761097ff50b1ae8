package event

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Eight bytes of text, and what is looked for in each of them.
const (
	ones     = 0x0101010101010101
	highs    = 0x80 * ones
	quotes   = '"' * ones
	slashes  = '\\' * ones
	controls = ' ' * ones
)

// text returns the first place from i on with a quote, a backslash or a control
// character, or the end of src, and whether a byte before that is not ASCII. It
// looks at eight bytes at a time: a byte less than n has its high bit set by the
// subtraction of n, and so, falsely, may only bytes behind such a one.
func (s *scanner) text(i int) (at int, wide bool) {
	src := s.src
	for ; len(src)-i >= 8; i += 8 {
		w := binary.LittleEndian.Uint64(src[i:])
		q, b := w^quotes, w^slashes
		stop := ((q-ones)&^q | (b-ones)&^b | (w-controls)&^w) & highs
		if stop != 0 {
			return i + bits.TrailingZeros64(stop)/8, wide || w&highs&(stop&-stop-1) != 0
		}
		wide = wide || w&highs != 0
	}
	for ; i < len(src); i++ {
		switch c := src[i]; {
		case c == '"' || c == '\\' || c < ' ':
			return i, wide
		case c >= utf8.RuneSelf:
			wide = true
		}
	}
	return i, wide
}

// plain takes a string without escapes and returns what is between its quotes.
func (s *scanner) plain() ([]byte, bool) {
	text, _, ok := s.word()
	return text, ok
}

// word is plain, and tells whether what it returns is not ASCII.
func (s *scanner) word() (text []byte, wide, ok bool) {
	if !s.take('"') {
		return nil, false, false
	}
	begin := s.at
	end, wide := s.text(begin)
	if end == len(s.src) || s.src[end] != '"' {
		return nil, false, false
	}
	s.at = end + 1
	text = s.src[begin:end]
	return text, wide, !wide || utf8.Valid(text)
}

// str takes a string, of which the opening quote comes next.
func (s *scanner) str() bool {
	s.at++
	begin, anyWide := s.at, false
	for {
		end, wide := s.text(s.at)
		anyWide = anyWide || wide
		if end == len(s.src) {
			return false
		}
		s.at = end + 1
		switch s.src[end] {
		case '"':
			return !anyWide || utf8.Valid(s.src[begin:end])
		case '\\':
			s.noted.other = true
			if !s.escape() {
				return false
			}
		default:
			return false
		}
	}
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

// unquote returns the string that a valid JSON string literal stands for.
func unquote(raw jsontext.Value) string {
	if inner := raw[1 : len(raw)-1]; bytes.IndexByte(inner, '\\') < 0 {
		return string(inner)
	}
	s, err := jsontext.AppendUnquote(nil, raw)
	if err != nil || !utf8.Valid(s) {
		return strings.ToValidUTF8(string(s), "\uFFFD") // the decoder has refused such text
	}
	return string(s)
}

// deeperThan returns the offset of the first bracket that opens a level deeper
// than most, or -1. It looks only at brackets and strings: whether the text is
// JSON at all is the decoder's business, which without this would recurse to
// its own, much greater bound.
func deeperThan(text []byte, most int) int {
	if bytes.Count(text, []byte("{"))+bytes.Count(text, []byte("[")) <= most {
		return -1
	}
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		c := text[i]
		if quoted {
			switch c {
			case '\\':
				i++
			case '"':
				quoted = false
			}
			continue
		}
		switch c {
		case '"':
			quoted = true
		case '{', '[':
			if depth++; depth > most {
				return i
			}
		case '}', ']':
			depth--
		}
	}
	return -1
}
