package decode

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"sluice/schemas/event"
)

// ErrTooMany is what a splitter ends with when there are more items than allowed.
var ErrTooMany = errors.New("more items than allowed")

// NotBatch is why a body as a whole is no batch.
type NotBatch struct{ Fault event.Fault }

func (e *NotBatch) Error() string { return e.Fault.String() }

// Splitter takes JSON arrays apart. It reuses its memory, so it is not for
// concurrent use.
type Splitter struct {
	json *jsontext.Decoder
	src  bytes.Buffer
}

// NewSplitter returns a splitter.
func NewSplitter() *Splitter {
	return &Splitter{json: jsontext.NewDecoder(bytes.NewReader(nil))}
}

// Array calls yield with the text of each element of the JSON array that body
// holds, in order.
//
// The array as a whole must be JSON by grammar, to its last byte; otherwise it
// fails with [*NotBatch], possibly after some calls, and none of the elements
// count. What else an element may not be (repeated names, invalid UTF-8, lone
// surrogates) is found when the element is decoded, so that it concerns that
// element alone. More than most elements are [ErrTooMany].
func (s *Splitter) Array(body []byte, most int, yield func(item []byte)) error {
	if bytes.HasPrefix(body, []byte("\xef\xbb\xbf")) {
		return notBatch("", "begins with a byte order mark", "UTF-8 without one (RFC 8259, section 8.1)")
	}
	s.src = *bytes.NewBuffer(body)
	s.json.Reset(&s.src, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	defer func() { s.src = bytes.Buffer{} }() // lets go of body
	switch kind := s.json.PeekKind(); kind {
	case '[':
	case 0:
		_, err := s.json.ReadToken()
		return arraySyntax(err)
	default:
		return notBatch("", "is not an array", "a JSON array of events; a single event goes to /api/events")
	}
	if _, err := s.json.ReadToken(); err != nil {
		return arraySyntax(err)
	}
	n := 0
	for s.json.PeekKind() != ']' {
		item, err := s.json.ReadValue()
		if err != nil {
			return arraySyntax(err)
		}
		if n++; n > most {
			return ErrTooMany
		}
		yield(item)
	}
	if _, err := s.json.ReadToken(); err != nil {
		return arraySyntax(err)
	}
	if _, err := s.json.ReadToken(); err == nil {
		return notBatch("", "holds more than one JSON value", "one JSON array; events one a line are "+TypeNDJSON)
	} else if !errors.Is(err, io.EOF) {
		return arraySyntax(err)
	}
	if n == 0 {
		return notBatch("", "holds no event", "1 to "+strconv.Itoa(most)+" events")
	}
	return nil
}

// Lines calls yield with each line of body that is not blank, in order, without
// its line end (LF or CRLF). The last line needs none. Each line stands for
// itself: that it is no event concerns that line alone.
//
// It fails with [*NotBatch] when there is no line at all, and with [ErrTooMany]
// when there are more than most.
func Lines(body []byte, most int, yield func(item []byte)) error {
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

func arraySyntax(err error) error {
	const whole = "one complete JSON array; nothing of a broken one is taken"
	var syn *jsontext.SyntacticError
	switch {
	case errors.As(err, &syn) && !errors.Is(syn.Err, io.ErrUnexpectedEOF):
		return notBatch(clip(string(syn.JSONPointer)), fmt.Sprintf("is not valid JSON at byte %d: %v", syn.ByteOffset, syn.Err), whole)
	case errors.Is(err, io.EOF):
		return notBatch("", "is empty", whole)
	}
	return notBatch("", "ends too early", whole)
}

// clip bounds how much of what a sender wrote is quoted back.
func clip(s string) string {
	const most = 256
	if len(s) <= most {
		return s
	}
	return string(bytes.ToValidUTF8([]byte(s[:most]), nil)) + "…"
}
