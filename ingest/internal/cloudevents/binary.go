package cloudevents

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"sluice/schemas/event"
)

// prefix begins the headers that are attributes, as net/http spells it.
const prefix = "Ce-"

// IsBinary tells whether the headers are those of an event in binary form: they
// have one of the attributes that every event has.
func IsBinary(h http.Header) bool {
	return h["Ce-Specversion"] != nil || h["Ce-Id"] != nil || h["Ce-Source"] != nil || h["Ce-Type"] != nil
}

// Binary reads an event whose attributes are headers and whose data are body;
// none when it is empty. Whether the body's media type is JSON is the caller's
// business. Faults of an attribute name its header; those of the data have
// pointers into body.
func (d *Decoder) Binary(h http.Header, body []byte, now time.Time) (event.Event, []Attribute, []event.Fault) {
	d.begin(headers)
	if len(bytes.TrimLeft(body, " \t\r\n")) > 0 {
		if !jsontext.Value(body).IsValid() { // else what stands behind it would be members of the event
			return event.Event{}, nil, d.malformed(body, now)
		}
		d.member(event.MemberPayload, body)
	}
	var names []string
	for name := range h {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		d.header(strings.ToLower(name[len(prefix):]), h[name])
	}
	for _, name := range []string{"specversion", "id"} {
		d.require(h[prefix+strings.ToUpper(name[:1])+name[1:]] != nil, name, map[string]string{"specversion": Version, "id": idAllowed}[name])
	}
	return d.end(now)
}

// header takes an attribute from its header.
func (d *Decoder) header(name string, values []string) {
	if len(values) != 1 {
		d.fault(event.FaultRepeatedName, name, "is there more than once", "each attribute once")
		return
	}
	value, fault := decodeHeader(values[0])
	if fault != "" {
		d.fault(event.FaultCharacter, name, fault, "printable ASCII, all else as UTF-8 in %XX (CloudEvents, HTTP binding, section 3.1.3.2)")
		return
	}
	switch {
	case name == "specversion":
		d.version(value, true)
	case mapped[name] != "":
		quoted, _ := jsontext.AppendQuote(nil, value) // it is UTF-8
		d.member(mapped[name], quoted)
	case name == "datacontenttype" || name == "data" || name == "data_base64":
		d.fault(event.FaultUnknown, name, "is not an attribute of the binary form", "Content-Type, and the body")
	default:
		d.along(name, value)
	}
}

// decodeHeader undoes what the HTTP binding does to a value (section 3.1.3.2):
// quotes around it, then %XX. fault says why it cannot be undone.
func decodeHeader(s string) (value, fault string) {
	s = strings.Trim(s, " \t")
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		s = s[1 : len(s)-1]
		if strings.IndexByte(s, '\\') >= 0 {
			var b strings.Builder
			for i := 0; i < len(s); i++ {
				if s[i] == '\\' && i+1 < len(s) {
					i++
				}
				b.WriteByte(s[i])
			}
			s = b.String()
		}
	}
	if strings.IndexByte(s, '%') >= 0 {
		out := make([]byte, 0, len(s))
		for i := 0; i < len(s); i++ {
			if s[i] != '%' {
				out = append(out, s[i])
				continue
			}
			if i+2 >= len(s) || unhex(s[i+1]) < 0 || unhex(s[i+2]) < 0 {
				return "", "has a % that two hexadecimal digits do not follow"
			}
			out = append(out, byte(unhex(s[i+1])<<4|unhex(s[i+2])))
			i += 2
		}
		s = string(out)
	}
	if !utf8.ValidString(s) {
		return "", "is not UTF-8"
	}
	return s, ""
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
