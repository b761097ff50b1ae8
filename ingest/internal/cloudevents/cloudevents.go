// Package cloudevents reads CloudEvents 1.0 in the three forms that HTTP has for
// them: structured, batched and binary. Each becomes an event of ours:
//
//	source → source, type → event_type, subject → actor_id, time → occurred_at,
//	id → client_event_id, data (or data_base64) → payload
//
// subject and time, which CloudEvents leaves open, are required here: they are
// part of what makes two events the same. datacontenttype must be JSON or absent,
// and data an object. What else an event carries, dataschema and extensions, goes
// along in the record's headers as Kafka's protocol binding has it, ce_NAME: it is
// kept in the log, for whoever reads it there, and is no part of the event, of
// its identity or of its row.
package cloudevents

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"sluice/schemas/event"
)

// Media types of the structured and the batched form.
const (
	TypeStructured = "application/cloudevents+json"
	TypeBatch      = "application/cloudevents-batch+json"
)

// Version is the only specversion there is.
const Version = "1.0"

// Bounds of what goes along.
const (
	// MostExtra is how many attributes may go along with an event.
	MostExtra = 20
	// MostExtraBytes is how long the value of each may be.
	MostExtraBytes = 1024
)

// Attribute is one that goes along with an event.
type Attribute struct{ Name, Value string }

// Decoder reads one event after another, reusing its memory: an Event's payload
// and the attributes are valid until the next. It is not for concurrent use.
type Decoder struct {
	events  *event.Decoder
	json    *jsontext.Decoder
	src     bytes.Buffer
	text    []byte // the event as the event decoder takes it
	payload bool   // text has one
	extra   []Attribute
	faults  []event.Fault
	names   naming
}

// NewDecoder returns a decoder that hands what it has translated to events, which
// decides, as for any other event, what is right.
func NewDecoder(events *event.Decoder) *Decoder {
	return &Decoder{events: events, json: jsontext.NewDecoder(bytes.NewReader(nil))}
}

// Structured reads an event whose attributes and data are members of one JSON
// object. It returns the event and what goes along with it, or faults, whose
// pointers are into body.
func (d *Decoder) Structured(body []byte, now time.Time) (event.Event, []Attribute, []event.Fault) {
	d.begin(pointers)
	if err := d.members(body); err != nil {
		return event.Event{}, nil, d.malformed(body, now)
	}
	return d.end(now)
}

// mostKept is how much memory is kept for the next event.
const mostKept = 64 << 10

func (d *Decoder) begin(names naming) {
	d.names, d.faults, d.extra, d.payload = names, nil, d.extra[:0], false
	if cap(d.text) > mostKept {
		d.text = nil
	}
	d.text = append(d.text[:0], '{')
}

// end has the event decoder read what was gathered.
func (d *Decoder) end(now time.Time) (event.Event, []Attribute, []event.Fault) {
	d.text = append(d.text, '}')
	e, faults := d.events.Decode(d.text, now)
	for _, f := range faults {
		d.faults = append(d.faults, d.translate(f))
	}
	if d.faults != nil {
		return event.Event{}, nil, d.faults
	}
	return e, d.extra, nil
}

// mapped are the attributes that are members of an event.
var mapped = map[string]string{
	"source": event.MemberSource, "type": event.MemberEventType, "subject": event.MemberActorID,
	"time": event.MemberOccurredAt, "id": event.MemberClientEventID,
}

const idAllowed = "a string: CloudEvents requires it"

// members reads the members of a structured event. An error means that body is
// not one I-JSON object.
func (d *Decoder) members(body []byte) error {
	d.src = *bytes.NewBuffer(body)
	d.json.Reset(&d.src)
	if d.json.PeekKind() != '{' {
		return errors.New("not an object")
	}
	if _, err := d.json.ReadToken(); err != nil {
		return err
	}
	var seen struct{ version, id, data, base64 bool }
	for d.json.PeekKind() == '"' {
		token, err := d.json.ReadToken()
		if err != nil {
			return err
		}
		name := token.String() // before the next read
		value, err := d.json.ReadValue()
		if err != nil {
			return err
		}
		switch name {
		case "data":
			seen.data = true
			d.member(event.MemberPayload, value)
			continue
		case "data_base64":
			seen.base64 = value.Kind() != 'n'
			d.base64(value)
			continue
		}
		if value.Kind() == 'n' { // stands for an attribute that is not set
			continue
		}
		switch name {
		case "specversion":
			seen.version = true
			d.version(stringOf(value))
		case "datacontenttype":
			d.contentType(stringOf(value))
		case "id":
			seen.id = true
			d.member(mapped[name], value)
		case "source", "type", "subject", "time":
			d.member(mapped[name], value)
		default:
			d.attribute(name, value)
		}
	}
	if _, err := d.json.ReadToken(); err != nil {
		return err
	}
	if _, err := d.json.ReadToken(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	if seen.data && seen.base64 {
		d.fault(event.FaultMismatch, "data_base64", "stands beside data", "one of the two")
	}
	d.require(seen.version, "specversion", strconv.Quote(Version))
	d.require(seen.id, "id", idAllowed)
	return nil
}

// member makes value, which is valid JSON, a member of the event. Of two payloads
// the first is taken; the second is a fault already.
func (d *Decoder) member(name string, value []byte) {
	if name == event.MemberPayload {
		if d.payload {
			return
		}
		d.payload = true
	}
	if len(d.text) > 1 {
		d.text = append(d.text, ',')
	}
	d.text = append(d.text, '"')
	d.text = append(d.text, name...)
	d.text = append(append(d.text, `":`...), value...)
}

func (d *Decoder) require(seen bool, name, allowed string) {
	if !seen {
		d.fault(event.FaultMissing, name, "is missing", allowed)
	}
}

func (d *Decoder) version(v string, isString bool) {
	if !isString || v != Version {
		d.fault(event.FaultUnknown, "specversion", "is not a version that is known here", strconv.Quote(Version))
	}
}

// contentType takes the media types whose data are JSON.
func (d *Decoder) contentType(v string, isString bool) {
	media, _, err := mime.ParseMediaType(v)
	if !isString || err != nil || !strings.HasSuffix(media, "/json") && !strings.HasSuffix(media, "+json") {
		d.fault(event.FaultType, "datacontenttype", "is not JSON", "application/json, or nothing")
	}
}

// base64 takes data that are written in base64: they must be JSON all the same.
func (d *Decoder) base64(value jsontext.Value) {
	if value.Kind() == 'n' {
		return
	}
	const allowed = "a JSON object, in base64 (RFC 4648, section 4)"
	s, ok := stringOf(value)
	if !ok {
		d.fault(event.FaultType, "data_base64", "is not a string", allowed)
		return
	}
	data, err := base64.StdEncoding.Strict().DecodeString(s)
	switch {
	case err != nil || strings.ContainsAny(s, "\r\n"):
		d.fault(event.FaultMalformed, "data_base64", "is not base64", allowed)
	case !jsontext.Value(data).IsValid(): // else what stands behind it would be members of the event
		d.fault(event.FaultMalformed, "data_base64", "does not hold I-JSON", allowed)
	case jsontext.Value(data).Kind() != '{':
		d.fault(event.FaultType, "data_base64", "does not hold an object", allowed)
	default:
		d.member(event.MemberPayload, data)
	}
}

// attribute takes one that goes along.
func (d *Decoder) attribute(name string, value jsontext.Value) {
	var text string
	switch value.Kind() {
	case '"':
		text, _ = stringOf(value)
	case 't', 'f':
		text = string(value)
	case '0':
		if n, err := strconv.ParseInt(string(value), 10, 32); err == nil {
			text = strconv.FormatInt(n, 10)
			break
		}
		fallthrough
	default:
		d.fault(event.FaultType, name, "is of no type that an attribute can have", "a string, a boolean or an integer of 32 bits")
		return
	}
	d.along(name, text)
}

// along keeps an attribute that goes along, unless it must not.
func (d *Decoder) along(name, text string) {
	switch {
	case !validName(name):
		d.fault(event.FaultUnknown, name, "is not the name of an attribute", "lower-case letters and digits, at most 64 of them; the event's own members stand in data")
	case len(text) > MostExtraBytes:
		d.fault(event.FaultLength, name, "has "+strconv.Itoa(len(text))+" bytes", "at most "+strconv.Itoa(MostExtraBytes))
	case strings.IndexByte(text, 0) >= 0:
		d.fault(event.FaultCharacter, name, "contains NUL", "any text without U+0000")
	case len(d.extra) == MostExtra:
		d.fault(event.FaultLength, name, "is one attribute too many", strconv.Itoa(MostExtra)+" besides those that CloudEvents itself has")
	default:
		d.extra = append(d.extra, Attribute{name, text})
	}
}

func validName(name string) bool {
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return name != "" && len(name) <= 64
}

func stringOf(value jsontext.Value) (string, bool) {
	if value.Kind() != '"' {
		return "", false
	}
	s, err := jsontext.AppendUnquote(nil, value)
	return string(s), err == nil
}
