package httpapi

import (
	"errors"
	"net/http"
	"slices"
	"strconv"

	"sluice/ingest/internal/decode"
	"sluice/ingest/internal/delivery"
	"sluice/ingest/internal/problem"
)

func writeJSON(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h["Content-Type"] = jsonType
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client has left; the server notes it
}

// keepsAnswer tells whether the memory of r's answer is free once it is written. On
// HTTP/2 a stream that its client resets ends the writing while a frame of it may
// still be on its way out.
func keepsAnswer(r *http.Request) bool { return r.ProtoMajor == 1 }

var jsonType = []string{decode.TypeJSON}

// result is what became of a batch.
type result struct {
	items []item

	accepted, rejected, failed int
	stored, deduplicated       int   // of the accepted
	failedBy                   error // of the first that failed
}

// status is 202 when all are accepted, or 200 when all are stored; 400 when all
// are rejected, 503 when none is accepted and some failed, else 207.
func (r *result) status() int {
	switch {
	case r.stored == len(r.items):
		return http.StatusOK
	case r.accepted == len(r.items):
		return http.StatusAccepted
	case r.accepted > 0:
		return http.StatusMultiStatus
	case r.failed > 0:
		return http.StatusServiceUnavailable
	}
	return http.StatusBadRequest
}

func (r *result) count(m *metrics) {
	m.events.accepted.Add(float64(r.accepted))
	m.events.rejected.Add(float64(r.rejected))
	m.events.failed.Add(float64(r.failed))
	for i := range r.items {
		m.fault(r.items[i].faults)
	}
}

// write answers with the counts and the items, without the accepted ones when
// minimal. The answer is made in dst and returned.
func (r *result) write(w http.ResponseWriter, minimal bool, dst []byte) []byte {
	status := r.status()
	if status == http.StatusServiceUnavailable {
		retryLater(w.Header(), r.failedBy)
	}
	dst = r.appendJSON(dst, minimal)
	writeJSON(w, status, dst)
	return dst
}

func (r *result) appendJSON(dst []byte, minimal bool) []byte {
	const acceptedBytes, otherBytes = 84, 200 // of an item, about
	size := 128 + otherBytes*(r.rejected+r.failed)
	if !minimal {
		size += acceptedBytes * r.accepted
	}
	dst = slices.Grow(dst, size)
	dst = append(dst, `{"accepted":`...)
	dst = strconv.AppendInt(dst, int64(r.accepted), 10)
	dst = append(dst, `,"deduplicated":`...)
	dst = strconv.AppendInt(dst, int64(r.deduplicated), 10)
	dst = append(dst, `,"rejected":`...)
	dst = strconv.AppendInt(dst, int64(r.rejected), 10)
	dst = append(dst, `,"failed":`...)
	dst = strconv.AppendInt(dst, int64(r.failed), 10)
	dst = append(dst, `,"items":[`...)
	first := true
	for i := range r.items {
		it := &r.items[i]
		accepted := it.faults == nil && it.delivery.Err == nil
		if accepted && minimal {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(dst, `{"index":`...)
		dst = strconv.AppendInt(dst, int64(i), 10)
		switch {
		case accepted:
			dst = appendAccepted(dst, it.delivery)
		case it.faults != nil:
			dst = append(dst, `,"status":"rejected","error":`...)
			dst = problem.AppendFaults(dst, it.faults)
			dst = append(dst, '}')
		default:
			dst = append(dst, `,"status":"failed","retryable":true}`...)
		}
	}
	return append(dst, "]}"...)
}

// appendAccepted goes on with an accepted event's object, and ends it.
func appendAccepted(dst []byte, d *delivery.Delivery) []byte {
	dst = append(dst, `,"event_id":"`...)
	dst = appendUUID(dst, d.ID)
	dst = append(dst, `","status":"`...)
	dst = append(dst, d.Status.String()...)
	dst = append(dst, '"')
	if d.Repeat {
		dst = append(dst, `,"deduplicated":true`...)
	}
	if d.Conflict {
		dst = append(dst, `,"conflict":true`...)
	}
	return append(dst, '}')
}

// acceptedStatus is what a single accepted event is answered with.
func acceptedStatus(s delivery.Status) int {
	if s == delivery.Stored {
		return http.StatusOK
	}
	return http.StatusAccepted
}

// retryLater sets the headers of an answer that says, because of err, to try
// again.
func retryLater(h http.Header, err error) {
	var later *delivery.LaterError
	if errors.As(err, &later) {
		h.Set("Retry-After", problem.Seconds(later.After))
	}
	failedKind(err).SetHeader(h)
}
