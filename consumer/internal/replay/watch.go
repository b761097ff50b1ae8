package replay

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/consumer/internal/partition"
)

// Owner takes requests for its partition, as *partition.Owner does.
type Owner interface {
	Request(ctx context.Context, r partition.Reread) error
}

// Watcher follows the control topic and hands each open request to the owner of
// its partition, when this process has it. An owner that takes a partition over
// gets what is still open, from where the last one got.
type Watcher struct {
	client *kgo.Client
	topic  string
	log    *slog.Logger

	mu sync.Mutex
	// caughtUp: the topic was read to where it ended at the start. Before that a
	// request may be over already, its end standing further on.
	caughtUp bool
	open     map[runPartition]state
	owners   map[int32]hold
	pauses   map[int32]Pause
	skips    map[uuid.UUID]Skip
	changed  chan struct{} // closed, and made anew, when pauses change
	began    time.Time
}

type runPartition struct {
	run       uuid.UUID
	partition int32
}

type state struct {
	request Request
	next    int64 // where the last owner got
	given   Owner
}

// hold is an owner for as long as its incarnation lasts.
type hold struct {
	ctx   context.Context
	owner Owner
	// given is closed when the owner has taken the last request that it was given:
	// it gets them in the order in which they were made.
	given <-chan struct{}
}

// NewWatcher reads the control topic from its start, with clients of opts.
func NewWatcher(opts []kgo.Opt, topic string, log *slog.Logger) (*Watcher, error) {
	client, err := kgo.NewClient(append(opts[:len(opts):len(opts)],
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)...)
	if err != nil {
		return nil, fmt.Errorf("control topic: %w", err)
	}
	return newWatcher(client, topic, log), nil
}

func newWatcher(client *kgo.Client, topic string, log *slog.Logger) *Watcher {
	return &Watcher{
		client: client, topic: topic, log: log,
		open: map[runPartition]state{}, owners: map[int32]hold{},
		pauses: map[int32]Pause{}, skips: map[uuid.UUID]Skip{}, changed: make(chan struct{}), began: time.Now(),
	}
}

// Run follows the topic until ctx ends.
func (w *Watcher) Run(ctx context.Context) {
	end := w.end(ctx)
	for ctx.Err() == nil {
		if end <= 0 {
			w.begin()
		}
		fetches := w.client.PollFetches(ctx)
		fetches.EachError(func(topic string, p int32, err error) {
			if ctx.Err() == nil {
				w.log.Warn("reading the control topic", "topic", topic, "partition", p, "error", err)
			}
		})
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset >= end-1 {
				end = 0
			}
			m, ok, err := parse(r.Key, r.Value)
			if err != nil {
				w.log.Warn("a control record is passed over", "error", err)
			} else if ok {
				w.apply(m)
			} else if err := w.order(r.Key, r.Value); err != nil {
				w.log.Warn("a control record is passed over", "error", err)
			}
		})
	}
}

// end is where the control topic ends now, asked for until it is known. The
// topic is compacted, so the last record before it is always there.
func (w *Watcher) end(ctx context.Context) int64 {
	for {
		ends, err := kadm.NewClient(w.client).ListEndOffsets(ctx, w.topic)
		if err == nil {
			err = ends.Error()
		}
		if end, ok := ends.Lookup(w.topic, 0); ok && err == nil {
			return end.Offset
		}
		if ctx.Err() != nil {
			return 0
		}
		w.log.Warn("looking for the control topic's end", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// begin hands out what is open, once the whole topic has been read.
func (w *Watcher) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.caughtUp {
		return
	}
	w.caughtUp = true
	w.stir()
	w.giveAll(func(runPartition) bool { return true })
}

// wanted tells whether a request is still open: it may have been done by
// another owner, or called off, while it waited for this one.
func (w *Watcher) wanted(at runPartition) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.open[at]
	return ok
}

// Close closes the client; Run must have returned.
func (w *Watcher) Close() { w.client.Close() }

func (w *Watcher) apply(m message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := runPartition{m.run, m.partition}
	s, known := w.open[at]
	switch {
	case m.deleted:
		delete(w.open, at)
	case m.request != nil && !known:
		w.open[at] = state{request: *m.request, next: m.request.From}
		w.give(at)
	case m.progress != nil && known:
		if m.progress.Done {
			delete(w.open, at)
			return
		}
		s.next = max(s.next, m.progress.Next)
		w.open[at] = s
	}
}

// Own says that owner has partition until ctx ends.
func (w *Watcher) Own(ctx context.Context, p int32, owner Owner) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.owners[p] = hold{ctx: ctx, owner: owner}
	w.giveAll(func(at runPartition) bool { return at.partition == p })
}

// giveAll hands out what is open, as far as chosen, from the lowest offset on.
func (w *Watcher) giveAll(chosen func(runPartition) bool) {
	var all []runPartition
	for at := range w.open {
		if chosen(at) {
			all = append(all, at)
		}
	}
	slices.SortFunc(all, func(a, b runPartition) int { return cmp.Compare(w.open[a].next, w.open[b].next) })
	for _, at := range all {
		w.give(at)
	}
}

// Disown says that owner no longer has the partition.
func (w *Watcher) Disown(p int32, owner Owner) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.owners[p].owner == owner {
		delete(w.owners, p)
	}
}

// give hands an open request to the partition's owner, once an incarnation.
func (w *Watcher) give(at runPartition) {
	h, ok := w.owners[at.partition]
	s := w.open[at]
	if !ok || !w.caughtUp || s.given == h.owner {
		return
	}
	s.given = h.owner
	w.open[at] = s
	reread := partition.Reread{
		From: s.next, To: s.request.To, Only: s.request.Only(), Rate: s.request.Rate,
		Wanted: func() bool { return w.wanted(at) },
		Report: func(p partition.Progress) { w.report(h.ctx, at, p) },
	}
	before, given := h.given, make(chan struct{})
	h.given = given
	w.owners[at.partition] = h
	go func() { // an owner is busy for as long as a batch takes
		defer close(given)
		if before != nil {
			<-before
		}
		if err := h.owner.Request(h.ctx, reread); err != nil {
			w.log.Info("a replay request waits for the partition's next owner", "run", at.run, "partition", at.partition)
		}
	}()
}

// report writes an owner's progress to the control topic.
func (w *Watcher) report(ctx context.Context, at runPartition, p partition.Progress) {
	m := Progress{
		Run: at.run, Partition: at.partition, Next: p.Next, To: p.To,
		Records: p.Records, Written: p.Written, Journaled: p.Journaled, Done: p.Done,
	}
	if p.Err != nil { // its owner recovers, and goes on by itself
		m.Error = p.Err.Error()
	}
	value, err := json.Marshal(m)
	if err != nil {
		w.log.Error("progress of a replay", "error", err)
		return
	}
	record := &kgo.Record{Topic: w.topic, Key: []byte(ProgressKey(at.run, at.partition)), Value: value}
	w.client.Produce(context.WithoutCancel(ctx), record, func(_ *kgo.Record, err error) {
		if err != nil {
			w.log.Warn("progress of a replay could not be reported", "run", at.run, "error", err)
		}
	})
}
