package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"sluice/consumer/internal/replay"
	"sluice/consumer/internal/verify"
)

// planned is one partition's share of a replay.
type planned struct {
	verify.Range
	gone int64 // offsets before From that Kafka no longer has
}

// plan finds what is to be replayed: From and To as the flags say them, within
// what Kafka still has and the consumer has closed.
func (t *tools) plan(ctx context.Context, how replaying) ([]planned, error) {
	if (how.from == "") == (how.fromTime == "") {
		return nil, usage("say from where: --from partition:offset,… or earliest, or --from-time")
	}
	if how.to != "" && how.toTime != "" {
		return nil, usage("--to and --to-time exclude each other")
	}
	if how.rate < 0 {
		return nil, usage("--rate %v: want a positive number of records a second", how.rate)
	}
	all, err := t.partitions(ctx)
	if err != nil {
		return nil, err
	}
	if id := all[0].Self.TopicID.String(); how.topicID != "" && !strings.EqualFold(how.topicID, id) {
		return nil, fmt.Errorf("the topic %s is now %s, not %s: it was deleted and made again, and its offsets are others", t.cfg.Kafka.Topic, id, how.topicID)
	}
	out := make([]planned, len(all))
	for i, r := range all {
		out[i] = planned{Range: r}
	}
	if out, err = t.begin(ctx, out, how); err != nil {
		return nil, err
	}
	for i := range out {
		r := &out[i]
		seen, err := t.store.Seen(ctx, r.At(max(r.To-1, 0)))
		if err != nil {
			return nil, err
		}
		// Beyond the journal's end everything is being written anyway.
		r.To = max(min(r.To, seen.End), r.From)
	}
	if err := t.end(ctx, out, how); err != nil {
		return nil, err
	}
	return out, nil
}

// begin cuts ranges at --from or --from-time.
func (t *tools) begin(ctx context.Context, all []planned, how replaying) ([]planned, error) {
	switch {
	case how.from == "earliest":
		for i := range all {
			all[i].gone = all[i].From
		}
		return all, nil
	case how.fromTime != "":
		offsets, err := t.offsetsAt(ctx, "--from-time", how.fromTime)
		if err != nil {
			return nil, err
		}
		for i := range all {
			if o, ok := offsets[all[i].Self.Partition]; ok {
				all[i].gone = 0
				if o <= all[i].From {
					all[i].gone = all[i].From // there may have been more of that time
				}
				all[i].From = min(max(o, all[i].From), all[i].To)
			}
		}
		return all, nil
	}
	offsets, err := pairs("--from", how.from, len(all))
	if err != nil {
		return nil, err
	}
	var out []planned
	for _, r := range all {
		offset, named := offsets[r.Self.Partition]
		switch {
		case !named:
			continue
		case offset < r.From:
			return nil, fmt.Errorf("--from %d:%d: the log of partition %d begins at offset %d; what came before is no longer in Kafka (--from earliest begins with what is)", r.Self.Partition, offset, r.Self.Partition, r.From)
		case offset > r.To:
			return nil, fmt.Errorf("--from %d:%d: the log of partition %d ends at offset %d", r.Self.Partition, offset, r.Self.Partition, r.To)
		}
		r.From = offset
		out = append(out, r)
	}
	return out, nil
}

// end cuts ranges, which end where the journal does, at --to or --to-time.
func (t *tools) end(ctx context.Context, ranges []planned, how replaying) error {
	var offsets map[int32]int64
	var err error
	switch {
	case how.toTime != "":
		offsets, err = t.offsetsAt(ctx, "--to-time", how.toTime)
	case how.to != "":
		var count int32
		if _, count, err = t.kafka.Topic(ctx); err == nil {
			offsets, err = pairs("--to", how.to, int(count))
		}
	}
	if err != nil {
		return err
	}
	for i := range ranges {
		r := &ranges[i]
		o, ok := offsets[r.Self.Partition]
		if !ok {
			continue
		}
		delete(offsets, r.Self.Partition)
		switch {
		case o < r.From && how.to != "":
			return fmt.Errorf("--to %d:%d lies before --from, which is %d there", r.Self.Partition, o, r.From)
		case o > r.To && how.to != "":
			fmt.Fprintf(t.err, "partition %d: the consumer has closed offsets up to %d; what lies beyond, up to --to %d, is not replayed: it is being written anyway\n", r.Self.Partition, r.To, o)
		}
		r.To = max(min(o, r.To), r.From)
	}
	for p := range offsets {
		if how.to != "" {
			return fmt.Errorf("--to names partition %d, which --from leaves out", p)
		}
	}
	return nil
}

// pairs reads partition:offset,….
func pairs(flag, text string, partitions int) (map[int32]int64, error) {
	out := map[int32]int64{}
	for part := range strings.SplitSeq(text, ",") {
		p, o, ok := strings.Cut(strings.TrimSpace(part), ":")
		number, err1 := strconv.ParseInt(p, 10, 32)
		offset, err2 := strconv.ParseInt(o, 10, 64)
		switch {
		case !ok || err1 != nil || err2 != nil || offset < 0:
			return nil, usage("%s %q: want partition:offset, as in 0:1200,1:900%s", flag, part, map[bool]string{true: ", or earliest"}[flag == "--from"])
		case number < 0 || number >= int64(partitions):
			return nil, usage("%s %q: the topic has partitions 0 to %d", flag, part, partitions-1)
		}
		if _, twice := out[int32(number)]; twice {
			return nil, usage("%s names partition %d twice", flag, number)
		}
		out[int32(number)] = offset
	}
	return out, nil
}

// usage is an error of how a command was called.
func usage(format string, args ...any) error { return exitError{2, fmt.Errorf(format, args...)} }

// moment reads a time: RFC 3339, or a duration ago.
func moment(flag, text string) (time.Time, error) {
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return time.Now().Add(-ago), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, usage("%s %q: want a time as in 2026-01-02T03:04:05Z, or a duration ago as in 90m", flag, text)
	}
	if at.After(time.Now()) {
		return at, usage("%s %q lies in the future", flag, text)
	}
	return at, nil
}

// offsetsAt are the first offsets of each partition whose records are of a time or
// later; a partition that has none ends there.
func (t *tools) offsetsAt(ctx context.Context, flag, text string) (map[int32]int64, error) {
	at, err := moment(flag, text)
	if err != nil {
		return nil, err
	}
	listed, err := t.kafka.Admin().ListOffsetsAfterMilli(ctx, at.UnixMilli(), t.cfg.Kafka.Topic)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: asking for the offsets of that time: %w", flag, err)
	}
	out := map[int32]int64{}
	for p, o := range listed[t.cfg.Kafka.Topic] {
		out[p] = o.Offset
	}
	return out, nil
}

// parts says under which log ids a range's offsets lie.
func parts(r verify.Range) func(first, last int64) []replay.Part {
	return func(first, last int64) []replay.Part {
		var out []replay.Part
		for _, s := range r.Stretches(first, last) {
			out = append(out, replay.Part{Self: s.Self, First: s.First, Last: s.Last})
		}
		return out
	}
}
