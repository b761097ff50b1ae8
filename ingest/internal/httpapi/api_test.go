package httpapi

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"sluice/ingest/internal/delivery"
	"sluice/ingest/internal/logtest"
	"sluice/ingest/internal/problem"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.TestMode)
	goleak.VerifyTestMain(m)
}

// fakeLog answers as it is told to and keeps copies of what it was sent.
type fakeLog struct {
	answer func([]*delivery.Delivery)
	sent   []kgo.Record
}

func (l *fakeLog) Send(_ context.Context, ds []*delivery.Delivery) bool {
	for _, d := range ds {
		r := &d.Record
		c := *r
		c.Key, c.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
		c.Headers = nil
		for _, h := range r.Headers {
			c.Headers = append(c.Headers, kgo.RecordHeader{Key: h.Key, Value: bytes.Clone(h.Value)})
		}
		l.sent = append(l.sent, c)
	}
	if l.answer != nil {
		l.answer(ds)
	}
	return true
}

// fates says of each delivery what the function at its place does.
func fates(each ...func(*delivery.Delivery)) func([]*delivery.Delivery) {
	return func(ds []*delivery.Delivery) {
		for i, f := range each {
			f(ds[i])
		}
	}
}

func queued(*delivery.Delivery)     {}
func spooled(d *delivery.Delivery)  { d.Status = delivery.Spooled }
func stored(d *delivery.Delivery)   { d.Status = delivery.Stored }
func repeat(d *delivery.Delivery)   { d.Repeat = true }
func conflict(d *delivery.Delivery) { d.Conflict = true }

func fails(err error) func(*delivery.Delivery) {
	return func(d *delivery.Delivery) { d.Err = err }
}

var clock = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// parts are log and what else there must be: async, and a clock that stands.
func parts(log delivery.Log) Parts {
	return Parts{Log: log, Sync: func() bool { return false }, Now: func() time.Time { return clock }}
}

func newAPI(t *testing.T, log delivery.Log, change func(*Config)) (*API, http.Handler) {
	t.Helper()
	cfg := DefaultConfig()
	if change != nil {
		change(&cfg)
	}
	a, err := New(cfg, parts(log), logtest.New(io.Discard), prometheus.NewRegistry())
	require.NoError(t, err)
	return a, a.Handler(func() error { return nil }, nil)
}

func post(h http.Handler, path, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

const (
	one = `{"source":"a:b","event_type":"t","actor_id":"u","occurred_at":"2026-01-02T03:04:05Z"}`
	two = `{"source":"é","event_type":"t","actor_id":"u","occurred_at":"2026-01-02T03:04:05.5+01:00","payload":{"b":1,"a":[1.0]}}`
	bad = `{"source":"","event_type":"t","actor_id":"u","occurred_at":"2026-01-02T03:04:05Z"}`
)

// TestAnswers pins every form of an answer, byte for byte: clients parse them.
func TestAnswers(t *testing.T) {
	const idOne, idTwo = "0515e8cf-37b8-84ef-9ead-e2ca0bcdd0dd", "a89c0bbc-544b-822d-bbc1-51aa72f973cb"
	const problemHead = `{"type":"urn:sluice:problem:`
	rows := []struct {
		name, path, body string
		header           []string
		log              func([]*delivery.Delivery)
		status           int
		want             string
		retryAfter       string
	}{
		{"one", "", one, nil, nil, 202, `{"accepted":true,"event_id":"` + idOne + `","status":"queued"}`, ""},
		{"one spooled", "", one, nil, fates(spooled), 202, `{"accepted":true,"event_id":"` + idOne + `","status":"spooled"}`, ""},
		{"one stored", "", one, nil, fates(stored), 200, `{"accepted":true,"event_id":"` + idOne + `","status":"stored"}`, ""},
		{"one again", "", one, nil, fates(repeat), 202, `{"accepted":true,"event_id":"` + idOne + `","status":"queued","deduplicated":true}`, ""},
		{"one, in conflict", "", one, nil, fates(conflict), 202, `{"accepted":true,"event_id":"` + idOne + `","status":"queued","conflict":true}`, ""},
		{"one, full until later", "", one, nil, fates(fails(&delivery.LaterError{Err: delivery.ErrFull, After: 6500 * time.Millisecond})), 503, problemHead + `overloaded","title":"The edge has as much to do as it gets done in time","status":503,"detail":"too much waits for the log's acknowledgement already; send it again later","retryable":true}`, "7"},
		{"batch, stored", "/batch", "[" + one + "," + two + "]", nil, fates(stored, stored), 200, `{"accepted":2,"deduplicated":0,"rejected":0,"failed":0,"items":[{"index":0,"event_id":"` + idOne + `","status":"stored"},{"index":1,"event_id":"` + idTwo + `","status":"stored"}]}`, ""},
		{"batch, a repeat and a conflict", "/batch", "[" + one + "," + two + "]", nil, fates(repeat, conflict), 202, `{"accepted":2,"deduplicated":1,"rejected":0,"failed":0,"items":[{"index":0,"event_id":"` + idOne + `","status":"queued","deduplicated":true},{"index":1,"event_id":"` + idTwo + `","status":"queued","conflict":true}]}`, ""},
		{"batch, some stored", "/batch", "[" + one + "," + two + "]", []string{"Prefer", "return=minimal"}, fates(stored, spooled), 202, `{"accepted":2,"deduplicated":0,"rejected":0,"failed":0,"items":[]}`, ""},
		{"batch, full until later", "/batch", "[" + one + "]", nil, fates(fails(&delivery.LaterError{Err: delivery.ErrFull, After: time.Minute})), 503, `{"accepted":0,"deduplicated":0,"rejected":0,"failed":1,"items":[{"index":0,"status":"failed","retryable":true}]}`, "60"},
		{"one rejected", "", bad, nil, nil, 400, problemHead + `invalid-event","title":"The event is not valid","status":400,"detail":"/source is empty (allowed: 1 to 512 bytes)","retryable":false,"error":[{"pointer":"/source","detail":"is empty","allowed":"1 to 512 bytes"}]}`, ""},
		{"one, no acknowledgement", "", one, nil, fates(fails(delivery.ErrNoAck)), 503, problemHead + `log-unavailable","title":"The log did not acknowledge in time","status":503,"detail":"the event may be in the log or not; sending it again is safe: it stays one event","retryable":true}`, "2"},
		{"one, full", "", one, nil, fates(fails(delivery.ErrFull)), 503, problemHead + `overloaded","title":"The edge has as much to do as it gets done in time","status":503,"detail":"too much waits for the log's acknowledgement already; send it again later","retryable":true}`, "1"},
		{"one, stopping", "", one, nil, fates(fails(delivery.ErrStopped)), 503, problemHead + `stopping","title":"This edge is shutting down","status":503,"detail":"send it to another edge, or again later","retryable":true}`, "1"},
		{"one, too large for the log", "", one, nil, fates(fails(kerr.MessageTooLarge)), 413, problemHead + `event-too-large","title":"The event has too many bytes","status":413,"detail":"the log takes no record of this size","retryable":false,"error":[{"pointer":"","detail":"is larger than the log takes"}]}`, ""},
		{"batch", "/batch", "[" + one + "," + two + "]", nil, nil, 202, `{"accepted":2,"deduplicated":0,"rejected":0,"failed":0,"items":[{"index":0,"event_id":"` + idOne + `","status":"queued"},{"index":1,"event_id":"` + idTwo + `","status":"queued"}]}`, ""},
		{"batch, mixed", "/batch", "[" + one + "," + bad + "," + two + "]", nil, fates(queued, fails(delivery.ErrNoAck)), 207, `{"accepted":1,"deduplicated":0,"rejected":1,"failed":1,"items":[{"index":0,"event_id":"` + idOne + `","status":"queued"},{"index":1,"status":"rejected","error":[{"pointer":"/source","detail":"is empty","allowed":"1 to 512 bytes"}]},{"index":2,"status":"failed","retryable":true}]}`, ""},
		{"batch, mixed, minimal", "/batch", "[" + one + "," + bad + "," + two + "]", []string{"Prefer", "return=minimal"}, fates(queued, fails(delivery.ErrNoAck)), 207, `{"accepted":1,"deduplicated":0,"rejected":1,"failed":1,"items":[{"index":1,"status":"rejected","error":[{"pointer":"/source","detail":"is empty","allowed":"1 to 512 bytes"}]},{"index":2,"status":"failed","retryable":true}]}`, ""},
		{"batch, all rejected", "/batch", "[" + bad + "]", nil, nil, 400, `{"accepted":0,"deduplicated":0,"rejected":1,"failed":0,"items":[{"index":0,"status":"rejected","error":[{"pointer":"/source","detail":"is empty","allowed":"1 to 512 bytes"}]}]}`, ""},
		{"batch, rejected by the log", "/batch", "[" + one + "]", nil, fates(fails(kerr.MessageTooLarge)), 400, `{"accepted":0,"deduplicated":0,"rejected":1,"failed":0,"items":[{"index":0,"status":"rejected","error":[{"pointer":"","detail":"is larger than the log takes"}]}]}`, ""},
		{"batch, away", "/batch", "[" + one + "," + bad + "]", nil, fates(fails(delivery.ErrAway)), 503, `{"accepted":0,"deduplicated":0,"rejected":1,"failed":1,"items":[{"index":0,"status":"failed","retryable":true},{"index":1,"status":"rejected","error":[{"pointer":"/source","detail":"is empty","allowed":"1 to 512 bytes"}]}]}`, "2"},
		{"batch, none", "/batch", "[]", nil, nil, 400, problemHead + `invalid-batch","title":"The body is not a batch of events","status":400,"detail":"holds no event (allowed: 1 to 100000 events)","retryable":false,"error":[{"pointer":"","detail":"holds no event","allowed":"1 to 100000 events"}]}`, ""},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			_, h := newAPI(t, &fakeLog{answer: r.log}, nil)
			w := post(h, "/api/events"+r.path, r.body, r.header...)
			// A problem names its request, which is another each time.
			name := `"instance":"` + problem.InstancePrefix + w.Header().Get("X-Request-Id") + `",`
			require.Equal(t, strings.HasPrefix(r.want, problemHead), strings.Contains(w.Body.String(), name))
			require.Equal(t, r.want, strings.Replace(w.Body.String(), name, "", 1))
			require.Equal(t, r.status, w.Code)
			require.Equal(t, r.retryAfter, w.Header().Get("Retry-After"))
		})
	}
}

// TestRecords pins what is written to the log.
func TestRecords(t *testing.T) {
	log := &fakeLog{}
	_, h := newAPI(t, log, nil)
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	require.Equal(t, 202, post(h, "/api/events", two, "Traceparent", trace, "X-Event-Id", "mine").Code)
	require.Equal(t, 202, post(h, "/api/events/batch", "["+two+"]", "Traceparent", "00-nonsense").Code)
	want := kgo.Record{
		Key:       []byte("é:t:u:2026-01-02T02:04:05.500000000Z"),
		Value:     []byte(`{"source":"é","event_type":"t","actor_id":"u","occurred_at":"2026-01-02T02:04:05.500000000Z","client_event_id":"mine","payload":{"b":1,"a":[1.0]}}`),
		Timestamp: clock,
		Headers: []kgo.RecordHeader{
			{Key: "event-id", Value: []byte("a89c0bbc-544b-822d-bbc1-51aa72f973cb")},
			{Key: "content-hash", Value: log.sent[0].Headers[1].Value},
			{Key: "traceparent", Value: []byte(trace)},
		},
	}
	require.Equal(t, want, log.sent[0])
	want.Value = []byte(`{"source":"é","event_type":"t","actor_id":"u","occurred_at":"2026-01-02T02:04:05.500000000Z","payload":{"b":1,"a":[1.0]}}`)
	want.Headers = want.Headers[:2]
	require.Equal(t, want, log.sent[1])
	require.Regexp(t, "^[0-9a-f]{32}$", string(log.sent[0].Headers[1].Value))
}

// TestMemoryIsNotReused: records that the log has not let go of keep their
// bytes, whatever is posted afterwards.
func TestMemoryIsNotReused(t *testing.T) {
	var held []*delivery.Delivery
	log := logFunc(func(_ context.Context, ds []*delivery.Delivery) bool {
		held = append(held, ds...)
		delivery.Fail(ds, delivery.ErrNoAck)
		return false
	})
	_, h := newAPI(t, log, nil)
	for range 50 {
		require.Equal(t, 503, post(h, "/api/events", one).Code)
		require.Equal(t, 503, post(h, "/api/events/batch", "["+two+","+two+"]").Code)
	}
	for i, d := range held {
		want := "a%3Ab:t:u:2026-01-02T03:04:05.000000000Z"
		if i%3 != 0 {
			want = "é:t:u:2026-01-02T02:04:05.500000000Z"
		}
		require.Equal(t, want, string(d.Record.Key))
		value := d.Record.Value
		require.True(t, bytes.HasPrefix(value, []byte(`{"source":`)) && bytes.HasSuffix(value, []byte("}}")), "%s", value)
	}
}

type logFunc func(context.Context, []*delivery.Delivery) bool

func (f logFunc) Send(ctx context.Context, ds []*delivery.Delivery) bool { return f(ctx, ds) }

// TestPanic: a handler that panics answers 500, is counted, and takes nothing
// with it.
func TestPanic(t *testing.T) {
	a, h := newAPI(t, logFunc(func(context.Context, []*delivery.Delivery) bool { panic("boom") }), nil)
	for _, path := range []string{"/api/events", "/api/events/batch"} {
		body := one
		if path != "/api/events" {
			body = "[" + one + "]"
		}
		w := post(h, path, body)
		require.Equal(t, 500, w.Code)
		require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
		require.NotContains(t, w.Body.String(), "boom")
	}
	var m dto.Metric
	require.NoError(t, a.metrics.panics.Write(&m))
	require.InDelta(t, 2, m.GetCounter().GetValue(), 0)
	require.Zero(t, a.budget.Used())
}

// TestBudget: what all requests hold is bounded; past it they are refused with
// a 503. A client that leaves in the middle of its body gives its memory back.
func TestBudget(t *testing.T) {
	a, h := newAPI(t, &fakeLog{}, func(c *Config) {
		c.EventBytes, c.BodyBytes, c.BatchItems, c.InFlightBytes = 32<<10, 64<<10, 100, 1400<<10
	})
	const others = 1100 << 10 // of the 1,260 KiB from which on requests are refused, room for two bodies
	require.True(t, a.budget.Take(others))
	defer func() {
		a.budget.Give(others)
		require.Zero(t, a.budget.Used())
	}()
	large := "[" + strings.Repeat(" ", 60<<10) + one + "]"
	stalled := stalls{reached: make(chan struct{}), end: make(chan error)}
	done := make(chan int, 2)
	for range 2 { // each holds 64 KiB for its body
		go func() {
			r := httptest.NewRequest(http.MethodPost, "/api/events/batch", io.MultiReader(strings.NewReader(large), stalled))
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			done <- w.Code
		}()
		<-stalled.reached
	}
	w := post(h, "/api/events/batch", large)
	require.Equal(t, 503, w.Code, "%s", w.Body)
	require.Contains(t, w.Body.String(), "urn:sluice:problem:overloaded")
	stalled.end <- io.ErrUnexpectedEOF // one leaves
	require.Equal(t, 400, <-done)
	require.Equal(t, 202, post(h, "/api/events/batch", large).Code)
	stalled.end <- io.EOF
	require.Equal(t, 202, <-done)
}

// TestAdmit: near the bound a request is refused before its body is read.
func TestAdmit(t *testing.T) {
	a, h := newAPI(t, &fakeLog{}, nil)
	taken := a.budget.Limit() / 10 * 9
	require.True(t, a.budget.Take(taken))
	for _, path := range []string{"/api/events", "/api/events/batch"} {
		r := httptest.NewRequest(http.MethodPost, path, failing{errors.New("the body was read")})
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Equal(t, 503, w.Code, w.Body)
		require.Equal(t, "1", w.Header().Get("Retry-After"))
	}
	a.budget.Give(taken)
	require.Equal(t, 202, post(h, "/api/events", one).Code)
}

// stalls is a body whose rest does not come.
type stalls struct {
	reached chan struct{}
	end     chan error
}

func (s stalls) Read([]byte) (int, error) {
	s.reached <- struct{}{}
	return 0, <-s.end
}

// TestBodyEnds: bodies that end in the middle, are not what their coding says,
// or come from a client that is gone.
func TestBodyEnds(t *testing.T) {
	a, h := newAPI(t, &fakeLog{}, nil)
	for name, r := range map[string]struct {
		body io.Reader
		want string
	}{
		"cut off": {io.MultiReader(strings.NewReader(one[:10]), failing{io.ErrUnexpectedEOF}), "incomplete-body"},
		"timeout": {io.MultiReader(strings.NewReader(one[:10]), failing{timeout{}}), "body-timeout"},
		"reset":   {failing{errors.New("connection reset by peer")}, "incomplete-body"},
	} {
		req := httptest.NewRequest(http.MethodPost, "/api/events", io.NopCloser(r.body))
		req.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		require.Contains(t, w.Body.String(), "urn:sluice:problem:"+r.want+`"`, name)
		require.Equal(t, "close", w.Header().Get("Connection"), name)
	}
	require.Zero(t, a.budget.Used())
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

type timeout struct{}

func (timeout) Error() string   { return "i/o timeout" }
func (timeout) Timeout() bool   { return true }
func (timeout) Temporary() bool { return true }

// TestCompressedBudget: a bomb is stopped by the bytes it would become, in
// either coding, long before they are all there.
func TestCompressedBudget(t *testing.T) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write(make([]byte, 65<<20))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	a, h := newAPI(t, &fakeLog{}, nil)
	w := post(h, "/api/events/batch", b.String(), "Content-Encoding", "gzip")
	require.Equal(t, 413, w.Code)
	require.Contains(t, w.Body.String(), "body-too-large")
	require.Zero(t, a.budget.Used())
}

func TestConfig(t *testing.T) {
	require.NoError(t, DefaultConfig().Validate())
	for name, spoil := range map[string]func(*Config){
		"field_bytes":     func(c *Config) { c.Event.FieldBytes = 4097 },
		"depth":           func(c *Config) { c.Event.Depth = 257 },
		"max_ahead":       func(c *Config) { c.Event.MaxAhead = -1 },
		"event_bytes":     func(c *Config) { c.EventBytes = 2 << 20 },
		"batch_items":     func(c *Config) { c.BatchItems = 0 },
		"body_bytes":      func(c *Config) { c.BodyBytes = 1 },
		"sync_wait":       func(c *Config) { c.SyncWait = time.Millisecond },
		"in_flight_bytes": func(c *Config) { c.InFlightBytes = 64 << 20 },
	} {
		c := DefaultConfig()
		spoil(&c)
		require.ErrorContains(t, c.Validate(), name)
	}
}
