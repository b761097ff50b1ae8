package httpapi

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"sluice/ingest/internal/delivery"
)

// Waiter waits until events are stored.
type Waiter interface {
	// Wait waits until all of ds that are queued are stored, or ctx ends, and
	// makes [delivery.Stored] the status of those that are.
	Wait(ctx context.Context, ds []*delivery.Delivery)
}

// await waits until ds are stored, for as long as the request prefers it, or the
// mode asks for it, and it is allowed, counted from when the request came.
func (a *API) await(r *http.Request, p preferences, begun time.Time, ds []*delivery.Delivery) {
	wait := a.wait(p)
	if wait <= 0 {
		return
	}
	ctx, cancel := context.WithDeadline(r.Context(), begun.Add(wait))
	defer cancel()
	a.parts.Stored.Wait(ctx, ds)
}

// wait is how long a request waits for its events to be stored: a preference goes
// before the mode.
func (a *API) wait(p preferences) time.Duration {
	switch {
	case p.waits:
		return min(p.wait, a.cfg.SyncWait.Truncate(time.Second))
	case a.parts.Sync():
		return a.cfg.SyncWait
	}
	return 0
}

// applied sets Preference-Applied for what of p was done.
func (a *API) applied(h http.Header, p preferences, minimal bool) {
	var done []string
	if p.minimal && minimal {
		done = append(done, "return=minimal")
	}
	if p.waits {
		done = append(done, "wait="+strconv.FormatInt(int64(a.wait(p)/time.Second), 10))
	}
	if done != nil {
		h.Set("Preference-Applied", strings.Join(done, ", "))
	}
}
