package store

import (
	"context"
	"strings"
	"sync"

	"sluice/schemas/topic"
)

// journaling is one partition's entries on their way.
type journaling struct {
	ctx     context.Context
	token   string
	topic   string
	self    topic.Origin
	entries []Entry
	done    chan error // of capacity 1
}

// together shares INSERTs into the journal: what arrives while one is under way
// goes in the next, so that many partitions cost few INSERTs. One INSERT is all
// or none, so each caller's answer is the truth about its own entries.
type together struct {
	mu      sync.Mutex
	waiting []*journaling
	writing chan struct{} // held by the caller that writes for all
}

func newTogether() *together { return &together{writing: make(chan struct{}, 1)} }

// do returns when j is written, by write, with whatever else waits.
func (t *together) do(j *journaling, write func(ctx context.Context, all []*journaling) error) error {
	j.done = make(chan error, 1)
	t.mu.Lock()
	t.waiting = append(t.waiting, j)
	t.mu.Unlock()
	select {
	case err := <-j.done:
		return err
	case <-j.ctx.Done():
		return j.ctx.Err()
	case t.writing <- struct{}{}:
	}
	defer func() { <-t.writing }()
	t.mu.Lock()
	all := t.waiting
	t.waiting = nil
	t.mu.Unlock()
	wanted := all[:0]
	for _, w := range all { // whose partition is lost may write nothing more
		if err := w.ctx.Err(); err != nil {
			w.done <- err
			continue
		}
		wanted = append(wanted, w)
	}
	if len(wanted) > 0 {
		ctx, cancel := whileAny(wanted)
		err := write(ctx, wanted)
		cancel()
		for _, w := range wanted {
			w.done <- err
		}
	}
	return <-j.done
}

// whileAny is a context that ends when all of theirs have.
func whileAny(js []*journaling) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(js[0].ctx))
	left := sync.WaitGroup{}
	stops := make([]func() bool, len(js))
	left.Add(len(js))
	for i, j := range js {
		stops[i] = context.AfterFunc(j.ctx, left.Done)
	}
	ended := make(chan struct{})
	go func() {
		left.Wait()
		close(ended)
		cancel()
	}()
	return ctx, func() {
		for _, stop := range stops {
			if stop() {
				left.Done()
			}
		}
		<-ended
		cancel()
	}
}

// tokens are those of all, as a log_comment that [Store.Stop] finds each in.
func tokens(js []*journaling) string {
	var b strings.Builder
	for i, j := range js {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(j.token)
	}
	return b.String()
}
