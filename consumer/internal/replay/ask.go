package replay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"
)

// mostOpen is how many requests of one partition wait for its owner at a time: one
// it works on, and one to go on with. What is not asked yet is not there to be
// finished when the command is stopped.
const mostOpen = 2

// Asker has the partitions' owners read ranges again, one request after the other,
// and follows their answers. It is for concurrent use, by one goroutine for each
// partition. Requests that are done are deleted from the topic.
type Asker struct {
	client   *kgo.Client
	topic    string
	progress func(Request, Progress)
	cancel   context.CancelFunc
	over     chan struct{} // reading has ended

	mu     sync.Mutex
	open   map[uuid.UUID]*asked
	stir   chan struct{} // closed, and made anew, when a request is done
	forget error         // why one that is done could not be deleted
}

// asked is a request that its owner has not finished.
type asked struct {
	Request
	next int64 // what lies before has been answered
}

// NewAsker asks through the control topic, with clients of opts. progress is called
// with each answer, one at a time. Close must be called.
func NewAsker(ctx context.Context, opts []kgo.Opt, topic string, progress func(Request, Progress)) (*Asker, error) {
	client, err := kgo.NewClient(append(opts[:len(opts):len(opts)],
		// From a little before now: no answer of ours can be older.
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AfterMilli(time.Now().Add(-time.Minute).UnixMilli())),
	)...)
	if err != nil {
		return nil, fmt.Errorf("control topic: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	a := &Asker{
		client: client, topic: topic, progress: progress, cancel: cancel, over: make(chan struct{}),
		open: map[uuid.UUID]*asked{}, stir: make(chan struct{}),
	}
	go a.follow(ctx)
	return a, nil
}

// Ask requests a range to be read again, and returns when the request stands in the
// topic: then the owners do it, whatever becomes of this process. It waits while
// the partition's owner has enough to do.
func (a *Asker) Ask(ctx context.Context, r Request) error {
	err := a.await(ctx, func() bool { return a.openOf(r.Partition) < mostOpen })
	if err != nil {
		return err
	}
	value, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("request for partition %d: %w", r.Partition, err)
	}
	a.mu.Lock()
	a.open[r.Run] = &asked{r, r.From}
	a.mu.Unlock()
	if err := a.client.ProduceSync(ctx, &kgo.Record{Topic: a.topic, Key: []byte(RequestKey(r.Run, r.Partition)), Value: value}).FirstErr(); err != nil {
		return fmt.Errorf("asking the owner of partition %d: %w", r.Partition, err)
	}
	return nil
}

// Wait returns when all that was asked is done and deleted from the topic. When ctx
// ends first, the requests stay: the owners finish them all the same.
func (a *Asker) Wait(ctx context.Context) error {
	if err := a.await(ctx, func() bool { return len(a.open) == 0 }); err != nil {
		return err
	}
	if err := a.client.Flush(ctx); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.forget
}

// Undone is the lowest offset of a partition that was asked for and is not done; ok
// is false if its owner has nothing to do.
func (a *Asker) Undone(partition int32) (lowest int64, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.open {
		if r.Partition == partition && (!ok || r.next < lowest) {
			lowest, ok = r.next, true
		}
	}
	return lowest, ok
}

// Close ends following; it does not take requests back.
func (a *Asker) Close() {
	a.cancel()
	<-a.over
	a.client.Close()
}

// openOf is how many requests of a partition are not done.
func (a *Asker) openOf(partition int32) (n int) {
	for _, r := range a.open {
		if r.Partition == partition {
			n++
		}
	}
	return n
}

// await waits until what is asked of the open requests is so.
func (a *Asker) await(ctx context.Context, is func() bool) error {
	for {
		a.mu.Lock()
		so, stir := is(), a.stir
		a.mu.Unlock()
		if so {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.over:
			return errors.New("the owners' answers are no longer followed")
		case <-stir:
		}
	}
}

func (a *Asker) follow(ctx context.Context) {
	defer close(a.over)
	for {
		fetches := a.client.PollFetches(ctx)
		if ctx.Err() != nil {
			return
		}
		fetches.EachRecord(func(r *kgo.Record) {
			m, ok, err := parse(r.Key, r.Value)
			if err != nil || !ok || m.progress == nil {
				return
			}
			a.answered(m)
		})
	}
}

func (a *Asker) answered(m message) {
	a.mu.Lock()
	r, ours := a.open[m.run]
	if !ours || r.Partition != m.partition {
		a.mu.Unlock()
		return
	}
	r.next = max(r.next, m.progress.Next)
	a.mu.Unlock()
	a.progress(r.Request, *m.progress)
	if !m.progress.Done {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.open, m.run)
	close(a.stir)
	a.stir = make(chan struct{})
	// So that no later owner reads them.
	for _, key := range []string{RequestKey(m.run, m.partition), ProgressKey(m.run, m.partition)} {
		a.client.Produce(context.Background(), &kgo.Record{Topic: a.topic, Key: []byte(key)}, func(_ *kgo.Record, err error) {
			if err != nil {
				a.mu.Lock()
				defer a.mu.Unlock()
				a.forget = fmt.Errorf("clearing a request that is done: %w", err)
			}
		})
	}
}
