//go:build night

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/deploy/chaos/internal/load"
	"sluice/deploy/local/engine/install"
	"sluice/deploy/local/supervise"
	"sluice/schemas/event"
)

// newStack starts everything as processes: a broker (BROKER, else kfake), the
// engine, an edge and three consumers on six partitions. What differs from a run
// of chaos, change says.
func newStack(t *testing.T, change ...func(*config)) *stack {
	t.Helper()
	library, err := filepath.Abs(install.Library(install.Dir(root)))
	require.NoError(t, err)
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "bin")+"/", "./ingest", "./consumer", "./deploy/local/broker", "./deploy/local/engine")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	cfg, err := parse([]string{"--rounds=1", "--seed=1", "--root=" + root})
	require.NoError(t, err)
	for _, c := range change {
		c(&cfg)
	}
	spawner := supervise.NewSpawner()
	t.Cleanup(spawner.Close)
	s, err := start(t.Context(), cfg, library, dir, spawner, func(name, how string) { t.Logf("%s ended by itself: %s", name, how) })
	t.Cleanup(s.stop)
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		for _, name := range s.order {
			text, err := os.ReadFile(filepath.Join(dir, name+".log"))
			t.Logf("%s (%v): …%s", name, err, text[max(0, len(text)-3000):])
		}
	})
	require.NoError(t, err)
	return s
}

// accepted is one event that an edge took, and when its answer came: it was
// received before that.
type accepted struct {
	load.Promise
	actor, status string
	at            time.Time
}

// poster posts events to one edge, one after the other, until stop is called.
type poster struct {
	url  string
	next func(n int) event.Event
	// every is the pause between two posts.
	every time.Duration

	mu     sync.Mutex
	taken  []accepted
	full   int // answers of a spool that is full, or of an edge that is away
	cancel context.CancelFunc
	done   chan struct{}
}

func (p *poster) start(ctx context.Context) {
	ctx, p.cancel = context.WithCancel(ctx)
	done := make(chan struct{})
	p.done = done
	go func() {
		defer close(done)
		client := &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{}}
		defer client.CloseIdleConnections()
		n := len(p.all())
		for ctx.Err() == nil {
			e := p.next(n)
			got, err := post(ctx, client, p.url, &e)
			p.mu.Lock()
			if err == nil {
				p.taken = append(p.taken, got)
				n++
			} else {
				p.full++
			}
			p.mu.Unlock()
			select {
			case <-ctx.Done():
			case <-time.After(p.every):
			}
		}
	}()
}

func (p *poster) stop() {
	p.cancel()
	<-p.done
}

func (p *poster) all() []accepted {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken[:len(p.taken):len(p.taken)]
}

func (p *poster) refused() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.full
}

func post(ctx context.Context, client *http.Client, url string, e *event.Event) (accepted, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/api/events", bytes.NewReader(e.AppendJSON(nil)))
	if err != nil {
		return accepted{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return accepted{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return accepted{}, err
	}
	var answer struct{ Status string }
	if err := errors.Join(json.Unmarshal(text, &answer)); err != nil || resp.StatusCode != http.StatusAccepted {
		return accepted{}, fmt.Errorf("%s: %s", resp.Status, text)
	}
	return accepted{load.Promise{ID: e.ID(), Hash: event.PayloadHash(e.Payload), Key: e.Key()}, e.ActorID, answer.Status, time.Now()}, nil
}

// settled brings everything to rest and compares it with what the log says.
func (s *stack) settled(t *testing.T, posters ...*poster) {
	t.Helper()
	done := &promises{}
	for _, p := range posters {
		for _, a := range p.all() {
			done.edge = append(done.edge, a.Promise)
		}
	}
	require.NoError(t, s.rest(t.Context()))
	var o outcome
	require.NoError(t, s.judge(t.Context(), &o, done))
	require.Empty(t, o.differences)
	t.Logf("%d records, %v", o.records, o.counts)
}
