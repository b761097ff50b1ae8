package httpapi

import (
	"encoding/hex"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/ingest/internal/delivery"
	"sluice/schemas/event"
	"sluice/schemas/topic"
)

// stamp is what all records of a request have in common.
type stamp struct {
	received    time.Time
	edge        []byte // its name; nil when it has none
	traceparent []byte // nil when there is none
}

func (a *API) newStamp(h http.Header, received time.Time) stamp {
	s := stamp{received: received, edge: a.edge}
	if tp := h.Get("Traceparent"); validTraceparent(tp) {
		s.traceparent = []byte(tp)
	}
	return s
}

// validTraceparent tells whether s is a version 00 traceparent (W3C Trace
// Context, section 3.2); anything else is left out of the log.
func validTraceparent(s string) bool {
	const shape = "00-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-xxxxxxxxxxxxxxxx-xx"
	if len(s) != len(shape) {
		return false
	}
	for i := range len(shape) {
		c, want := s[i], shape[i]
		if want == 'x' && (c < '0' || c > '9') && (c < 'a' || c > 'f') || want != 'x' && c != want {
			return false
		}
	}
	return true
}

const maxHeaders = 5

// textBound is at least the bytes that the key, the value and the headers of e
// have together.
func textBound(e *event.Event, schema string) int {
	tuple := len(e.Source) + len(e.EventType) + len(e.ActorID)
	const names, times, hashes = 128, 64, 36 + 32
	return 3*tuple + 6*(tuple+len(e.ClientEventID)) + len(e.Payload) + len(schema) + names + times + hashes
}

// fill makes d the delivery of e, whose payload the schema of that name accepted
// ("" when none applies). The record's bytes are appended to text, whose
// extended form is returned; text must have room for them ([textBound]), and
// headers, which must be empty, for maxHeaders.
func (s stamp) fill(d *delivery.Delivery, e *event.Event, schema string, text []byte, headers []kgo.RecordHeader) []byte {
	cut := func(from int) []byte { return text[from:len(text):len(text)] }
	at := len(text)
	text = e.AppendKey(text)
	key := cut(at)
	id := event.IDOf(key)

	at = len(text)
	text = e.AppendJSON(text)
	value := cut(at)

	at = len(text)
	text = appendUUID(text, id)
	headers = append(headers, kgo.RecordHeader{Key: topic.HeaderEventID, Value: cut(at)})
	at = len(text)
	hash := event.PayloadHash(e.Payload)
	text = hex.AppendEncode(text, hash[:])
	headers = append(headers, kgo.RecordHeader{Key: topic.HeaderContentHash, Value: cut(at)})
	if s.edge != nil {
		headers = append(headers, kgo.RecordHeader{Key: topic.HeaderEdge, Value: s.edge})
	}
	if schema != "" {
		at = len(text)
		text = append(text, schema...)
		headers = append(headers, kgo.RecordHeader{Key: topic.HeaderSchema, Value: cut(at)})
	}
	if s.traceparent != nil {
		headers = append(headers, kgo.RecordHeader{Key: topic.HeaderTraceparent, Value: s.traceparent})
	}
	*d = delivery.Delivery{
		Record: kgo.Record{Key: key, Value: value, Headers: headers, Timestamp: s.received},
		ID:     id, Hash: hash,
	}
	return text
}

// appendUUID appends the usual 36 characters of id.
func appendUUID(dst []byte, id uuid.UUID) []byte {
	var buf [36]byte
	hex.Encode(buf[0:8], id[0:4])
	buf[8] = '-'
	hex.Encode(buf[9:13], id[4:6])
	buf[13] = '-'
	hex.Encode(buf[14:18], id[6:8])
	buf[18] = '-'
	hex.Encode(buf[19:23], id[8:10])
	buf[23] = '-'
	hex.Encode(buf[24:36], id[10:16])
	return append(dst, buf[:]...)
}
