package httpapi

import (
	"net/http"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/ingest/internal/cloudevents"
	"sluice/ingest/internal/decode"
	"sluice/ingest/internal/delivery"
	"sluice/ingest/internal/problem"
	"sluice/schemas/event"
	"sluice/schemas/topic"
)

// form is how a single event is written.
type form int

const (
	plain      form = iota
	structured      // a CloudEvent, attributes and data in one object
	binary          // a CloudEvent, attributes in headers
)

// formOf tells how the event of a request is written, by its headers alone.
func formOf(r *http.Request) (form, *problem.Error) {
	isBinary := cloudevents.IsBinary(r.Header)
	if isBinary && r.ContentLength == 0 && r.Header.Get("Content-Type") == "" {
		return binary, nil // an event without data
	}
	media, err := decode.MediaType(r.Header, singleTypes...)
	switch {
	case err != nil:
		return plain, err
	case media == cloudevents.TypeStructured:
		return structured, nil
	case isBinary:
		return binary, nil
	}
	return plain, nil
}

// reader decodes events of any form; of CloudEvents only when it must.
type reader struct {
	events *event.Decoder
	clouds *cloudevents.Decoder
	// cloud is clouds when the event last read was a CloudEvent, else nil.
	cloud *cloudevents.Decoder
}

// read reads an event, and what goes along with it.
func (d *reader) read(f form, h http.Header, body []byte, now time.Time) (event.Event, []cloudevents.Attribute, []event.Fault) {
	d.cloud = nil
	if f == plain {
		e, faults := d.events.Decode(body, now)
		return e, nil, faults
	}
	if d.clouds == nil {
		d.clouds = cloudevents.NewDecoder(d.events)
	}
	d.cloud = d.clouds
	if f == structured {
		return d.clouds.Structured(body, now)
	}
	return d.clouds.Binary(h, body, now)
}

// along puts what goes along with a CloudEvent into its record's headers. The
// trace context of its own counts where the request has none.
func along(d *delivery.Delivery, extra []cloudevents.Attribute, s stamp) {
	for _, a := range extra {
		value := []byte(a.Value)
		d.Record.Headers = append(d.Record.Headers, kgo.RecordHeader{Key: topic.HeaderExtension + a.Name, Value: value})
		if a.Name == "traceparent" && s.traceparent == nil && validTraceparent(a.Value) {
			d.Record.Headers = append(d.Record.Headers, kgo.RecordHeader{Key: topic.HeaderTraceparent, Value: value})
		}
	}
}
