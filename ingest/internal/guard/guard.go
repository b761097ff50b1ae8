// Package guard stands in front of the edge's routes: who sends (keys), how much
// (rates), and what (sources and schemas).
package guard

import (
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/ingest/internal/auth"
	"sluice/ingest/internal/limit"
	"sluice/ingest/internal/problem"
	"sluice/ingest/internal/schema"
	"sluice/schemas/event"
)

// How often one address may give a wrong key, and how many addresses are known.
const (
	guessesPerSecond = 1
	guessesBurst     = 20
	guessesAddresses = 10_000
)

// Guard lets requests in. A nil *Guard lets everyone in with everything. It is
// safe for concurrent use.
type Guard struct {
	keys    *auth.Store      // nil: no keys are asked for
	schemas *schema.Registry // nil: every payload passes
	guesses *limit.Failures
	now     func() time.Time
	log     *slog.Logger

	refused map[*problem.Kind]prometheus.Counter
}

// New returns a guard; keys and schemas may be nil.
func New(keys *auth.Store, schemas *schema.Registry, now func() time.Time, log *slog.Logger, reg prometheus.Registerer) *Guard {
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sluice_ingest_refused_total",
		Help: "Requests not let in, by problem.",
	}, []string{"problem"})
	g := &Guard{
		keys: keys, schemas: schemas, now: now, log: log,
		guesses: limit.NewFailures(guessesPerSecond, guessesBurst, guessesAddresses),
		refused: map[*problem.Kind]prometheus.Counter{},
	}
	for _, k := range []*problem.Kind{problem.Unauthorized, problem.TooManyGuesses, problem.RateLimited} {
		g.refused[k] = refused.WithLabelValues(k.Name)
	}
	if reg != nil {
		reg.MustRegister(refused)
	}
	return g
}

// Visit is a request that was let in. The zero Visit may send everything.
type Visit struct {
	guard  *Guard
	client *auth.Client // nil: no keys are asked for
}

// Enter looks at a request's header, before its body is read.
func (g *Guard) Enter(w http.ResponseWriter, r *http.Request) (Visit, *problem.Error) {
	if g == nil {
		return Visit{}, nil
	}
	v := Visit{guard: g}
	if g.keys == nil {
		return v, nil
	}
	now := g.now()
	client, err := g.keys.Authenticate(r.Header, now)
	if err != nil {
		return v, g.unknown(w, r, now, err)
	}
	v.client = client
	return v, v.take(w, now, 0)
}

// unknown answers a request whose key is none. A right key is never held up by
// its address's wrong ones: whoever shares an address with a stranger who guesses
// would be locked out, while a guess at 256 bits gains nothing by being let on.
func (g *Guard) unknown(w http.ResponseWriter, r *http.Request, now time.Time, err error) *problem.Error {
	address := limit.AddressOf(r.RemoteAddr)
	allowed, tell := true, false
	if errors.Is(err, auth.ErrWrongKey) {
		allowed, tell = g.guesses.Add(now, address)
	}
	if tell {
		g.log.Warn("a wrong key; this address is told of at most once a minute", "address", address.String(), "request_id", w.Header().Get("X-Request-Id"))
	}
	if !allowed {
		g.refused[problem.TooManyGuesses].Inc()
		return problem.New(problem.TooManyGuesses, "too many wrong keys came from this address")
	}
	g.refused[problem.Unauthorized].Inc()
	challenge := `Bearer realm="sluice"`
	if errors.Is(err, auth.ErrWrongKey) {
		challenge += `, error="invalid_token"` // RFC 6750, section 3
	}
	return problem.New(problem.Unauthorized, err.Error()+"; send one as Authorization: Bearer <key>, or as X-Api-Key").
		With("WWW-Authenticate", challenge)
}

// BodyBytes is the bound on the request's body, given the edge's own.
func (v *Visit) BodyBytes(most int64) int64 {
	if v.client == nil || v.client.BodyBytes == 0 {
		return most
	}
	return min(most, v.client.BodyBytes)
}

// Spend counts n events against the key's rate.
func (v *Visit) Spend(w http.ResponseWriter, n int) *problem.Error {
	if v.client == nil || v.client.Bucket == nil {
		return nil
	}
	return v.take(w, v.guard.now(), n)
}

func (v *Visit) take(w http.ResponseWriter, now time.Time, n int) *problem.Error {
	b := v.client.Bucket
	if b == nil {
		return nil
	}
	ok, wait := b.Take(now, n)
	b.SetHeader(w.Header(), now)
	if ok {
		return nil
	}
	v.guard.refused[problem.RateLimited].Inc()
	return problem.New(problem.RateLimited, "the key "+v.client.ID+" may send "+
		strconv.Itoa(b.Burst())+" events in "+problem.Seconds(b.Window())+" s").
		With("Retry-After", problem.Seconds(wait))
}

// Check tells whether the event may be sent, and the schema that accepted its
// payload, "" when none applies. Of an event whose source is not the key's,
// nothing else is looked at.
func (v *Visit) Check(e *event.Event) (schema string, faults []event.Fault) {
	if v.client != nil && !v.client.May(e.Source) {
		return "", []event.Fault{{
			Kind: event.FaultNotAllowed, Pointer: "/" + event.MemberSource,
			Detail: "is not among the sources that the key " + v.client.ID + " may send",
		}}
	}
	if v.guard == nil || v.guard.schemas == nil {
		return "", nil
	}
	return v.guard.schemas.Check(e)
}
