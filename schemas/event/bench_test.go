package event_test

import (
	"testing"
	"time"

	"sluice/schemas/event"
)

var line = []byte(`{"source":"git:snowplow/stream-collector","event_type":"commit_authored","actor_id":"44e073934e80c106","occurred_at":"2012-03-01T13:09:25+00:00","payload":{"commit":"74d22d288960","parents":0,"committed_at":"2012-03-01T13:09:25+00:00","subject_chars":18,"subject_words":2}}`)

func BenchmarkDecode(b *testing.B) {
	d := event.NewDecoder(event.DefaultLimits())
	now := time.Now()
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		if _, faults := d.Decode(line, now); faults != nil {
			b.Fatal(faults)
		}
	}
}

func BenchmarkAppendJSON(b *testing.B) {
	e, _ := event.NewDecoder(event.DefaultLimits()).Decode(line, time.Time{})
	b.ReportAllocs()
	var buf []byte
	for b.Loop() {
		buf = e.AppendJSON(buf[:0])
	}
}

func BenchmarkKeyAndID(b *testing.B) {
	e, _ := event.NewDecoder(event.DefaultLimits()).Decode(line, time.Time{})
	b.ReportAllocs()
	var names event.Namer
	for b.Loop() {
		names.Name(&e)
	}
}

func BenchmarkPayloadHash(b *testing.B) {
	e, _ := event.NewDecoder(event.DefaultLimits()).Decode(line, time.Time{})
	b.ReportAllocs()
	for b.Loop() {
		event.PayloadHash(e.Payload)
	}
}

func BenchmarkDecodeInto(b *testing.B) {
	d := event.NewDecoder(event.DefaultLimits())
	now := time.Now()
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	var e event.Event
	for b.Loop() {
		if _, faults := d.DecodeInto(&e, line, now); faults != nil {
			b.Fatal(faults)
		}
	}
}
