package replay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"
)

// What operators order that lasts stands in the control topic too: it is compacted,
// so an order outlives every process until it is taken back (a tombstone).

// Pause keeps a partition from moving. It stands under [PauseKey].
type Pause struct {
	Partition int32     `json:"partition"`
	Reason    string    `json:"reason"`
	By        string    `json:"by"`
	At        time.Time `json:"at"`
}

// String says it to a person.
func (p Pause) String() string {
	return fmt.Sprintf("paused by %s at %s: %s", p.By, p.At.UTC().Format(time.RFC3339), p.Reason)
}

// Skip has the records of one log from From (inclusive) to To (exclusive) passed
// over, unless something became of them before. It stands under [SkipKey].
type Skip struct {
	Run       uuid.UUID `json:"run"`
	TopicID   uuid.UUID `json:"topic_id"` // the log id
	Partition int32     `json:"partition"`
	From      int64     `json:"from"`
	To        int64     `json:"to"`
	Reason    string    `json:"reason"`
	By        string    `json:"by"`
	At        time.Time `json:"at"`
}

const (
	pausePrefix = "pause/"
	skipPrefix  = "skip/"
)

// PauseKey and SkipKey are where orders stand.
func PauseKey(partition int32) string { return pausePrefix + strconv.Itoa(int(partition)) }

// SkipKey is where the order of one skip stands.
func SkipKey(run uuid.UUID) string { return skipPrefix + run.String() }

// order takes in a record of the control topic that is no message of a replay's.
// Other things of other programs stand there too.
func (w *Watcher) order(key, value []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if text, ok := strings.CutPrefix(string(key), pausePrefix); ok {
		p, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			return fmt.Errorf("control record %q: %w", key, err)
		}
		defer w.stir()
		if len(value) == 0 {
			delete(w.pauses, int32(p))
			return nil
		}
		var pause Pause
		if err := json.Unmarshal(value, &pause); err != nil {
			return fmt.Errorf("control record %q: %w", key, err)
		}
		w.pauses[int32(p)] = pause
		return nil
	}
	if text, ok := strings.CutPrefix(string(key), skipPrefix); ok {
		run, err := uuid.Parse(text)
		if err != nil {
			return fmt.Errorf("control record %q: %w", key, err)
		}
		if len(value) == 0 {
			delete(w.skips, run)
			return nil
		}
		var skip Skip
		if err := json.Unmarshal(value, &skip); err != nil {
			return fmt.Errorf("control record %q: %w", key, err)
		}
		w.skips[run] = skip
	}
	return nil
}

// stir wakes the owners that asked whether they are paused.
func (w *Watcher) stir() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// orderBound is how long owners wait for the control topic to be read when a
// process starts: a broker that does not give it must not hold all up.
const orderBound = 10 * time.Second

// Paused tells why a partition may not move, "" when it may; changed is closed when
// that may have changed. Until the control topic has been read once, nothing moves.
func (w *Watcher) Paused(partition int32) (reason string, changed <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.caughtUp {
		left := time.Until(w.began.Add(orderBound))
		if left <= 0 {
			return "", w.changed
		}
		time.AfterFunc(left, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.stir()
		})
		return "reading the control topic, where a pause would stand", w.changed
	}
	if p, ok := w.pauses[partition]; ok {
		return p.String(), w.changed
	}
	return "", w.changed
}

// SkippedTo is the end of the range, from an offset of a log on, that is to be
// passed over, and why; 0 when it is none.
func (w *Watcher) SkippedTo(logID uuid.UUID, partition int32, offset int64) (to int64, reason string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.skips {
		if s.TopicID == logID && s.Partition == partition && s.From <= offset && offset < s.To && s.To > to {
			to, reason = s.To, fmt.Sprintf("skipped by %s at %s: %s", s.By, s.At.UTC().Format(time.RFC3339), s.Reason)
		}
	}
	return to, reason
}

// Orders are what stands in the control topic.
type Orders struct {
	Pauses map[int32]Pause
	Skips  map[uuid.UUID]Skip
	// Replays are requests that are not done, with how far their owners are.
	Replays []OpenRequest
	// Leases are those of commands that run, or that ended without a word.
	Leases []Lease
}

// OpenRequest is a request that no owner has finished.
type OpenRequest struct {
	Request
	Progress Progress
}

// Look reads the control topic from its start to where it ends now.
func Look(ctx context.Context, opts []kgo.Opt, topic string) (Orders, error) {
	w := &Watcher{open: map[runPartition]state{}, pauses: map[int32]Pause{}, skips: map[uuid.UUID]Skip{}, changed: make(chan struct{})}
	leases := map[string]Lease{}
	progress := map[runPartition]Progress{}
	var bad error
	err := scan(ctx, opts, topic, func(r *kgo.Record) {
		m, ok, err := parse(r.Key, r.Value)
		switch {
		case err != nil:
			bad = errors.Join(bad, err)
		case ok:
			w.apply(m)
			if m.progress != nil {
				progress[runPartition{m.run, m.partition}] = *m.progress
			}
		default:
			bad = errors.Join(bad, w.order(r.Key, r.Value), readLease(leases, r))
		}
	})
	if err != nil {
		return Orders{}, fmt.Errorf("reading the topic %s: %w", topic, err)
	}
	out := Orders{Pauses: w.pauses, Skips: w.skips}
	for at, s := range w.open {
		out.Replays = append(out.Replays, OpenRequest{s.request, progress[at]})
	}
	for _, l := range leases {
		out.Leases = append(out.Leases, l)
	}
	return out, nil // what can't be read is not ours to judge: owners warn of it
}

// Order writes records to the control topic; a nil value takes an order back.
func Order(ctx context.Context, opts []kgo.Opt, topic string, values map[string]any) error {
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return fmt.Errorf("control topic: %w", err)
	}
	defer client.Close()
	var records []*kgo.Record
	for key, v := range values {
		r := &kgo.Record{Topic: topic, Key: []byte(key)}
		if v != nil {
			if r.Value, err = json.Marshal(v); err != nil {
				return fmt.Errorf("control record %q: %w", key, err)
			}
		}
		records = append(records, r)
	}
	if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return fmt.Errorf("writing to the topic %s: %w", topic, err)
	}
	return nil
}
