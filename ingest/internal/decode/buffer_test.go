package decode

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/ingest/internal/problem"
)

// TestBufferFitsBody: a body held a buffer of half a megabyte once it had more than
// 32 KiB, so that the batches of a busy edge had eight times the memory they needed.
func TestBufferFitsBody(t *testing.T) {
	for _, c := range []struct{ body, most int }{
		{0, 4 << 10}, {300, 4 << 10}, {4 << 10, 16 << 10}, {15 << 10, 16 << 10}, {60 << 10, 64 << 10}, {64 << 10, 128 << 10},
		{100 << 10, 128 << 10}, {270 << 10, 512 << 10}, {600 << 10, 600<<10 + 1}, {3 << 20, 3<<20 + 1},
	} {
		budget := NewBudget(64 << 20)
		r := NewReader(budget)
		text := bytes.Repeat([]byte("x"), c.body)
		for _, announced := range []bool{true, false} {
			req := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/", bytes.NewReader(text))
			most := c.most
			if !announced {
				req.ContentLength = -1
				most = max(most, 2*c.body)
			}
			body, perr := r.Read(req, 64<<20, problem.BodyTooLarge)
			require.Nil(t, perr)
			require.Equal(t, text, body.Bytes())
			require.LessOrEqual(t, budget.Used(), int64(most), "a body of %d bytes", c.body)
			body.Release()
			require.Zero(t, budget.Used())
		}
	}
}

// TestBufferGrowsWithWhatArrives: what is announced and not sent costs little.
func TestBufferGrowsWithWhatArrives(t *testing.T) {
	require.LessOrEqual(t, grown(4<<10, 60<<20), 64<<10)
	for have := sizes[0]; have < 64<<20; {
		next := grown(have, 64<<20)
		require.Greater(t, next, have)
		require.LessOrEqual(t, next, 16*have)
		have = next
	}
	require.Equal(t, 4097, grown(4<<10, 4<<10), "room to find the end")
	require.Equal(t, 5001, grown(4<<10, 5000))
}
