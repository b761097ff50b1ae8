package event

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Decoder decodes events strictly: I-JSON (RFC 7493), names matched exactly,
// unknown members refused. It reuses its memory from one event to the next, so
// it is not for concurrent use; an Event's Payload aliases the body given.
type Decoder struct {
	limits Limits
	json   *jsontext.Decoder
	src    bytes.Buffer
	faults []Fault
	scan   scanner
	noted  noted  // of the payload that scan took last
	text   []byte // its members, put in order
	kept   kept
}

// NewDecoder returns a decoder that accepts events within limits.
func NewDecoder(limits Limits) *Decoder {
	return &Decoder{limits: limits, json: jsontext.NewDecoder(bytes.NewReader(nil))}
}

// Decode reads the one event that body holds. now is what MaxAhead and MaxAge
// are measured from; the zero time leaves both unchecked.
//
// It returns either an event or at least one fault, never both. Every fault of
// a well-formed event is reported; text that is not JSON yields the first.
func (d *Decoder) Decode(body []byte, now time.Time) (Event, []Fault) {
	if e, ok := d.fast(body, now); ok {
		return e, nil
	}
	return d.general(body, now)
}

// general decodes any event and words the faults of any text that is none.
func (d *Decoder) general(body []byte, now time.Time) (Event, []Fault) {
	d.faults = nil
	if f, ok := d.unreadable(body); ok {
		return Event{}, []Fault{f}
	}
	d.src = *bytes.NewBuffer(body)
	d.json.Reset(&d.src)
	if k := d.json.PeekKind(); k != '{' {
		if k != 0 {
			d.fault(FaultType, "", "is "+kindName(k), "one JSON object")
			return Event{}, d.faults
		}
		return Event{}, []Fault{d.syntax(d.json.SkipValue())}
	}
	e, err := d.object(now)
	if err == nil {
		_, err = d.json.ReadToken()
		if err == nil {
			d.fault(FaultMalformed, "", "holds more than one JSON value", "one JSON object; several events go to the batch endpoint")
		} else if errors.Is(err, io.EOF) {
			err = nil
		}
	}
	if err != nil {
		return Event{}, []Fault{d.syntax(err)}
	}
	if len(d.faults) > 0 {
		return Event{}, d.faults
	}
	return e, nil
}

// unreadable finds what is wrong with the text as a whole, before it is parsed.
func (d *Decoder) unreadable(body []byte) (Fault, bool) {
	switch {
	case len(bytes.TrimLeft(body, " \t\r\n")) == 0:
		return Fault{Kind: FaultMalformed, Detail: "is empty", Allowed: "one JSON object"}, true
	case bytes.HasPrefix(body, []byte("\xef\xbb\xbf")):
		return Fault{Kind: FaultMalformed, Detail: "begins with a byte order mark", Allowed: "UTF-8 without one (RFC 8259, section 8.1)"}, true
	}
	if at := deeperThan(body, d.limits.Depth); at >= 0 {
		return Fault{
			Kind:    FaultTooDeep,
			Detail:  "is nested too deeply at byte " + strconv.Itoa(at),
			Allowed: strconv.Itoa(d.limits.Depth) + " levels at most",
		}, true
	}
	return Fault{}, false
}

func (d *Decoder) fault(kind FaultKind, pointer, detail, allowed string) {
	d.faults = append(d.faults, Fault{Kind: kind, Pointer: pointer, Detail: detail, Allowed: allowed})
}

var members = []string{MemberSource, MemberEventType, MemberActorID, MemberOccurredAt, MemberPayload, MemberClientEventID}

// object reads the members of the event. An error means that the text is not
// I-JSON; faults of single members are gathered in d.faults.
func (d *Decoder) object(now time.Time) (Event, error) {
	var e Event
	if _, err := d.json.ReadToken(); err != nil {
		return e, err
	}
	var seen struct{ source, eventType, actorID, occurredAt bool }
	for d.json.PeekKind() == '"' {
		raw, err := d.json.ReadValue()
		if err != nil {
			return e, err
		}
		name := memberName(raw)
		value, err := d.json.ReadValue()
		if err != nil {
			return e, err
		}
		switch name {
		case MemberSource:
			seen.source = true
			e.Source = d.field(name, value)
		case MemberEventType:
			seen.eventType = true
			e.EventType = d.field(name, value)
		case MemberActorID:
			seen.actorID = true
			e.ActorID = d.field(name, value)
		case MemberClientEventID:
			e.ClientEventID = d.field(name, value)
		case MemberOccurredAt:
			seen.occurredAt = true
			e.OccurredAt = d.time(value, now)
		case MemberPayload:
			if k := value.Kind(); k != '{' {
				d.fault(FaultType, "/payload", "is "+kindName(k), "a JSON object; left out it is {}")
			}
			e.Payload = value
		default:
			d.unknown(name)
		}
	}
	if _, err := d.json.ReadToken(); err != nil { // the closing brace
		return e, err
	}
	d.require(seen.source, MemberSource, "a string")
	d.require(seen.eventType, MemberEventType, "a string")
	d.require(seen.actorID, MemberActorID, "a string")
	d.require(seen.occurredAt, MemberOccurredAt, timeAllowed)
	if e.Payload == nil {
		e.Payload = []byte("{}")
	}
	return e, nil
}

// memberName is unquote of a name, without a copy for the known ones.
func memberName(raw jsontext.Value) string {
	for _, m := range members {
		if len(raw) == len(m)+2 && string(raw[1:len(raw)-1]) == m {
			return m
		}
	}
	return unquote(raw)
}

func (d *Decoder) require(seen bool, name, allowed string) {
	if !seen {
		d.fault(FaultMissing, "/"+name, "is missing", allowed)
	}
}

// maxUnknown bounds how many unknown members are named, so that a hostile body
// of a million names is not answered with a million faults.
const maxUnknown = 20

func (d *Decoder) unknown(name string) {
	if len(d.faults) >= maxUnknown {
		return
	}
	allowed := strings.Join(members, ", ")
	if near := Nearest(name, members); near != "" {
		allowed = "did you mean " + near + "?"
	}
	d.fault(FaultUnknown, escapePointer(name), "is not a member of an event", allowed)
}

func (d *Decoder) field(name string, value jsontext.Value) string {
	if k := value.Kind(); k != '"' {
		d.fault(FaultType, "/"+name, "is "+kindName(k), "a string")
		return ""
	}
	s := unquote(value)
	if f, ok := CheckField(name, s, d.limits); !ok {
		d.faults = append(d.faults, f)
	}
	return s
}

// CheckField checks a value of source, event_type, actor_id or client_event_id
// that stands outside an event's JSON, in a header say, by the rules for the
// member name. It returns true, or the fault and false.
func CheckField(name, value string, limits Limits) (Fault, bool) {
	switch {
	case value == "":
		return lengthFault(name, "is empty", limits), false
	case len(value) > limits.FieldBytes:
		return lengthFault(name, "has "+strconv.Itoa(len(value))+" bytes", limits), false
	case strings.IndexByte(value, 0) >= 0:
		return Fault{Kind: FaultCharacter, Pointer: "/" + name, Detail: "contains NUL", Allowed: "any text without U+0000"}, false
	case !utf8.ValidString(value):
		return Fault{Kind: FaultCharacter, Pointer: "/" + name, Detail: "is not UTF-8", Allowed: "UTF-8"}, false
	}
	return Fault{}, true
}

func lengthFault(name, detail string, limits Limits) Fault {
	return Fault{Kind: FaultLength, Pointer: "/" + name, Detail: detail, Allowed: "1 to " + strconv.Itoa(limits.FieldBytes) + " bytes"}
}

const timeAllowed = "an RFC 3339 date-time with a zone, as in 2026-01-02T03:04:05.678Z"

func (d *Decoder) time(value jsontext.Value, now time.Time) time.Time {
	if k := value.Kind(); k != '"' {
		d.fault(FaultType, "/occurred_at", "is "+kindName(k), timeAllowed)
		return time.Time{}
	}
	s := unquote(value)
	t, msg := ParseTime(s)
	if msg != "" {
		d.fault(FaultTime, "/occurred_at", strconv.Quote(clip(s))+" "+msg, timeAllowed)
		return t
	}
	if f, ok := d.inBounds(t, now); !ok {
		d.faults = append(d.faults, f)
	}
	return t
}

var earliest, latest = Earliest.Unix(), Latest.Unix()

// inBounds checks a time against what can be stored and against the limits; it
// returns true, or the fault and false.
func (d *Decoder) inBounds(t, now time.Time) (Fault, bool) {
	if unix := t.Unix(); now.IsZero() && unix > earliest && unix < latest { // nearly always
		return Fault{}, true
	}
	f := Fault{Kind: FaultTimeRange, Pointer: "/occurred_at"}
	switch {
	case t.Before(Earliest) || t.After(Latest):
		f.Detail, f.Allowed = "cannot be stored", Earliest.Format(time.RFC3339)+" to "+Latest.Format(time.RFC3339)
	case now.IsZero():
		return Fault{}, true
	case d.limits.MaxAhead > 0 && t.Sub(now) > d.limits.MaxAhead:
		f.Detail, f.Allowed = "lies in the future", "at most "+d.limits.MaxAhead.String()+" after "+now.UTC().Format(time.RFC3339)
	case d.limits.MaxAge > 0 && now.Sub(t) > d.limits.MaxAge:
		f.Detail, f.Allowed = "is older than what is kept", "at most "+d.limits.MaxAge.String()+" before "+now.UTC().Format(time.RFC3339)
	default:
		return Fault{}, true
	}
	return f, false
}

// syntax words an error of the JSON decoder.
func (d *Decoder) syntax(err error) Fault {
	var syn *jsontext.SyntacticError
	if !errors.As(err, &syn) {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return Fault{Kind: FaultMalformed, Detail: "ends too early", Allowed: "one complete JSON object"}
		}
		return Fault{Kind: FaultMalformed, Detail: "is not valid JSON: " + err.Error()}
	}
	pointer := string(syn.JSONPointer)
	if len(pointer) > 256 {
		pointer = strings.ToValidUTF8(pointer[:256], "") + "…"
	}
	at := fmt.Sprintf(" at byte %d", syn.ByteOffset)
	switch {
	case errors.Is(syn.Err, jsontext.ErrDuplicateName):
		return Fault{Kind: FaultRepeatedName, Pointer: pointer, Detail: "is a repeated name" + at, Allowed: "each name once in an object (RFC 7493, section 2.3)"}
	case errors.Is(syn.Err, io.ErrUnexpectedEOF):
		return Fault{Kind: FaultMalformed, Pointer: pointer, Detail: "ends too early" + at, Allowed: "one complete JSON object"}
	}
	return Fault{
		Kind:    FaultMalformed,
		Pointer: pointer,
		Detail:  "is not valid JSON" + at + ": " + syn.Err.Error(),
		Allowed: "I-JSON (RFC 7493): UTF-8, no comments, no lone surrogates",
	}
}

func kindName(k jsontext.Kind) string {
	switch k {
	case 'n':
		return "null"
	case 't', 'f':
		return "a boolean"
	case '0':
		return "a number"
	case '"':
		return "a string"
	case '[':
		return "an array"
	case '{':
		return "an object"
	}
	return "no JSON value"
}
