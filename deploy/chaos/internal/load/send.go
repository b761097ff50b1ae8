package load

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/schemas/event"
)

// Promise is what a 202 said: the event will be there, once.
type Promise struct {
	ID   uuid.UUID
	Hash event.Hash // of the payload
	Key  string
}

// Written is a record that the broker has acknowledged to us.
type Written struct {
	Partition int32
	Offset    int64
	Value     []byte
}

// Result is what came of a round's work.
type Result struct {
	Promises []Promise
	Written  []Written
	// Sent counts events posted, each try anew; Retries requests sent again;
	// Unanswered events that were given up.
	Sent, Retries, Unanswered int
	// Faults are answers that no edge may give.
	Faults []string
}

// Sender sends a round's work.
type Sender struct {
	// Edge is the edge's URL, without a path.
	Edge string
	// Patience is how long one request may take before it is sent again.
	Patience time.Duration
	// Giveup is how long after the round's beginning a request is still tried.
	Giveup time.Duration
	// Producer writes to the partition that a record names, and is not to be
	// disturbed by faults.
	Producer *kgo.Client
	// Topic is where it writes.
	Topic string
	// Workers is how many requests are in flight at most.
	Workers int
}

// Send sends the work and returns when each request was answered or given up.
func (s Sender) Send(ctx context.Context, w Work) Result {
	begun := time.Now()
	ctx, cancel := context.WithDeadline(ctx, begun.Add(s.Giveup))
	defer cancel()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: s.Workers}, Timeout: s.Patience}
	defer client.CloseIdleConnections()
	g := &gathering{}
	slots := make(chan struct{}, s.Workers)
	var tasks sync.WaitGroup
	for _, p := range w.Posts {
		tasks.Go(func() {
			if !wait(ctx, time.Until(begun.Add(p.At))) {
				g.unanswered(len(p.Events))
				return
			}
			slots <- struct{}{}
			defer func() { <-slots }()
			s.post(ctx, client, p, g)
		})
	}
	for _, d := range w.Directs {
		tasks.Go(func() {
			if wait(ctx, time.Until(begun.Add(d.At))) {
				s.produce(ctx, d, g)
			}
		})
	}
	tasks.Wait()
	return g.result
}

type gathering struct {
	mu     sync.Mutex
	result Result
}

func (g *gathering) note(f func(*Result)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f(&g.result)
}

func (g *gathering) unanswered(n int) { g.note(func(r *Result) { r.Unanswered += n }) }

func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(max(d, 0))
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// pause is how long a client waits before it tries again. An edge may ask for
// longer; this client is one that does not listen.
const pause = 100 * time.Millisecond

func (s Sender) post(ctx context.Context, client *http.Client, p Post, g *gathering) {
	open := p.Events
	for try := 0; len(open) > 0; try++ {
		if try > 0 {
			if !wait(ctx, pause) {
				g.unanswered(len(open))
				return
			}
			g.note(func(r *Result) { r.Retries++ })
		}
		g.note(func(r *Result) { r.Sent += len(open) })
		var err error
		if open, err = s.try(ctx, client, p.Batch, open, g); err != nil {
			g.note(func(r *Result) { r.Faults = append(r.Faults, err.Error()); r.Unanswered += len(open) })
			return
		}
	}
}

// try sends one request. It returns the events to be sent again; an error means
// an answer that no edge may give.
func (s Sender) try(ctx context.Context, client *http.Client, batch bool, events []event.Event, g *gathering) ([]event.Event, error) {
	path, body := "/api/events", events[0].AppendJSON(nil)
	if batch {
		path, body = "/api/events/batch", []byte{'['}
		for i := range events {
			if i > 0 {
				body = append(body, ',')
			}
			body = events[i].AppendJSON(body)
		}
		body = append(body, ']')
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.Edge+path, bytes.NewReader(body))
	if err != nil {
		return events, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return events, nil //nolint:nilerr // nobody can say what became of it: once more
	}
	text, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		return events, nil //nolint:nilerr // likewise
	}
	switch {
	case batch && (resp.StatusCode == http.StatusAccepted || resp.StatusCode == http.StatusMultiStatus):
		return s.items(events, text, g)
	case !batch && resp.StatusCode == http.StatusAccepted:
		var a item
		if err := json.Unmarshal(text, &a); err != nil {
			return events, fmt.Errorf("the edge's 202 cannot be read: %w: %s", err, text)
		}
		return nil, promise(&events[0], a, g)
	case resp.StatusCode >= http.StatusInternalServerError, resp.StatusCode == http.StatusRequestTimeout,
		resp.StatusCode == http.StatusTooManyRequests:
		return events, nil
	case resp.StatusCode == http.StatusBadRequest && strings.Contains(string(text), "incomplete-body"):
		return events, nil // the proxy tore it
	}
	return events, fmt.Errorf("the edge refused what is valid: %s: %s", resp.Status, text)
}

type item struct {
	Index   int       `json:"index"`
	EventID uuid.UUID `json:"event_id"`
	Status  string    `json:"status"`
}

// items reads a batch's answer.
func (s Sender) items(events []event.Event, text []byte, g *gathering) (again []event.Event, err error) {
	var answer struct{ Items []item }
	if err := json.Unmarshal(text, &answer); err != nil {
		return events, fmt.Errorf("the edge's answer to a batch cannot be read: %w: %s", err, text)
	}
	if len(answer.Items) != len(events) {
		return events, fmt.Errorf("the edge answered for %d of %d items", len(answer.Items), len(events))
	}
	for _, it := range answer.Items {
		if it.Index < 0 || it.Index >= len(events) {
			return events, fmt.Errorf("the edge answered for item %d of %d", it.Index, len(events))
		}
		e := &events[it.Index]
		switch it.Status {
		case "failed":
			again = append(again, *e)
		case "rejected":
			return events, errors.New("the edge rejected a valid item: " + string(text))
		default:
			if err := promise(e, it, g); err != nil {
				return events, err
			}
		}
	}
	return again, nil
}

func promise(e *event.Event, it item, g *gathering) error {
	p := Promise{ID: e.ID(), Hash: event.PayloadHash(e.Payload), Key: e.Key()}
	if it.EventID != p.ID {
		return fmt.Errorf("the edge calls %s the event %s, by the contract it is %s", p.Key, it.EventID, p.ID)
	}
	g.note(func(r *Result) { r.Promises = append(r.Promises, p) })
	return nil
}

func (s Sender) produce(ctx context.Context, d Direct, g *gathering) {
	done := make(chan struct{})
	// Not with ctx: a record given up by the client may have been written all
	// the same, which is no fault, but one tried on is the stronger case.
	s.Producer.Produce(context.WithoutCancel(ctx), &kgo.Record{Topic: s.Topic, Partition: d.Partition, Key: d.Key, Value: d.Value}, func(r *kgo.Record, err error) {
		defer close(done)
		g.note(func(res *Result) {
			res.Sent++
			if err != nil {
				res.Unanswered++
				return
			}
			res.Written = append(res.Written, Written{Partition: r.Partition, Offset: r.Offset, Value: r.Value})
		})
	})
	<-done
}
