// Package problem is the one table of every error the edge can answer with,
// and their form on the wire: problem+json (RFC 9457) with a list of faults.
package problem

import (
	"net/http"
	"time"
)

// Kind is one row of the table: one kind of error.
type Kind struct {
	// Name identifies the kind; with [TypePrefix] before it, it is the
	// problem's type.
	Name string
	// Status is the HTTP status it is answered with.
	Status int
	// Title says it for a person, the same for every occurrence.
	Title string
	// Retryable tells whether the same request can succeed later.
	Retryable bool
	// RetryAfter is what the Retry-After header says, in whole seconds; zero
	// leaves the header out.
	RetryAfter time.Duration
	// Close ends the connection after the answer: what is left of the request
	// is not worth reading.
	Close bool
}

// TypePrefix begins every problem's type. It is a name (RFC 8141), not an
// address: a problem is looked up in the OpenAPI document.
const TypePrefix = "urn:sluice:problem:"

// The table. An edge gives no error that does not stand here; a test compares
// it with the OpenAPI document.
var (
	InvalidEvent = &Kind{
		Name: "invalid-event", Status: http.StatusBadRequest,
		Title: "The event is not valid",
	}
	InvalidBatch = &Kind{
		Name: "invalid-batch", Status: http.StatusBadRequest,
		Title: "The body is not a batch of events",
	}
	InvalidEncoding = &Kind{
		Name: "invalid-encoding", Status: http.StatusBadRequest,
		Title: "The body is not in the coding that Content-Encoding names",
	}
	IncompleteBody = &Kind{
		Name: "incomplete-body", Status: http.StatusBadRequest,
		Title: "The body could not be read to its end", Retryable: true, Close: true,
	}
	Unauthorized = &Kind{
		Name: "unauthorized", Status: http.StatusUnauthorized,
		Title: "A valid key is needed",
	}
	SourceNotAllowed = &Kind{
		Name: "source-not-allowed", Status: http.StatusForbidden,
		Title: "The key is not for events of this source",
	}
	NotFound = &Kind{
		Name: "not-found", Status: http.StatusNotFound,
		Title: "There is nothing at this path",
	}
	MethodNotAllowed = &Kind{
		Name: "method-not-allowed", Status: http.StatusMethodNotAllowed,
		Title: "This path does not take this method",
	}
	BodyTimeout = &Kind{
		Name: "body-timeout", Status: http.StatusRequestTimeout,
		Title: "The body took too long to arrive", Retryable: true, Close: true,
	}
	EventTooLarge = &Kind{
		Name: "event-too-large", Status: http.StatusRequestEntityTooLarge,
		Title: "The event has too many bytes", Close: true,
	}
	BodyTooLarge = &Kind{
		Name: "body-too-large", Status: http.StatusRequestEntityTooLarge,
		Title: "The batch has too many bytes", Close: true,
	}
	TooManyItems = &Kind{
		Name: "too-many-items", Status: http.StatusRequestEntityTooLarge,
		Title: "The batch has too many events",
	}
	UnsupportedMediaType = &Kind{
		Name: "unsupported-media-type", Status: http.StatusUnsupportedMediaType,
		Title: "The body's Content-Type is not taken here",
	}
	UnsupportedEncoding = &Kind{
		Name: "unsupported-encoding", Status: http.StatusUnsupportedMediaType,
		Title: "The body's Content-Encoding is not taken here",
	}
	RateLimited = &Kind{
		Name: "rate-limited", Status: http.StatusTooManyRequests,
		Title:     "The key has sent as many events as it may",
		Retryable: true, RetryAfter: time.Second,
	}
	TooManyGuesses = &Kind{
		Name: "too-many-guesses", Status: http.StatusTooManyRequests,
		Title:      "Too many wrong keys came from this address",
		RetryAfter: 10 * time.Second, Close: true,
	}
	Internal = &Kind{
		Name: "internal", Status: http.StatusInternalServerError,
		Title: "Something failed here that should not have", Retryable: true,
	}
	LogUnavailable = &Kind{
		Name: "log-unavailable", Status: http.StatusServiceUnavailable,
		Title:     "The log did not acknowledge in time",
		Retryable: true, RetryAfter: 2 * time.Second,
	}
	SpoolFull = &Kind{
		Name: "spool-full", Status: http.StatusServiceUnavailable,
		Title:     "The log does not take events now, and the spool has no room",
		Retryable: true, RetryAfter: 30 * time.Second,
	}
	Overloaded = &Kind{
		Name: "overloaded", Status: http.StatusServiceUnavailable,
		Title:     "The edge has as much to do as it gets done in time",
		Retryable: true, RetryAfter: time.Second,
	}
	Stopping = &Kind{
		Name: "stopping", Status: http.StatusServiceUnavailable,
		Title:     "This edge is shutting down",
		Retryable: true, RetryAfter: time.Second, Close: true,
	}
)

// Table lists every kind, ordered by status.
func Table() []*Kind {
	return []*Kind{
		InvalidEvent, InvalidBatch, InvalidEncoding, IncompleteBody,
		Unauthorized, SourceNotAllowed,
		NotFound, MethodNotAllowed, BodyTimeout,
		EventTooLarge, BodyTooLarge, TooManyItems,
		UnsupportedMediaType, UnsupportedEncoding,
		RateLimited, TooManyGuesses,
		Internal,
		LogUnavailable, SpoolFull, Overloaded, Stopping,
	}
}
