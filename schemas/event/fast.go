package event

import "time"

// fast decodes an event in one pass when there is nothing remarkable about it:
// members known, in plain spelling, everything within the limits. Of anything
// else, faulty or only unusual, it makes nothing and returns false; the general
// decoder then has the say, and words the faults.
//
// Whatever it accepts the general decoder accepts, too, with the same result;
// a fuzz test holds it to that.
func (d *Decoder) fast(body []byte, now time.Time) (Event, bool) {
	var e Event
	ok := d.fastEvent(&e, body, now)
	d.scan.src = nil
	return e, ok
}

// fastEvent is fast. What was seen of the payload is in d.noted then.
func (d *Decoder) fastEvent(e *Event, body []byte, now time.Time) bool {
	s := &d.scan
	s.src, s.at, s.names, s.most = body, 0, s.names[:0], d.limits.Depth
	d.noted = noted{}
	if !s.take('{') {
		return false
	}
	var seen struct{ source, eventType, actorID, occurredAt, payload, clientEventID bool }
	for {
		name, ok := s.plain()
		if !ok || !s.take(':') {
			return false
		}
		switch string(name) {
		case MemberSource:
			ok = d.fastField(&e.Source, &seen.source, &d.kept)
		case MemberEventType:
			ok = d.fastField(&e.EventType, &seen.eventType, &d.kept)
		case MemberActorID:
			ok = d.fastField(&e.ActorID, &seen.actorID, nil)
		case MemberClientEventID:
			ok = d.fastField(&e.ClientEventID, &seen.clientEventID, nil)
		case MemberOccurredAt:
			ok = !seen.occurredAt && d.fastTime(&e.OccurredAt, now)
			seen.occurredAt = true
		case MemberPayload:
			begin := s.space()
			s.noted = noted{}
			ok = !seen.payload && begin < len(s.src) && s.src[begin] == '{' && s.value(payloadLevel)
			seen.payload, d.noted = true, s.noted
			e.Payload = s.src[begin:s.at:s.at]
		default:
			return false
		}
		if !ok {
			return false
		}
		if s.take(',') {
			continue
		}
		break
	}
	if !s.take('}') || s.space() != len(s.src) {
		return false
	}
	if !seen.payload {
		e.Payload = []byte("{}")
	}
	return seen.source && seen.eventType && seen.actorID && seen.occurredAt
}

func (d *Decoder) fastField(to *string, seen *bool, known *kept) bool {
	text, ok := d.scan.plain()
	if !ok || *seen || len(text) == 0 || len(text) > d.limits.FieldBytes {
		return false
	}
	*seen = true
	*to = known.text(text)
	return true
}

// kept are the sources and event types that a decoder met last. There are few of
// each, and most events repeat one: its string is used again instead of made.
type kept [64]string

// longestKept bounds what a decoder holds on to.
const longestKept = 64

// text is b as a string. A nil kept makes it anew.
func (k *kept) text(b []byte) string {
	if k == nil || len(b) > longestKept {
		return string(b)
	}
	at := &k[(len(b)+7*int(b[0])+31*int(b[len(b)-1])+13*int(b[len(b)/2]))%len(k)]
	if *at != string(b) {
		*at = string(b)
	}
	return *at
}

func (d *Decoder) fastTime(to *time.Time, now time.Time) bool {
	text, ok := d.scan.plain()
	if !ok {
		return false
	}
	t, msg := ParseTime(string(text))
	if msg != "" {
		return false
	}
	*to = t
	_, ok = d.inBounds(t, now)
	return ok
}
