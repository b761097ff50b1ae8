package server

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// ClickHouse error codes that this server itself gives.
const (
	codeSyntax       = 62
	codeCannotRead   = 33
	codeNotSupported = 48
	codeSameID       = 216
	codeMediaType    = 779
	codeUnknown      = 1001
)

// exception is an error as ClickHouse words it.
type exception struct {
	code int
	text string // after "Code: N. ", with the error's name in brackets
}

func (e *exception) Error() string { return fmt.Sprintf("Code: %d. %s", e.code, e.text) }

var codeAtStart = regexp.MustCompile(`^Code: (\d+)\. `)

// asException reads the code from an engine's error.
func asException(err error) *exception {
	var e *exception
	if errors.As(err, &e) {
		return e
	}
	text := err.Error()
	m := codeAtStart.FindStringSubmatch(text)
	if m == nil {
		return &exception{codeUnknown, "DB::Exception: " + text}
	}
	code, _ := strconv.Atoi(m[1]) // digits, by the expression
	return &exception{code, strings.TrimSpace(text[len(m[0]):])}
}

// httpStatus is the status that ClickHouse's own server gives an error code.
func httpStatus(code int) int {
	switch code {
	case 6, 8, 15, 25, 26, 27, 36, 37, 38, 41, 44, 53, 62, 72, 117, 123, 167, 168, 223, 321, 376, 427, 441, 675, 676:
		return http.StatusBadRequest
	case 194:
		return http.StatusUnauthorized
	case 192, 193, 497, 512, 516:
		return http.StatusForbidden
	case 46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 152, 336, 511:
		return http.StatusNotFound
	case 159:
		return http.StatusRequestTimeout
	case 381:
		return http.StatusLengthRequired
	case 229:
		return http.StatusRequestEntityTooLarge
	case codeMediaType:
		return http.StatusUnsupportedMediaType
	case codeNotSupported:
		return http.StatusNotImplemented
	case 76, 209, 439:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// text is the exception's line, as ClickHouse's server writes it.
func (s *Server) text(e *exception) string {
	return fmt.Sprintf("%s (version %s (embedded))\n", e.Error(), s.version)
}

// fail answers err. Nothing must have been written to w.
func (s *Server) fail(w http.ResponseWriter, err error) {
	e := asException(err)
	h := w.Header()
	h.Del("Content-Encoding")
	h.Set("X-ClickHouse-Exception-Code", strconv.Itoa(e.code))
	h.Set("Content-Type", "text/plain; charset=UTF-8")
	w.WriteHeader(httpStatus(e.code))
	_, _ = w.Write([]byte(s.text(e))) // a client that left is no one's loss
}
