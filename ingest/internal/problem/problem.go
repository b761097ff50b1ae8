package problem

import (
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"sluice/schemas/event"
)

// ContentType is the media type of a problem (RFC 9457, section 3).
const ContentType = "application/problem+json"

// Error is one occurrence of a [Kind]: what an edge's handler gives up with.
type Error struct {
	Kind *Kind
	// Detail says what was wrong this time and what to do about it.
	Detail string
	// Faults name the places in the body; none when it is not about the body.
	Faults []event.Fault
	// Header is set on the answer, beside what the kind itself asks for.
	Header http.Header
}

// New returns an occurrence of kind.
func New(kind *Kind, detail string, faults ...event.Fault) *Error {
	return &Error{Kind: kind, Detail: detail, Faults: faults}
}

// With sets a header of the answer and returns e.
func (e *Error) With(name, value string) *Error {
	if e.Header == nil {
		e.Header = http.Header{}
	}
	e.Header.Set(name, value)
	return e
}

func (e *Error) Error() string { return e.Kind.Name + ": " + e.Detail }

// InstancePrefix and the request's id, which the answer also has in X-Request-Id,
// are a problem's instance.
const InstancePrefix = "urn:sluice:request:"

// Write answers w with e. The problem's instance is the request that the answer's
// X-Request-Id names.
func (e *Error) Write(w http.ResponseWriter) error {
	h := w.Header()
	for name, values := range e.Header {
		h[name] = values
	}
	e.Kind.SetHeader(h)
	h.Set("Content-Type", ContentType)
	body := e.appendJSON(nil, h.Get("X-Request-Id"))
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(e.Kind.Status)
	_, err := w.Write(body)
	return err
}

// Seconds is what Retry-After says of d: whole seconds, rounded up, at least one.
func Seconds(d time.Duration) string {
	return strconv.Itoa(max(1, int((d+time.Second-1)/time.Second)))
}

// SetHeader sets the headers that the kind itself asks for; a Retry-After that
// is set already stands.
func (k *Kind) SetHeader(h http.Header) {
	if k.RetryAfter > 0 && h["Retry-After"] == nil {
		h.Set("Retry-After", Seconds(k.RetryAfter))
	}
	if k.Close {
		h.Set("Connection", "close")
	}
}

// AppendJSON appends the problem's JSON object to dst.
func (e *Error) AppendJSON(dst []byte) []byte { return e.appendJSON(dst, "") }

func (e *Error) appendJSON(dst []byte, request string) []byte {
	dst = append(dst, `{"type":"`+TypePrefix...)
	dst = append(dst, e.Kind.Name...)
	dst = append(dst, `","title":`...)
	dst = AppendString(dst, e.Kind.Title)
	dst = append(dst, `,"status":`...)
	dst = strconv.AppendInt(dst, int64(e.Kind.Status), 10)
	if e.Detail != "" {
		dst = append(dst, `,"detail":`...)
		dst = AppendString(dst, e.Detail)
	}
	if request != "" {
		dst = append(dst, `,"instance":`...)
		dst = AppendString(dst, InstancePrefix+request)
	}
	dst = append(dst, `,"retryable":`...)
	dst = strconv.AppendBool(dst, e.Kind.Retryable)
	if len(e.Faults) > 0 {
		dst = append(dst, `,"error":`...)
		dst = AppendFaults(dst, e.Faults)
	}
	return append(dst, '}')
}

// AppendFaults appends the JSON array of faults.
func AppendFaults(dst []byte, faults []event.Fault) []byte {
	dst = append(dst, '[')
	for i, f := range faults {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"pointer":`...)
		dst = AppendString(dst, f.Pointer)
		dst = append(dst, `,"detail":`...)
		dst = AppendString(dst, f.Detail)
		if f.Allowed != "" {
			dst = append(dst, `,"allowed":`...)
			dst = AppendString(dst, f.Allowed)
		}
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

// AppendString appends s as a JSON string; what is not UTF-8 becomes U+FFFD.
func AppendString(dst []byte, s string) []byte {
	dst, _ = jsontext.AppendQuote(dst, s) // the error only tells of the U+FFFD
	return dst
}
