package decode

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"sluice/schemas/event"
)

// ErrTooMany is what a splitter ends with when there are more items than allowed.
var ErrTooMany = errors.New("more items than allowed")

// NotBatch is why a body as a whole is no batch.
type NotBatch struct{ Fault event.Fault }

func (e *NotBatch) Error() string { return e.Fault.String() }

// Array calls yield with the text of each element of the JSON array that body
// holds, in order, without the white space around it. yield tells whether the
// text is a JSON value beyond doubt, because it decoded as one; of the others
// Array finds out.
//
// The array as a whole must be JSON by grammar, to its last byte; otherwise it
// fails with [*NotBatch], possibly after some calls, and none of the elements
// count. What else an element may not be (repeated names, invalid UTF-8, lone
// surrogates, a wrong event) concerns that element alone. More than most
// elements are [ErrTooMany].
//
// The elements are told apart by brackets and quotes alone. That is enough: if
// every piece between the commas turns out to be one JSON value, then the whole
// is an array of just these.
func Array(body []byte, most int, yield func(item []byte) bool) error {
	if bytes.HasPrefix(body, []byte("\xef\xbb\xbf")) {
		return notBatch("", "begins with a byte order mark", "UTF-8 without one (RFC 8259, section 8.1)")
	}
	at := skipSpace(body, 0)
	if at == len(body) {
		return notBatch("", "is empty", wholeArray)
	}
	if body[at] != '[' {
		return notArray(body[at:])
	}
	at++
	n := 0
	for closed := false; !closed; {
		end := itemEnd(body, at)
		if end == len(body) {
			return unclosed(body)
		}
		item := bytes.Trim(body[at:end], whiteSpace)
		closed = body[end] != ','
		if closed && n == 0 && len(item) == 0 && body[end] == ']' {
			return notBatch("", "holds no event", "1 to "+strconv.Itoa(most)+" events")
		}
		if n == most {
			return ErrTooMany
		}
		if !yield(item) {
			if err := grammar(item, n, at); err != nil {
				return err
			}
		}
		n++
		at = end + 1
		if closed && body[end] != ']' {
			return notBatch("", fmt.Sprintf("is not valid JSON at byte %d: %q closes the array", end, body[end]), wholeArray)
		}
	}
	if rest := skipSpace(body, at); rest < len(body) {
		return notBatch("", fmt.Sprintf("goes on after the array, at byte %d", rest), "one JSON array; events one a line are "+TypeNDJSON)
	}
	return nil
}

const (
	whiteSpace = " \t\r\n"
	wholeArray = "one complete JSON array; nothing of a broken one is taken"
)

func skipSpace(text []byte, at int) int {
	for at < len(text) && strings.IndexByte(whiteSpace, text[at]) >= 0 {
		at++
	}
	return at
}

// itemEnd returns where the element that begins at at ends: the place of the
// next comma or closing bracket outside of brackets and quotes, or len(text).
func itemEnd(text []byte, at int) int {
	for depth := 0; at < len(text); at++ {
		switch text[at] {
		case '"':
			end := quoteEnd(text, at+1)
			if end < 0 {
				return len(text)
			}
			at = end
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return at
			}
			depth--
		case ',':
			if depth == 0 {
				return at
			}
		}
	}
	return at
}

// quoteEnd returns the place of the quote that ends the string whose text
// begins at begin, or -1.
func quoteEnd(text []byte, begin int) int {
	for at := begin; ; {
		i := bytes.IndexByte(text[at:], '"')
		if i < 0 {
			return -1
		}
		end := at + i
		slashes := 0
		for end-1-slashes >= begin && text[end-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return end
		}
		at = end + 1
	}
}

// lax is JSON by grammar alone.
var lax = []jsontext.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)}

// grammar tells what keeps the element n, at byte at, from being a JSON value.
func grammar(item []byte, n, at int) error {
	d := jsontext.NewDecoder(bytes.NewBuffer(item), lax...)
	_, err := d.ReadValue()
	if err == nil {
		if _, err = d.ReadToken(); errors.Is(err, io.EOF) {
			return nil
		}
	}
	pointer := "/" + strconv.Itoa(n)
	why, offset := "it is incomplete", int64(len(item))
	if syn := new(jsontext.SyntacticError); errors.As(err, &syn) {
		if syn.Err.Error() == "exceeded max depth" {
			return nil // balanced brackets, and deeper than any event may be: the item's own fault
		}
		pointer += clip(string(syn.JSONPointer))
		why, offset = syn.Err.Error(), syn.ByteOffset
	} else if err == nil {
		why, offset = "a comma is missing", d.InputOffset()
	}
	return notBatch(pointer, fmt.Sprintf("is not valid JSON at byte %d: %s", int64(at)+offset, why), wholeArray)
}

// notArray words what a body that does not begin with a bracket is.
func notArray(body []byte) error {
	d := jsontext.NewDecoder(bytes.NewBuffer(body), lax...)
	if d.PeekKind() == 0 {
		_, err := d.ReadToken()
		return notBatch("", fmt.Sprintf("is not valid JSON: %v", err), wholeArray)
	}
	return notBatch("", "is not an array", "a JSON array of events; a single event goes to /api/events")
}

// unclosed words what is wrong with an array whose end was not found: it is
// broken somewhere, or it ends too early.
func unclosed(body []byte) error {
	var syn *jsontext.SyntacticError
	d := jsontext.NewDecoder(bytes.NewBuffer(body), lax...)
	if _, err := d.ReadValue(); errors.As(err, &syn) && !errors.Is(syn.Err, io.ErrUnexpectedEOF) {
		return notBatch(clip(string(syn.JSONPointer)), fmt.Sprintf("is not valid JSON at byte %d: %v", syn.ByteOffset, syn.Err), wholeArray)
	}
	return notBatch("", "ends too early", wholeArray)
}

// Lines calls yield with each line of body that is not blank, in order, without
// its line end (LF or CRLF). The last line needs none. Each line stands for
// itself: that it is no event concerns that line alone.
//
// It fails with [*NotBatch] when there is no line at all, and with [ErrTooMany]
// when there are more than most.
func Lines(body []byte, most int, yield func(item []byte) bool) error {
	n := 0
	for len(body) > 0 {
		var line []byte
		if i := bytes.IndexByte(body, '\n'); i >= 0 {
			line, body = body[:i], body[i+1:]
		} else {
			line, body = body, nil
		}
		line = bytes.TrimRight(line, " \t\r")
		if len(bytes.TrimLeft(line, " \t")) == 0 {
			continue
		}
		if n++; n > most {
			return ErrTooMany
		}
		yield(line)
	}
	if n == 0 {
		return notBatch("", "holds no event", "1 to "+strconv.Itoa(most)+" events, one a line")
	}
	return nil
}

func notBatch(pointer, detail, allowed string) error {
	return &NotBatch{event.Fault{Kind: event.FaultMalformed, Pointer: pointer, Detail: detail, Allowed: allowed}}
}

// clip bounds how much of what a sender wrote is quoted back.
func clip(s string) string {
	const most = 256
	if len(s) <= most {
		return s
	}
	return string(bytes.ToValidUTF8([]byte(s[:most]), nil)) + "…"
}
