package load

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"sluice/schemas/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var base = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func TestMaker(t *testing.T) {
	one, other := NewMaker(3, base, 6), NewMaker(3, base, 6)
	decoder := event.NewDecoder(event.DefaultLimits())
	seen := map[string]event.Hash{}
	var all, repeats, conflicts, garbage, misplaced int
	for n := 1; n <= 20; n++ {
		w := one.Round(n, time.Second)
		require.Equal(t, w, other.Round(n, time.Second), "the seed repeats it")
		require.GreaterOrEqual(t, w.Events, 300)
		for _, p := range w.Posts {
			require.Less(t, p.At, time.Second)
			require.True(t, p.Batch || len(p.Events) == 1)
			for _, e := range p.Events {
				all++
				body := e.AppendJSON(nil)
				got, faults := decoder.Decode(body, base)
				require.Empty(t, faults, "%s", body)
				hash, known := seen[got.Key()]
				switch h := event.PayloadHash(got.Payload); {
				case known && h == hash:
					repeats++
				case known:
					conflicts++
				default:
					seen[got.Key()] = h
				}
			}
		}
		for _, d := range w.Directs {
			e, faults := decoder.Decode(d.Value, time.Time{})
			if len(faults) > 0 {
				garbage++
			} else if event.Partition(e.AppendKey(nil), 6) != d.Partition {
				misplaced++
			}
		}
	}
	require.InDelta(t, 0.33, float64(repeats)/float64(all), 0.05, "a third are repeats")
	require.Greater(t, conflicts, all/100)
	require.Greater(t, garbage, 100)
	require.Greater(t, misplaced, 100)
}

// The sender goes on until it is told 202, with the same events, and no longer
// than it was told; of a batch it sends again what has failed.
func TestSender(t *testing.T) {
	var mu sync.Mutex
	tries := map[string]int{}
	var singles atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		answer := func(e json.RawMessage, index int) (string, bool) {
			got, faults := event.NewDecoder(event.DefaultLimits()).Decode(e, time.Time{})
			if len(faults) > 0 {
				return "", false
			}
			mu.Lock()
			defer mu.Unlock()
			tries[got.Key()]++
			if tries[got.Key()] < 2 {
				return fmt.Sprintf(`{"index":%d,"status":"failed"}`, index), false
			}
			return fmt.Sprintf(`{"index":%d,"event_id":%q,"status":"queued"}`, index, got.ID()), true
		}
		if r.URL.Path == "/api/events" {
			switch singles.Add(1) {
			case 1:
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			case 2:
				panic(http.ErrAbortHandler) // the connection breaks
			}
			text, ok := answer(body, 0)
			if !ok {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			w.WriteHeader(http.StatusAccepted)
			fmt.Fprint(w, text)
			return
		}
		var items []json.RawMessage
		if json.Unmarshal(body, &items) != nil {
			return
		}
		w.WriteHeader(http.StatusMultiStatus)
		fmt.Fprint(w, `{"items":[`)
		for i, e := range items {
			if i > 0 {
				fmt.Fprint(w, ",")
			}
			text, _ := answer(e, i)
			fmt.Fprint(w, text)
		}
		fmt.Fprint(w, "]}")
	}))
	defer s.Close()
	at := func(n int) event.Event {
		return event.Event{Source: "s", EventType: "t", ActorID: "u", OccurredAt: base.Add(time.Duration(n)), Payload: []byte("{}")}
	}
	w := Work{Posts: []Post{{Events: []event.Event{at(1)}}, {Batch: true, Events: []event.Event{at(2), at(3)}}}}
	sender := Sender{Edge: s.URL, Patience: 5 * time.Second, Giveup: 20 * time.Second, Workers: 2}
	r := sender.Send(t.Context(), w)
	require.Empty(t, r.Faults)
	require.Len(t, r.Promises, 3)
	require.Zero(t, r.Unanswered)
	require.Equal(t, 4, r.Retries) // three of the single event, one of the batch

	sender.Giveup = 0
	r = sender.Send(t.Context(), w)
	require.Empty(t, r.Promises)
	require.Equal(t, 3, r.Unanswered)
}

// An answer that no edge may give is told, and does not count as a promise.
func TestFaults(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"refused": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) },
		"no JSON": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) },
		"another id": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusAccepted)
			fmt.Fprint(w, `{"event_id":"6f0b6b0e-9f57-8c1d-a2c4-53a0d1c9e7f3","status":"queued"}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(handler)
			defer s.Close()
			r := Sender{Edge: s.URL, Patience: time.Second, Giveup: 20 * time.Second, Workers: 1}.Send(t.Context(), Work{Posts: []Post{{Events: []event.Event{{
				Source: "s", EventType: "t", ActorID: "u", OccurredAt: base, Payload: []byte("{}"),
			}}}}})
			require.Len(t, r.Faults, 1)
			require.Empty(t, r.Promises)
		})
	}
}
