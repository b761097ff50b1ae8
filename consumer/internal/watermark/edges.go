package watermark

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/schemas/topic"
)

// Edges is the last that each edge has said of itself. It is for concurrent use.
type Edges struct {
	mu   sync.Mutex
	said map[string]topic.Watermark
	told topic.Completeness // the latest moment that a prover has told
}

// NewEdges knows no edge.
func NewEdges() *Edges { return &Edges{said: map[string]topic.Watermark{}} }

// Apply takes a record of the control topic; those about something else change
// nothing. An error is a watermark that can't be read.
func (e *Edges) Apply(key, value []byte) error {
	c, ok, err := topic.ParseCompleteness(key, value)
	if err != nil {
		return err
	}
	if ok {
		e.tell(c)
		return nil
	}
	w, ok, err := topic.ParseWatermark(key, value)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if ok {
		e.said[w.Edge] = w
	} else if edge, ours := strings.CutPrefix(string(key), topic.WatermarkKey("")); ours {
		delete(e.said, edge) // a tombstone
	}
	return nil
}

// tell notes what was told; it is false if something later was told before.
func (e *Edges) tell(c topic.Completeness) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !c.CompleteThrough.After(e.told.CompleteThrough) {
		return false
	}
	e.told = c
	return true
}

// All are the edges in the order of their names, retired ones too.
func (e *Edges) All() []topic.Watermark {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]topic.Watermark, 0, len(e.said))
	for _, name := range slices.Sorted(maps.Keys(e.said)) {
		out = append(out, e.said[name])
	}
	return out
}

// Bound is the least low-water mark of the edges that are not retired, and whose
// it is. Where all are retired it is the greatest of theirs, since nothing is
// accepted any more. ok is false while no edge has ever spoken.
func (e *Edges) Bound() (b topic.Watermark, live int, ok bool) {
	for _, w := range e.All() {
		switch {
		case !w.Retired && (live == 0 || w.LowWater.Before(b.LowWater)):
			b = w
		case w.Retired && live == 0 && w.LowWater.After(b.LowWater):
			b = w
		}
		if !w.Retired {
			live++
		}
		ok = true
	}
	return b, live, ok
}

// Follow reads the control topic into e until ctx ends. read is closed once
// everything that stood there at the start has been read: before that an edge
// may be missing, and no bound holds.
func (e *Edges) Follow(ctx context.Context, client *kgo.Client, control string, read chan<- struct{}, log *slog.Logger) {
	end := endOf(ctx, client, control, log)
	done := false
	finish := func() {
		if !done {
			done = true
			close(read)
		}
	}
	if end == 0 {
		finish()
	}
	for ctx.Err() == nil {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return
		}
		fetches.EachError(func(_ string, _ int32, err error) {
			log.Warn("reading the edges' watermarks", "error", err)
		})
		fetches.EachRecord(func(r *kgo.Record) {
			if err := e.Apply(r.Key, r.Value); err != nil {
				log.Warn("a watermark is passed over: the edge's last one stands", "error", err)
			}
			if r.Offset >= end-1 {
				finish()
			}
		})
	}
}

// endOf asks until it is told where the topic ends. The topic is compacted, so
// the last record before that is always there.
func endOf(ctx context.Context, client *kgo.Client, control string, log *slog.Logger) int64 {
	for {
		ends, err := kadm.NewClient(client).ListEndOffsets(ctx, control)
		if end, ok := ends.Lookup(control, 0); ok && end.Err == nil {
			return end.Offset
		}
		if ctx.Err() != nil {
			return -1
		}
		log.Warn("looking for the control topic's end", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// Read reads what every edge said last, up to where the control topic ends now. It
// waits 15 seconds at most.
func Read(ctx context.Context, opts []kgo.Opt, control string, log *slog.Logger) (*Edges, error) {
	client, err := kgo.NewClient(append(opts[:len(opts):len(opts)], kgo.ConsumeTopics(control), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	if err != nil {
		return nil, fmt.Errorf("control topic: %w", err)
	}
	defer client.Close()
	following, stop := context.WithCancel(ctx)
	defer stop()
	e, read, done := NewEdges(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		e.Follow(following, client, control, read, log)
	}()
	defer func() { stop(); <-done }()
	select {
	case <-read:
		return e, nil
	case <-time.After(readBound):
		return nil, fmt.Errorf("reading the control topic %s: no answer from Kafka for %s", control, readBound)
	case <-ctx.Done():
		return nil, fmt.Errorf("reading the control topic %s: %w", control, ctx.Err())
	}
}

// readBound is how long [Read] waits: a person does.
const readBound = 15 * time.Second

// Retire says in an edge's place that it is gone for good: it holds nothing back
// any more. What it had accepted and never delivered is not waited for.
func Retire(ctx context.Context, client *kgo.Client, control string, w topic.Watermark, now time.Time) error {
	w.Retired, w.At = true, now.UTC()
	key, value, err := w.Record()
	if err != nil {
		return fmt.Errorf("retiring the edge %s: %w", w.Edge, err)
	}
	if err := client.ProduceSync(ctx, &kgo.Record{Topic: control, Key: key, Value: value}).FirstErr(); err != nil {
		return fmt.Errorf("retiring the edge %s: %w", w.Edge, err)
	}
	return nil
}
