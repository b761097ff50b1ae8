// Package deadletter reads the dead-letter topic, and keeps what people decided of
// each letter. Nothing ever leaves the topic: a letter's fate stands beside it, in
// ClickHouse's table operations, under an id made of the letter's origin.
package deadletter

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/operations"
	"sluice/consumer/internal/replay"
	"sluice/schemas/topic"
)

// ReasonForeign is that of a letter which somebody else than the consumer put there.
const ReasonForeign = "foreign"

// Letter is a dead letter as it stands in the topic.
type Letter struct {
	// Origin is the record's that became it. Of a record that somebody put into
	// the topic by hand, with no origin in its headers, it is the letter's own
	// place there.
	Origin topic.Origin
	// Partition and Offset are its place in the dead-letter topic.
	Partition int32
	Offset    int64
	Reason    string
	Detail    string
	// Time is the record's timestamp, with milliseconds.
	Time time.Time
	// Key, Value and Headers are the record's, as it came; Key is nil when it
	// had none.
	Key, Value []byte
	Headers    []batch.Header
}

// Source is what the value says its source is, or "": it need not be an event.
func (l Letter) Source() string {
	var v struct {
		Source string `json:"source"`
	}
	if json.Unmarshal(l.Value, &v) != nil {
		return ""
	}
	return v.Source
}

// Raw is the record as it came, for a decoder.
func (l Letter) Raw() batch.Raw {
	return batch.Raw{Offset: l.Origin.Offset, Epoch: -1, Timestamp: l.Time, Key: l.Key, Value: l.Value, Headers: l.Headers}
}

// parse takes a record of the dead-letter topic apart.
func parse(id uuid.UUID, r *kgo.Record) Letter {
	l := Letter{Partition: r.Partition, Offset: r.Offset, Time: r.Timestamp, Key: nil, Value: r.Value}
	known := map[string]string{}
	for _, h := range r.Headers {
		switch h.Key {
		case topic.DeadReason, topic.DeadDetail, topic.DeadTopicID, topic.DeadPartition, topic.DeadOffset, topic.DeadTime:
			if _, twice := known[h.Key]; !twice { // ours come first; what follows was the record's own
				known[h.Key] = string(h.Value)
				continue
			}
		case topic.DeadKey:
			if l.Key == nil {
				l.Key = h.Value
				continue
			}
		}
		l.Headers = append(l.Headers, batch.Header{Key: h.Key, Value: h.Value})
	}
	l.Reason, l.Detail = known[topic.DeadReason], known[topic.DeadDetail]
	if at, err := time.Parse(time.RFC3339, known[topic.DeadTime]); err == nil {
		l.Time = at
	}
	origin, err := topic.ParseOrigin(known[topic.DeadTopicID] + "/" + known[topic.DeadPartition] + "/" + known[topic.DeadOffset])
	if err != nil {
		origin = topic.Origin{TopicID: id, Partition: r.Partition, Offset: r.Offset}
		l.Key = r.Key
		if l.Reason == "" {
			l.Reason, l.Detail = ReasonForeign, "put into the dead-letter topic by something else than the consumer"
		}
	}
	l.Origin = origin
	return l
}

// Choice says which letters are meant; the zero value means all.
type Choice struct {
	Reasons, Sources []string
	Origins          []topic.Origin
	Since, Until     time.Time // of the record's timestamp; zero: no bound
	Filter           replay.Filter
	Within           func(topic.Origin) bool // nil: anywhere
}

// Takes tells whether a letter is meant.
func (c Choice) Takes(l Letter, decoded *batch.Record) bool {
	return (len(c.Reasons) == 0 || slices.Contains(c.Reasons, l.Reason)) &&
		(len(c.Sources) == 0 || slices.Contains(c.Sources, l.Source())) &&
		(len(c.Origins) == 0 || slices.Contains(c.Origins, l.Origin)) &&
		(c.Since.IsZero() || !l.Time.Before(c.Since)) && (c.Until.IsZero() || l.Time.Before(c.Until)) &&
		(c.Within == nil || c.Within(l.Origin)) && c.Filter.Meant(decoded)
}

// Read calls each for every letter from the topic's start to where it ends now,
// in the order of each partition. Of copies (one origin several times: a crash, or
// a journal made again) the first is given. An error of each ends it.
func Read(ctx context.Context, opts []kgo.Opt, name string, each func(Letter) error) error {
	client, err := kgo.NewClient(append(opts[:len(opts):len(opts)], kgo.FetchMaxWait(100*time.Millisecond), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())...)
	if err != nil {
		return fmt.Errorf("the topic %s: %w", name, err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	topics, err := admin.ListTopics(ctx, name)
	if err == nil {
		err = topics.Error()
	}
	if err == nil && topics[name].Err != nil {
		err = topics[name].Err
	}
	if err != nil {
		return fmt.Errorf("the topic %s: %w (\"consumer topics ensure\" creates it)", name, err)
	}
	starts, err := admin.ListStartOffsets(ctx, name)
	if err != nil {
		return fmt.Errorf("the topic %s: %w", name, err)
	}
	ends, err := admin.ListCommittedOffsets(ctx, name)
	if err != nil {
		return fmt.Errorf("the topic %s: %w", name, err)
	}
	from, left := map[int32]kgo.Offset{}, map[int32]int64{}
	for p, end := range ends[name] {
		start, _ := starts.Lookup(name, p)
		if end.Err != nil || start.Err != nil {
			return fmt.Errorf("the topic %s: partition %d does not say where it begins and ends: %w", name, p, end.Err)
		}
		if start.Offset < end.Offset {
			from[p], left[p] = kgo.NewOffset().At(start.Offset), end.Offset
		}
	}
	client.AddConsumePartitions(map[string]map[int32]kgo.Offset{name: from})
	seen := map[topic.Origin]struct{}{}
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errs := fetches.Errors(); len(errs) > 0 {
			return fmt.Errorf("reading the topic %s: %w", name, errs[0].Err)
		}
		var failed error
		fetches.EachRecord(func(r *kgo.Record) {
			end, open := left[r.Partition]
			if !open || failed != nil {
				return
			}
			if r.Offset < end && !r.Attrs.IsControl() {
				l := parse(uuid.UUID(topics[name].ID), r)
				if _, copied := seen[l.Origin]; !copied {
					seen[l.Origin] = struct{}{}
					failed = each(l)
				}
			}
			if r.Offset+1 >= end {
				delete(left, r.Partition)
			}
		})
		if failed != nil {
			return failed
		}
	}
	return nil
}

// The fates that people give a letter.
const (
	Redriven  = "redriven"
	Discarded = "discarded"
)

// Fate is what somebody decided of a letter.
type Fate struct {
	State  string    `json:"state"`
	Who    string    `json:"who"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// Settled are the letters that somebody dealt with.
func Settled(ctx context.Context, conn driver.Conn) (map[topic.Origin]Fate, error) {
	all, err := operations.Log{Conn: conn}.List(ctx, 1<<40, operations.DeadLetter)
	if err != nil {
		return nil, err
	}
	out := make(map[topic.Origin]Fate, len(all))
	for _, o := range all {
		origin, err := topic.ParseOrigin(o.Detail)
		if err != nil {
			return nil, fmt.Errorf("operation %s: %w", o.ID, err)
		}
		out[origin] = Fate{State: o.State, Who: o.Who, Reason: o.Outcome, At: o.Updated}
	}
	return out, nil
}

// settling is the namespace of the ids that letters have in operations.
var settling = uuid.NewSHA1(uuid.NameSpaceURL, []byte("sluice dead letter"))

// Entry is a letter's fate as the table operations has it. Written again it
// replaces itself.
func Entry(origin topic.Origin, state, who, reason string) *operations.Operation {
	return &operations.Operation{
		ID: uuid.NewSHA1(settling, []byte(origin.String())), Kind: operations.DeadLetter, State: state, Who: who,
		Detail: origin.String(), From: map[int32]int64{origin.Partition: origin.Offset}, Outcome: reason,
	}
}

// ParseOrigins reads origins: topic id/partition/offset, or partition/offset or
// partition:offset of the topic that has the id.
func ParseOrigins(id uuid.UUID, texts []string) ([]topic.Origin, error) {
	var out []topic.Origin
	for _, text := range texts {
		o, err := topic.ParseOrigin(text)
		if err != nil {
			var p, at int64
			n, scanErr := fmt.Sscanf(text, "%d:%d", &p, &at)
			if scanErr != nil || n != 2 || p < 0 || p > math.MaxInt32 || strconv.FormatInt(p, 10)+":"+strconv.FormatInt(at, 10) != text {
				return nil, fmt.Errorf("origin %q: want topic id/partition/offset, or partition:offset of the topic as it is now", text)
			}
			o = topic.Origin{TopicID: id, Partition: int32(p), Offset: at}
		}
		out = append(out, o)
	}
	return out, nil
}
