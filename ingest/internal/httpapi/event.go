package httpapi

import (
	"errors"
	"net/http"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/ingest/internal/decode"
	"sluice/ingest/internal/problem"
	"sluice/ingest/internal/produce"
	"sluice/schemas/event"
)

// headerClientEventID names a single post's event as client_event_id does.
const headerClientEventID = "X-Event-Id"

// single is the memory that one post of one event needs, kept for the next.
type single struct {
	decoder *event.Decoder
	record  kgo.Record
	records [1]*kgo.Record
	headers [maxHeaders]kgo.RecordHeader
	text    []byte
	answer  []byte
}

func (a *API) single() *single {
	s, ok := a.singles.Get().(*single)
	if !ok {
		s = &single{decoder: event.NewDecoder(a.cfg.Event)}
		s.records[0] = &s.record
	}
	return s
}

// postEvent takes one event: POST /api/events.
func (a *API) postEvent(w http.ResponseWriter, r *http.Request) *problem.Error {
	if _, err := decode.MediaType(r.Header, decode.TypeJSON); err != nil {
		return err
	}
	body, perr := a.reader.Read(r, a.cfg.EventBytes, problem.EventTooLarge)
	if perr != nil {
		return perr
	}
	defer body.Release()
	received := a.now()
	a.bodyRead(w, r)

	s := a.single()
	e, faults := s.decoder.Decode(body.Bytes(), received)
	if faults == nil {
		faults = headerID(&e, r.Header, a.cfg.Event)
	}
	if faults != nil {
		a.singles.Put(s)
		a.metrics.events.rejected.Inc()
		return problem.New(problem.InvalidEvent, places(faults), faults...)
	}
	if need := textBound(&e); cap(s.text) < need {
		s.text = make([]byte, 0, need)
	}
	id, text := newStamp(r.Header, received).fill(&s.record, &e, s.text[:0], s.headers[:0])
	s.text = text

	err := a.log.Send(r.Context(), s.records[:])
	if settled(err) {
		defer a.singles.Put(s) // else the client still holds its memory
	}
	if err != nil {
		return a.sendProblem(err)
	}
	a.metrics.events.accepted.Inc()
	s.answer = append(s.answer[:0], `{"accepted":true,"event_id":"`...)
	s.answer = appendUUID(s.answer, id)
	s.answer = append(s.answer, `","status":"queued"}`...)
	writeJSON(w, http.StatusAccepted, s.answer)
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

// places words how many faults there are.
func places(faults []event.Fault) string {
	if len(faults) == 1 {
		return faults[0].String()
	}
	return strconv.Itoa(len(faults)) + " faults, listed under error"
}

// settled tells whether Send, having returned err, has let go of its records.
func settled(err error) bool {
	var f *produce.Failure
	return !errors.As(err, &f) || f.Settled
}

// sendProblem is the problem of a single event that Send failed with err.
func (a *API) sendProblem(err error) *problem.Error {
	var f *produce.Failure
	if errors.As(err, &f) {
		err = f.Errs[0]
	}
	if produce.Permanent(err) {
		a.metrics.events.rejected.Inc()
		return problem.New(problem.EventTooLarge, "the log takes no record of this size", logTooLarge())
	}
	a.metrics.events.failed.Inc()
	kind := failedKind(err)
	return problem.New(kind, failedDetail[kind])
}

func logTooLarge() event.Fault {
	return event.Fault{Kind: event.FaultTooLarge, Detail: "is larger than the log takes"}
}

// failedKind is the problem that a record not acknowledged is to its sender.
func failedKind(err error) *problem.Kind {
	switch {
	case errors.Is(err, produce.ErrFull):
		return problem.Overloaded
	case errors.Is(err, produce.ErrStopped), errors.Is(err, kgo.ErrClientClosed):
		return problem.Stopping
	}
	return problem.LogUnavailable
}

var failedDetail = map[*problem.Kind]string{
	problem.Overloaded:     "too much waits for the log's acknowledgement already; send it again later",
	problem.Stopping:       "send it to another edge, or again later",
	problem.LogUnavailable: "the event may be in the log or not; sending it again is safe: it stays one event",
}
