package schema

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/schemas/event"
)

// Bounds are how much of the log is read; what is reached first ends it.
type Bounds struct {
	Records int           // over all partitions
	Bytes   int64         // of values
	Time    time.Duration // from the start
}

// LogReport is what the versions of a set make of the log's last records.
type LogReport struct {
	Records int `json:"records"`
	// Ended tells what ended the reading: "all that the bounds allow", "bytes" or
	// "time".
	Ended string `json:"ended"`
	// Malformed records are no events; Unregistered are of types without a schema.
	Malformed    int `json:"malformed"`
	Unregistered int `json:"unregistered"`
	// Refused are accepted by no version of their type.
	Refused  int             `json:"refused"`
	Versions []VersionReport `json:"versions"`
}

// VersionReport is what one version makes of the events of its type.
type VersionReport struct {
	Version string `json:"version"`
	Accepts int    `json:"accepts"`
	Refuses int    `json:"refuses"`
	// Example is the last record that it refuses; nil when there is none.
	Example *Example `json:"example,omitempty"`
}

// Example is a record that a version refuses, and why.
type Example struct {
	Partition int32         `json:"partition"`
	Offset    int64         `json:"offset"`
	Faults    []event.Fault `json:"error"`
}

// AgainstLog tries every version of set on the last records of topic. client is
// used for nothing else meanwhile; its topics and partitions are set here.
func AgainstLog(ctx context.Context, client *kgo.Client, topic string, set *Set, bounds Bounds) (*LogReport, error) {
	ctx, cancel := context.WithTimeout(ctx, bounds.Time)
	defer cancel()
	left, err := seekEnd(ctx, client, topic, bounds.Records)
	if err != nil {
		return nil, err
	}
	t := newTrial(set)
	bytes := bounds.Bytes
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				t.report.Ended = "time"
				break
			}
			return nil, ctx.Err()
		}
		if err := fetches.Err(); err != nil {
			return nil, err
		}
		fetches.EachRecord(func(r *kgo.Record) {
			end, reading := left[r.Partition]
			if !reading || bytes <= 0 {
				return
			}
			if r.Offset >= end-1 {
				delete(left, r.Partition)
			}
			if r.Offset < end {
				bytes -= int64(len(r.Value))
				t.try(r)
			}
		})
		if bytes <= 0 {
			t.report.Ended = "bytes"
			break
		}
		// Markers of transactions at a partition's end are no records.
		for p, end := range left {
			if off, ok := client.UncommittedOffsets()[topic][p]; ok && off.Offset >= end {
				delete(left, p)
			}
		}
	}
	return t.done(), nil
}

// seekEnd has client read the last records of topic, at most n, from each
// partition as many; it returns the partitions' ends.
func seekEnd(ctx context.Context, client *kgo.Client, topic string, n int) (map[int32]int64, error) {
	adm := kadm.NewClient(client)
	starts, err := adm.ListStartOffsets(ctx, topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, err
	}
	ends, err := adm.ListEndOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, err
	}
	if len(ends[topic]) == 0 {
		return nil, fmt.Errorf("there is no topic %s", topic)
	}
	each := int64(max(1, n/len(ends[topic])))
	left := map[int32]int64{}
	from := map[int32]kgo.Offset{}
	ends.Each(func(end kadm.ListedOffset) {
		start, _ := starts.Lookup(topic, end.Partition)
		if end.Offset > start.Offset {
			left[end.Partition] = end.Offset
			from[end.Partition] = kgo.NewOffset().At(max(start.Offset, end.Offset-each))
		}
	})
	client.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: from})
	return left, nil
}

// trial counts what versions make of records.
type trial struct {
	set     *Set
	decoder *event.Decoder
	report  LogReport
	by      map[*Version]*VersionReport
}

func newTrial(set *Set) *trial {
	t := &trial{set: set, decoder: event.NewDecoder(event.Ceiling()), by: map[*Version]*VersionReport{}}
	t.report.Ended = "all that the bounds allow"
	for _, v := range set.Versions() {
		t.by[v] = &VersionReport{Version: v.String()}
	}
	return t
}

func (t *trial) try(r *kgo.Record) {
	t.report.Records++
	e, faults := t.decoder.Decode(r.Value, time.Time{})
	if faults != nil {
		t.report.Malformed++
		return
	}
	versions := t.set.Of(e.EventType)
	if len(versions) == 0 {
		t.report.Unregistered++
		return
	}
	accepted := false
	value, fault := parsePayload(e.Payload)
	for _, v := range versions {
		if fault != nil {
			faults = []event.Fault{*fault}
		} else {
			faults = v.check(value, len(e.Payload))
		}
		if faults == nil {
			accepted = true
			t.by[v].Accepts++
			continue
		}
		t.by[v].Refuses++
		t.by[v].Example = &Example{Partition: r.Partition, Offset: r.Offset, Faults: faults}
	}
	if !accepted {
		t.report.Refused++
	}
}

func (t *trial) done() *LogReport {
	for _, v := range t.by {
		t.report.Versions = append(t.report.Versions, *v)
	}
	sort.Slice(t.report.Versions, func(i, j int) bool { return t.report.Versions[i].Version < t.report.Versions[j].Version })
	return &t.report
}
