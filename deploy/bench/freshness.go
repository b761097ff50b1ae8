package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"sluice/schemas/event"
)

const (
	freshPartitions = 4
	freshRate       = 1000
	freshFor        = 30 * time.Second
	// lookEvery is how often a query looks for rows; it is part of what is
	// measured, as it is of what an analyst sees.
	lookEvery = 20 * time.Millisecond
	// postBound is how long a post may take.
	postBound = 30 * time.Second
)

// freshness measures from a POST to the answer of a query that has its row.
func freshness(ctx context.Context, b *bench) (t *table, err error) {
	s, err := b.start(ctx, freshPartitions)
	defer func() { err = errors.Join(err, s.stop()) }()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(s.consumeAll(1), s.ingest()); err != nil {
		return nil, err
	}
	b.say("freshness: %d posts a second", freshRate)
	base := time.Now()
	f, err := s.posted(base, b.cfg.lasting(freshFor))
	if err != nil {
		return nil, err
	}
	written, err := s.ages(-1, base)
	if err != nil {
		return nil, err
	}
	t = newTable(
		column{"what", "from the POST being due to", "%s"}, column{"count", "posts", "%d"},
		column{"p50_seconds", "P50", "%v"}, column{"p95_seconds", "P95", "%v"}, column{"p99_seconds", "P99", "%v"}, column{"max_seconds", "max", "%v"},
	)
	for _, line := range []struct {
		what   string
		sorted []time.Duration
	}{{"its 202", f.answered}, {"a query's answer that has its row", f.queryable}} {
		t.add(line.what, len(line.sorted), quantile(line.sorted, 0.5), quantile(line.sorted, 0.95), quantile(line.sorted, 0.99), quantile(line.sorted, 1))
	}
	t.add("(the rows' own inserted_at - received_at)", len(f.queryable), written.p50, nil, written.p99, written.most)
	t.note("Open loop: each post is sent when it is due, whatever became of those before; at worst one was sent %v late, which counts.", f.late.Round(time.Millisecond))
	t.note("A query asks every %v for the rows it has not seen, and matches them by event id; %d of them, P50 %v each.", lookEvery, len(f.looks), quantile(f.looks, 0.5).Round(time.Millisecond))
	return t, s.holds(len(f.queryable))
}

// fresh is what was found of posts, all of it sorted: from when each was due to its
// 202 and to a query's answer that has its row, and what the queries took.
type fresh struct {
	answered, queryable, looks []time.Duration
	late                       time.Duration // the worst sending
}

// posted posts freshRate events a second, which occurred from base on, and looks
// for their rows.
func (s *stack) posted(base time.Time, lasting time.Duration) (f fresh, err error) {
	posts := &posting{url: s.edge + "/api/events", client: &http.Client{
		Timeout:   postBound,
		Transport: &http.Transport{MaxIdleConnsPerHost: 10_000, MaxIdleConns: 10_000},
	}}
	defer posts.client.CloseIdleConnections()
	looking, enough := context.WithCancel(s.ctx)
	defer enough()
	seen := &sightings{at: map[uuid.UUID]time.Time{}, next: map[int32]int64{}}
	before, err := s.figures()
	if err != nil {
		return f, err
	}
	for _, ends := range before.ends {
		maps.Copy(seen.next, ends)
	}
	looked := make(chan error, 1)
	go func() { looked <- seen.look(looking, s) }()

	var due []time.Time
	n, worst, err := paced(s.ctx, freshRate, lasting, func(n int, at time.Time) {
		due = append(due, at)
		posts.post(s.ctx, s.sample.event(n, base.Add(time.Duration(n)*time.Microsecond)), at)
	})
	posts.wait()
	if err != nil || posts.err != nil {
		return f, errors.Join(err, posts.err)
	}
	err = s.await("rows of the posts", func(context.Context) error {
		if got := seen.count(); got < n {
			return fmt.Errorf("%d of %d were seen", got, n)
		}
		return nil
	})
	enough()
	if err = errors.Join(err, <-looked); err != nil {
		return f, err
	}
	var took []time.Duration
	for i, at := range due {
		e := s.sample.event(i, base.Add(time.Duration(i)*time.Microsecond))
		took = append(took, seen.at[e.ID()].Sub(at))
	}
	slices.Sort(took)
	slices.Sort(posts.took)
	return fresh{posts.took, took, seen.took, worst}, nil
}

// posting posts events, each in a goroutine of its own.
type posting struct {
	url    string
	client *http.Client
	all    sync.WaitGroup
	mu     sync.Mutex
	took   []time.Duration
	err    error
}

func (p *posting) post(ctx context.Context, e event.Event, due time.Time) {
	p.all.Go(func() {
		err := p.do(ctx, e)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.took = append(p.took, time.Since(due))
		if p.err == nil {
			p.err = err
		}
	})
}

func (p *posting) wait() { p.all.Wait() }

// do posts e until it is accepted: what a busy edge refuses is sent again a little
// later, as a client would, while the clock goes on.
func (p *posting) do(ctx context.Context, e event.Event) error {
	for {
		status, answer, err := p.once(ctx, e)
		switch {
		case err != nil:
			return err
		case status == http.StatusServiceUnavailable:
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(100 * time.Millisecond):
				continue
			}
		case status != http.StatusAccepted || !bytes.Contains(answer, []byte(e.ID().String())):
			return fmt.Errorf("a post of event %s got %d: %s", e.ID(), status, answer)
		}
		return nil
	}
}

func (p *posting) once(ctx context.Context, e event.Event) (status int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(e.AppendJSON(nil)))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := p.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// sightings are when a query's answer first had which event.
type sightings struct {
	mu   sync.Mutex
	at   map[uuid.UUID]time.Time
	next map[int32]int64 // the first offset not seen, by partition
	took []time.Duration // by the queries
}

func (s *sightings) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.at)
}

// look asks again and again until ctx ends. Rows of a partition come in the order
// of their offsets, so each answer begins where the last one ended.
func (s *sightings) look(ctx context.Context, st *stack) error {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			slices.Sort(s.took)
			return nil
		case <-ticker.C:
		}
		begun := time.Now()
		if err := s.ask(ctx, st); err != nil && ctx.Err() == nil {
			return err
		}
		s.took = append(s.took, time.Since(begun))
	}
}

func (s *sightings) ask(ctx context.Context, st *stack) error {
	where := make([]string, st.partitions)
	for p := range where {
		where[p] = fmt.Sprintf("partition = %d AND offset >= %d", p, s.next[int32(p)])
	}
	rows, err := st.conn.Query(ctx, "SELECT event_id, partition, offset FROM event_log WHERE ("+strings.Join(where, ") OR (")+")")
	if err != nil {
		return fmt.Errorf("looking for rows: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err below tells
	var ids []uuid.UUID
	for rows.Next() {
		var id uuid.UUID
		var p int32
		var offset int64
		if err := rows.Scan(&id, &p, &offset); err != nil {
			return fmt.Errorf("looking for rows: %w", err)
		}
		ids = append(ids, id)
		s.next[p] = max(s.next[p], offset+1)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("looking for rows: %w", err)
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		s.at[id] = now
	}
	return nil
}
