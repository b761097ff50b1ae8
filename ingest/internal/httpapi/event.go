package httpapi

import (
	"errors"
	"net/http"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/ingest/internal/delivery"
	"sluice/ingest/internal/problem"
	"sluice/schemas/event"
)

// headerClientEventID names a single post's event as client_event_id does.
const headerClientEventID = "X-Event-Id"

// single is the memory that one post of one event needs, kept for the next.
type single struct {
	reader     reader
	delivery   delivery.Delivery
	deliveries [1]*delivery.Delivery
	headers    [maxHeaders]kgo.RecordHeader
	text       []byte
	answer     []byte
}

func (a *API) single() *single {
	s, ok := a.singles.Get().(*single)
	if !ok {
		s = &single{reader: reader{events: event.NewDecoder(a.cfg.Event)}}
		s.deliveries[0] = &s.delivery
	}
	return s
}

// postEvent takes one event: POST /api/events.
func (a *API) postEvent(w http.ResponseWriter, r *http.Request) *problem.Error {
	form, perr := formOf(r)
	if perr != nil {
		return perr
	}
	var p posting
	if perr := a.enter(&p, w, r, a.cfg.EventBytes, problem.EventTooLarge); perr != nil {
		return perr
	}
	defer a.leave(&p)
	if perr := p.visit.Spend(w, 1); perr != nil {
		return perr
	}
	s := a.single()
	e, extra, faults := s.reader.read(form, r.Header, p.body.Bytes(), p.received)
	if faults == nil {
		faults = s.reader.cloud.Translate(headerID(&e, r.Header, a.cfg.Event))
	}
	var schema string
	if faults == nil {
		schema, faults = p.visit.Check(&e)
		faults = s.reader.cloud.Translate(faults)
	}
	if faults != nil {
		a.singles.Put(s)
		a.metrics.events.rejected.Inc()
		return problem.New(rejectedKind(faults), places(faults), faults...)
	}
	if need := textBound(&e, schema); cap(s.text) < need {
		s.text = make([]byte, 0, need)
	}
	stamp := a.newStamp(r.Header, p.received)
	s.text = stamp.fill(&s.delivery, &e, schema, s.text[:0], s.headers[:0])
	along(&s.delivery, extra, stamp)
	p.body.Release() // all of it is in the record
	if a.parts.Log.Send(r.Context(), s.deliveries[:]) {
		defer a.singles.Put(s) // else someone still holds its memory
	}
	a.cfg.Limiter.Leave(&p.ticket, taken(&s.delivery))
	if err := s.delivery.Err; err != nil {
		return a.sendProblem(err)
	}
	prefer := preferencesOf(r.Header)
	a.await(r, prefer, p.begun, s.deliveries[:])
	a.metrics.events.accepted.Inc()
	a.applied(w.Header(), prefer, false)
	s.answer = appendAccepted(append(s.answer[:0], `{"accepted":true`...), &s.delivery)
	writeJSON(w, acceptedStatus(s.delivery.Status), s.answer)
	if !keepsAnswer(r) {
		s.answer = nil
	}
	return nil
}

// headerID takes the header x-event-id for e's client_event_id.
func headerID(e *event.Event, h http.Header, limits event.Limits) []event.Fault {
	values := h[headerClientEventID]
	if len(values) == 0 {
		return nil
	}
	given := values[0]
	if f, ok := event.CheckField(event.MemberClientEventID, given, limits); !ok {
		f.Detail = "(the header x-event-id) " + f.Detail
		return []event.Fault{f}
	}
	contradicts := e.ClientEventID != "" && e.ClientEventID != given
	for _, v := range values[1:] {
		contradicts = contradicts || v != given
	}
	if contradicts {
		return []event.Fault{{
			Kind: event.FaultMismatch, Pointer: "/" + event.MemberClientEventID,
			Detail:  "is not what the header x-event-id says",
			Allowed: "one of the two, or the same value in both",
		}}
	}
	e.ClientEventID = given
	return nil
}

// rejectedKind is the problem that an event with faults is to its sender.
func rejectedKind(faults []event.Fault) *problem.Kind {
	if faults[0].Kind == event.FaultNotAllowed {
		return problem.SourceNotAllowed
	}
	return problem.InvalidEvent
}

// places words how many faults there are.
func places(faults []event.Fault) string {
	if len(faults) == 1 {
		return faults[0].String()
	}
	return strconv.Itoa(len(faults)) + " faults, listed under error"
}

// sendProblem is the problem of a single event that was not accepted because of
// err.
func (a *API) sendProblem(err error) *problem.Error {
	if delivery.Permanent(err) {
		a.metrics.events.rejected.Inc()
		return problem.New(problem.EventTooLarge, "the log takes no record of this size", logTooLarge())
	}
	a.metrics.events.failed.Inc()
	kind := failedKind(err)
	perr := problem.New(kind, failedDetail[kind])
	var later *delivery.LaterError
	if errors.As(err, &later) {
		perr = perr.With("Retry-After", problem.Seconds(later.After))
	}
	return perr
}

func logTooLarge() event.Fault {
	return event.Fault{Kind: event.FaultTooLarge, Detail: "is larger than the log takes"}
}

// failedKind is the problem that a record not acknowledged is to its sender.
func failedKind(err error) *problem.Kind {
	switch {
	case errors.Is(err, delivery.ErrSpoolFull):
		return problem.SpoolFull
	case errors.Is(err, delivery.ErrFull):
		return problem.Overloaded
	case errors.Is(err, delivery.ErrStopped), errors.Is(err, kgo.ErrClientClosed):
		return problem.Stopping
	}
	return problem.LogUnavailable
}

var failedDetail = map[*problem.Kind]string{
	problem.SpoolFull:      "send it again when Retry-After says; what was accepted before is kept, and goes to the log first",
	problem.Overloaded:     "too much waits for the log's acknowledgement already; send it again later",
	problem.Stopping:       "send it to another edge, or again later",
	problem.LogUnavailable: "the event may be in the log or not; sending it again is safe: it stays one event",
}
