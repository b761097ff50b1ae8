package main

import (
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	demo "sluice/deploy/demo/sample"
	"sluice/schemas/event"
)

// sample is the demo's events, over and over, at times of one's choice.
type sample struct{ events []event.Event }

func readSample() (*sample, error) {
	events, err := demo.Events("")
	return &sample{events}, err
}

// event is the n-th event, at a time of its own: two of one time are repeats
// only by chance.
func (s *sample) event(n int, at time.Time) event.Event {
	e := s.events[n%len(s.events)]
	e.OccurredAt = at.UTC()
	return e
}

// record is the n-th event as the edge would write it, in the partition of its
// key. Its timestamp is stamp, or when it is produced if that is zero.
func (s *sample) record(n int, at, stamp time.Time, partitions int) *kgo.Record {
	e := s.event(n, at)
	key := e.AppendKey(nil)
	return &kgo.Record{Key: key, Value: e.AppendJSON(nil), Timestamp: stamp, Partition: event.Partition(key, int32(partitions))}
}

// original is which event the n-th record carries where every twentieth is a
// repeat of one ten before it.
func original(n int) int {
	if n%20 == 19 {
		return n - 10
	}
	return n
}

// quantile is the smallest value that a share q of sorted does not exceed.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, max(0, int(math.Ceil(q*float64(len(sorted))))-1))]
}
