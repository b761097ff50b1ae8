// Package statement finds in a ClickHouse statement the few things that a
// server must know before the engine parses it: whether an INSERT's data come
// after it, in which format, and what names must be answered for the engine.
package statement

import (
	"iter"
	"strings"
)

// token is a piece of a statement that is neither space nor comment.
type token struct {
	text  string
	at    int // byte offset in the statement
	depth int // how many brackets are open around it
	word  bool
}

func (t token) is(keyword string) bool { return t.word && strings.EqualFold(t.text, keyword) }

func (t token) end() int { return t.at + len(t.text) }

// tokens yields the tokens of q in order. It never fails: what is left open
// ends where q does.
func tokens(q string) iter.Seq[token] {
	return func(yield func(token) bool) {
		depth := 0
		for i := skip(q, 0); i < len(q); {
			t := token{at: i, depth: depth}
			switch c := q[i]; {
			case c == '\'' || c == '"' || c == '`':
				t.text = q[i:quotedEnd(q, i)]
			case c == '$' && heredocEnd(q, i) > 0:
				t.text = q[i:heredocEnd(q, i)]
			case isWord(c):
				n := i + 1
				for n < len(q) && isWord(q[n]) {
					n++
				}
				t.text, t.word = q[i:n], true
			default:
				switch c {
				case '(', '[', '{':
					depth++
				case ')', ']', '}':
					depth = max(depth-1, 0)
					t.depth = depth
				}
				t.text = q[i : i+1]
			}
			if !yield(t) {
				return
			}
			i = skip(q, t.end())
		}
	}
}

// skip returns where the next token begins, past spaces and comments.
func skip(q string, i int) int {
	for i < len(q) {
		rest := q[i:]
		switch c := q[i]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v' || c == 0:
			i++
		case strings.HasPrefix(rest, "--"), strings.HasPrefix(rest, "#!"), strings.HasPrefix(rest, "# "):
			i = after(q, i, "\n")
		case strings.HasPrefix(rest, "/*"):
			i = after(q, i+2, "*/")
		default:
			return i
		}
	}
	return len(q)
}

// after returns the offset just past the next mark, or the end of q.
func after(q string, i int, mark string) int {
	if i > len(q) {
		return len(q)
	}
	n := strings.Index(q[i:], mark)
	if n < 0 {
		return len(q)
	}
	return i + n + len(mark)
}

func quotedEnd(q string, i int) int {
	quote := q[i]
	for i++; i < len(q); i++ {
		switch q[i] {
		case '\\':
			i++
		case quote:
			return i + 1
		}
	}
	return len(q)
}

// heredocEnd returns the end of $tag$text$tag$ at i, or 0 if there is none.
func heredocEnd(q string, i int) int {
	n := strings.IndexByte(q[i+1:], '$')
	if n < 0 {
		return 0
	}
	tag := q[i : i+n+2]
	for _, c := range []byte(tag[1 : len(tag)-1]) {
		if c == '$' || !isWord(c) {
			return 0
		}
	}
	if end := strings.Index(q[i+len(tag):], tag); end >= 0 {
		return i + end + 2*len(tag)
	}
	return 0
}

func isWord(c byte) bool {
	return c == '_' || c == '$' || c >= 0x80 || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
