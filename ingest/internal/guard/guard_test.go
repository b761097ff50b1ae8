package guard

import (
	"bytes"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"sluice/ingest/internal/auth"
	"sluice/ingest/internal/logtest"
	"sluice/ingest/internal/problem"
	"sluice/ingest/internal/schema"
	"sluice/schemas/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// gate is a guard with two keys, one of them limited, and a clock that the test
// moves.
type gate struct {
	*Guard
	key, limited string
	log          bytes.Buffer
	now          time.Time
	reg          *prometheus.Registry
}

// count is how many requests were not let in because of kind.
func (g *gate) count(t *testing.T, kind *problem.Kind) int {
	t.Helper()
	families, err := g.reg.Gather()
	require.NoError(t, err)
	require.Len(t, families, 1)
	for _, m := range families[0].GetMetric() {
		if m.GetLabel()[0].GetValue() == kind.Name {
			return int(m.GetCounter().GetValue())
		}
	}
	t.Fatalf("%s is not counted", kind.Name)
	return 0
}

func newGate(t *testing.T, schemas *schema.Registry) *gate {
	t.Helper()
	file := filepath.Join(t.TempDir(), "keys.yaml")
	pepper, err := auth.EnsurePepper(auth.Config{KeysFile: file}.Pepper())
	require.NoError(t, err)
	add := func(change func(*auth.Entry)) string {
		id, key := auth.NewKey()
		sum := pepper.Hash(key)
		e := auth.Entry{ID: id, Hash: hex.EncodeToString(sum[:]), Sources: []string{"shop"}}
		change(&e)
		require.NoError(t, auth.Update(file, func(all []auth.Entry) ([]auth.Entry, error) { return append(all, e), nil }))
		return key
	}
	g := &gate{now: time.Now(), reg: prometheus.NewRegistry()}
	g.key = add(func(*auth.Entry) {})
	g.limited = add(func(e *auth.Entry) { e.Rate, e.Burst, e.BodyBytes = 10, 20, 100 })
	store, err := auth.Open(auth.Config{KeysFile: file}, logtest.New(&g.log), nil)
	require.NoError(t, err)
	g.Guard = New(store, schemas, func() time.Time { return g.now }, logtest.New(&g.log), g.reg)
	return g
}

// enter sends a request with key from address.
func (g *gate) enter(key, address string) (Visit, http.Header, *problem.Error) {
	w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/api/events", nil)
	r.RemoteAddr = address
	if key != "" {
		r.Header.Set("X-Api-Key", key)
	}
	v, err := g.Enter(w, r)
	return v, w.Header(), err
}

const here = "192.0.2.1:1000"

// No guard, and one without keys and schemas, let everyone in with everything.
func TestEveryone(t *testing.T) {
	for name, g := range map[string]*Guard{"none": nil, "without keys": New(nil, nil, time.Now, nil, nil)} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			v, err := g.Enter(w, httptest.NewRequest(http.MethodPost, "/", nil))
			require.Nil(t, err)
			require.EqualValues(t, 7, v.BodyBytes(7))
			require.Nil(t, v.Spend(w, 1_000_000))
			used, faults := v.Check(&event.Event{Source: "anyone"})
			require.Empty(t, used)
			require.Empty(t, faults)
			require.Empty(t, w.Header())
		})
	}
}

func TestWhoIsLetIn(t *testing.T) {
	g := newGate(t, nil)
	v, header, err := g.enter(g.key, here)
	require.Nil(t, err)
	require.Empty(t, header, "a key without a rate has no rate to tell")
	require.EqualValues(t, 1000, v.BodyBytes(1000))
	_, faults := v.Check(&event.Event{Source: "shop"})
	require.Empty(t, faults)
	_, faults = v.Check(&event.Event{Source: "another"})
	require.Len(t, faults, 1)
	require.Equal(t, event.FaultNotAllowed, faults[0].Kind)
	require.Equal(t, "/source", faults[0].Pointer)

	_, _, err = g.enter("", here)
	require.Equal(t, problem.Unauthorized, err.Kind)
	require.Equal(t, `Bearer realm="sluice"`, err.Header.Get("WWW-Authenticate"))
	_, _, err = g.enter("sluice_nobody", here)
	require.Equal(t, problem.Unauthorized, err.Kind)
	require.Contains(t, err.Header.Get("WWW-Authenticate"), "invalid_token")
	require.Equal(t, 2, g.count(t, problem.Unauthorized))
}

// A key's rate and body: what is left is told with every answer, more than there is
// is owed, and nobody else pays for it.
func TestHowMuch(t *testing.T) {
	g := newGate(t, nil)
	v, header, err := g.enter(g.limited, here)
	require.Nil(t, err)
	require.Equal(t, `"events";q=20;w=2`, header.Get("RateLimit-Policy"))
	require.Equal(t, `"events";r=20`, header.Get("RateLimit"))
	require.EqualValues(t, 100, v.BodyBytes(1000))
	require.EqualValues(t, 50, v.BodyBytes(50), "the edge's own bound is narrower")
	w := httptest.NewRecorder()
	require.Nil(t, v.Spend(w, 25), "a request is let in whole")
	require.Equal(t, `"events";r=0;t=1`, w.Header().Get("RateLimit"))

	_, _, err = g.enter(g.limited, here)
	require.Equal(t, problem.RateLimited, err.Kind)
	require.Equal(t, "1", err.Header.Get("Retry-After"))
	require.NotContains(t, err.Detail, g.limited)
	require.Equal(t, problem.RateLimited, v.Spend(httptest.NewRecorder(), 1).Kind, "its other requests in flight, too")
	require.Equal(t, 2, g.count(t, problem.RateLimited))
	_, _, err = g.enter(g.key, here)
	require.Nil(t, err)

	g.now = g.now.Add(time.Second)
	_, _, err = g.enter(g.limited, here)
	require.Nil(t, err, "what Retry-After said is not true")
}

// TestGuessing: wrong keys are answered less often for each address and told of once
// a minute; no key at all is no guess, and a right key is let in from anywhere.
func TestGuessing(t *testing.T) {
	g := newGate(t, nil)
	for i := range guessesBurst + 5 {
		_, _, err := g.enter("sluice_nobody", here)
		want := problem.Unauthorized
		if i >= guessesBurst {
			want = problem.TooManyGuesses
		}
		require.Equal(t, want, err.Kind, i)
	}
	require.Equal(t, 1, strings.Count(g.log.String(), "a wrong key"))
	require.Contains(t, g.log.String(), "192.0.2.1")
	require.Equal(t, 5, g.count(t, problem.TooManyGuesses))

	_, _, err := g.enter("", here)
	require.Equal(t, problem.Unauthorized, err.Kind)
	_, _, err = g.enter("sluice_nobody", "192.0.2.2:1000")
	require.Equal(t, problem.Unauthorized, err.Kind, "another address")
	_, _, err = g.enter(g.key, here)
	require.Nil(t, err, "a neighbour of who guesses is locked out")
	g.now = g.now.Add(time.Minute)
	_, _, err = g.enter("sluice_nobody", here)
	require.Equal(t, problem.Unauthorized, err.Kind)
	require.Equal(t, 3, strings.Count(g.log.String(), "a wrong key"))
}

// An event whose source is not the key's is told that alone: a stranger learns
// nothing of the schemas.
func TestSchemas(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "click.v1.json"), []byte(`{"required":["page"]}`), 0o600))
	registry, err := schema.Open(schema.Config{Dir: dir}, logtest.New(new(bytes.Buffer)), nil)
	require.NoError(t, err)
	g := newGate(t, registry)
	v, _, perr := g.enter(g.key, here)
	require.Nil(t, perr)
	used, faults := v.Check(&event.Event{Source: "shop", EventType: "click", Payload: []byte(`{"page":1}`)})
	require.Empty(t, faults)
	require.Equal(t, "click.v1", used)
	_, faults = v.Check(&event.Event{Source: "shop", EventType: "click", Payload: []byte(`{}`)})
	require.NotEmpty(t, faults)
	_, faults = v.Check(&event.Event{Source: "another", EventType: "click", Payload: []byte(`{}`)})
	require.Len(t, faults, 1)
	require.Equal(t, event.FaultNotAllowed, faults[0].Kind)
}
