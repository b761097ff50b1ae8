package cloudevents

import (
	"strings"
	"time"

	"sluice/schemas/event"
)

// naming is how faults name the places of an event: by pointers into the
// structured form, or by the headers of the binary one, whose body is the data.
type naming int

const (
	pointers naming = iota
	headers
)

// attributes are the attributes by the event's member.
var attributes = map[string]string{
	event.MemberSource: "source", event.MemberEventType: "type", event.MemberActorID: "subject",
	event.MemberOccurredAt: "time", event.MemberClientEventID: "id",
}

// mostFaults bounds how many are listed, as for any other event.
const mostFaults = 20

// fault notes what is wrong with the attribute, or the data, of that name.
func (d *Decoder) fault(kind event.FaultKind, name, detail, allowed string) {
	if len(d.faults) < mostFaults {
		d.faults = append(d.faults, d.names.fault(event.Fault{Kind: kind, Detail: detail, Allowed: allowed}, name))
	}
}

// fault names the attribute that f is about.
func (n naming) fault(f event.Fault, attribute string) event.Fault {
	if len(attribute) > 64 {
		attribute = strings.ToValidUTF8(attribute[:64], "") + "…"
	}
	if n == headers {
		f.Pointer, f.Detail = "", "the header ce-"+attribute+" "+f.Detail
		return f
	}
	f.Pointer = "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(attribute)
	return f
}

// translate names a fault of the event as a fault of what it was made from.
func (d *Decoder) translate(f event.Fault) event.Fault {
	if f.Kind == event.FaultTooDeep {
		f.Detail = "is nested too deeply" // the byte it names is none that was sent
	}
	member, rest, nested := strings.Cut(strings.TrimPrefix(f.Pointer, "/"), "/")
	if nested {
		rest = "/" + rest
	}
	switch {
	case member == event.MemberPayload && d.names == headers:
		f.Pointer = rest
	case member == event.MemberPayload:
		f.Pointer = "/data" + rest
	case attributes[member] != "":
		if f.Kind == event.FaultMissing && (member == event.MemberActorID || member == event.MemberOccurredAt) {
			f.Allowed += "; CloudEvents leaves it open, here it is part of what makes two events the same"
		}
		return d.names.fault(f, attributes[member])
	}
	return f
}

// Translate names faults of the event last read, found afterwards, as faults of
// what it was made from. A nil decoder changes nothing: the event was no
// CloudEvent.
func (d *Decoder) Translate(faults []event.Fault) []event.Fault {
	if d == nil {
		return faults
	}
	for i := range faults {
		faults[i] = d.translate(faults[i])
	}
	return faults
}

// malformed words, as the event decoder does, what is wrong with a text that is
// not one I-JSON object.
func (d *Decoder) malformed(text []byte, now time.Time) []event.Fault {
	_, faults := d.events.Decode(text, now)
	for _, f := range faults {
		switch {
		case f.Kind == event.FaultMalformed, f.Kind == event.FaultRepeatedName, f.Kind == event.FaultTooDeep,
			f.Kind == event.FaultType && f.Pointer == "":
			return []event.Fault{f}
		}
	}
	return []event.Fault{{Kind: event.FaultMalformed, Detail: "is not valid JSON", Allowed: "one JSON object"}}
}
