package httpapi

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// TestGate: one at a time, in their order; who lets others through is the last of
// them; and where no one waits it costs no time.
func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := make(gate, 1)
		g.enter()
		g.again()
		var went []int
		for i := range 3 {
			go func() {
				g.enter()
				went = append(went, i)
				g.leave()
			}()
			synctest.Wait()
		}
		require.Empty(t, went)
		g.again()
		require.Equal(t, []int{0, 1, 2}, went)
		g.leave()
		require.Empty(t, g)
	})
	var none gate
	none.enter()
	none.again()
	none.leave()
}

// TestGateIsLeft: whatever becomes of a batch, others get through afterwards.
func TestGateIsLeft(t *testing.T) {
	a, h := newAPI(t, settles{}, nil)
	var lines bytes.Buffer
	for i := range 3 * gateItems {
		fmt.Fprintf(&lines, `{"source":"s","event_type":"t","actor_id":"%d","occurred_at":"2026-01-02T03:04:05Z"}`+"\n", i)
	}
	for _, body := range []string{lines.String(), "[" + one, "", "[" + one + "," + bad + "]", "{\n{\n"} {
		r := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/api/events/batch", bytes.NewReader([]byte(body)))
		r.Header.Set("Content-Type", "application/x-ndjson")
		h.ServeHTTP(httptest.NewRecorder(), r)
		require.Empty(t, a.gate)
	}
	require.Panics(t, func() {
		b := &batch{cfg: a.cfg, budget: a.budget, gate: a.gate, memory: &a.memory} // without lists
		_ = a.split(b, "application/x-ndjson", []byte(one))
	})
	require.Empty(t, a.gate, "after a panic, too")
}

// TestAnswersAreTheirOwn: what a batch was made of serves the next, and none has the
// other's answer or records.
func TestAnswersAreTheirOwn(t *testing.T) {
	log := &fakeLog{}
	_, h := newAPI(t, log, nil)
	seen := map[string]bool{}
	for n := range 5 {
		var lines bytes.Buffer
		events := 50*n + 1
		for i := range events {
			fmt.Fprintf(&lines, `{"source":"s","event_type":"t","actor_id":"%d-%d","occurred_at":"2026-01-02T03:04:05Z"}`+"\n", n, i)
		}
		r := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/api/events/batch", &lines)
		r.Header.Set("Content-Type", "application/x-ndjson")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Equal(t, http.StatusAccepted, w.Code)
		require.Contains(t, w.Body.String(), fmt.Sprintf(`{"accepted":%d,`, events))
		require.Equal(t, events, bytes.Count(w.Body.Bytes(), []byte(`"status":"queued"`)))
		require.False(t, seen[w.Body.String()])
		seen[w.Body.String()] = true
	}
}
