package httpapi

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/ingest/internal/delivery"
)

// The bounds on allocations, recorded when they were last looked at, with a
// little room. They count what our own code does between net/http and the Kafka
// client, which allocate for themselves. Whoever raises one says why in the
// commit. Under the race detector sync.Pool forgets on purpose.
const (
	mostPerPost  = 8
	mostPerEvent = 1.1 // of a batch of 1,000
	forgetful    = 3   // times as many, under the race detector
)

// settles answers at once that everything is in the log.
type settles struct{}

func (settles) Send(context.Context, []*delivery.Delivery) bool { return true }

// nowhere is an answer that nobody reads. Its header is emptied, not made anew.
type nowhere struct {
	header http.Header
	status int
}

func (n *nowhere) Header() http.Header         { return n.header }
func (n *nowhere) WriteHeader(status int)      { n.status = status }
func (n *nowhere) Write(p []byte) (int, error) { return len(p), nil }

// again is a body that can be read again and again.
type again struct{ bytes.Reader }

func (*again) Close() error { return nil }

// TestAllocations keeps allocations per post and per event of a batch from
// growing unseen. It counts them; it does not time anything.
func TestAllocations(t *testing.T) {
	var lines bytes.Buffer
	const events = 1000
	for i := range events {
		fmt.Fprintf(&lines, `{"source":"git:snowplow/stream-collector","event_type":"commit_authored","actor_id":"44e0%012d","occurred_at":"2012-03-01T13:09:25+00:00","payload":{"commit":"74d22d288960","parents":0,"subject_words":2}}`+"\n", i)
	}
	for _, c := range []struct {
		name, path, media string
		body              []byte
		per               float64
		most              float64
	}{
		{"a post", "/api/events", "application/json", bytes.TrimSpace(lines.Bytes()[:bytes.IndexByte(lines.Bytes(), '\n')]), 1, mostPerPost},
		{"an event of a batch", "/api/events/batch", "application/x-ndjson", lines.Bytes(), events, mostPerEvent},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, h := newAPI(t, settles{}, nil)
			r := httptest.NewRequest(http.MethodPost, c.path, http.NoBody)
			r.Header.Set("Content-Type", c.media)
			r.ContentLength = int64(len(c.body))
			body, w := &again{}, &nowhere{header: http.Header{}}
			one := func() {
				body.Reset(c.body)
				r.Body = body
				clear(w.header)
				h.ServeHTTP(w, r)
			}
			one()
			require.Equal(t, http.StatusAccepted, w.status)
			n, err := io.Copy(io.Discard, body)
			require.NoError(t, err)
			require.Zero(t, n, "the body was not read")
			most := c.most
			if raceDetector {
				most *= forgetful
			}
			got := testing.AllocsPerRun(200, one) / c.per
			t.Logf("%.3f allocations %s, at most %.3f", got, c.name, most)
			require.LessOrEqual(t, got, most)
		})
	}
}
