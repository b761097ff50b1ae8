package httpapi

import (
	"context"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"sluice/ingest/internal/delivery"
	"sluice/ingest/internal/logtest"
)

func TestPreferences(t *testing.T) {
	const most = time.Duration(math.MaxInt64/int64(time.Second)/10) * time.Second
	none := preferences{}
	minimal := preferences{minimal: true}
	wait := func(d time.Duration) preferences { return preferences{waits: true, wait: d} }
	for line, want := range map[string]preferences{
		"return=minimal": minimal, "RETURN=Minimal": minimal, `return="minimal"`: minimal, "return = minimal ; foo=1": minimal,
		"return=representation": none, "return=representation, return=minimal": none, "": none, "minimal": none, "returns=minimal": none, "return": none,
		"wait=2": wait(2 * time.Second), `wait = "2"`: wait(2 * time.Second), "Wait=0": wait(0), "wait=007": wait(7 * time.Second),
		"respond-async, wait=10": wait(10 * time.Second), "wait=1, wait=2": wait(time.Second), ", ,wait=1,": wait(time.Second),
		"wait=99999999999999999999999999": wait(most),
		"wait":                            none, "wait=": none, "wait=-1": none, "wait=1.5": none, "wait=x": none, "wait=+1": none, "wait=1 2": none, `wait="1`: none, "wait=١": none,
		"wait=x, wait=2": none,
		"wait=5;a=b;c":   wait(5 * time.Second), `wait=5;a="b, wait=7;c"`: wait(5 * time.Second), "wait=5;;": wait(5 * time.Second),
		`foo="a\\", wait=7": wait=9`:      none,
		`foo="a, return=minimal", wait=3`: wait(3 * time.Second), `foo="a\", return=minimal", wait=3`: wait(3 * time.Second),
		"wait=5, return=minimal": {minimal: true, waits: true, wait: 5 * time.Second},
		"(junk), wait=4":         wait(4 * time.Second), "=, wait=4": wait(4 * time.Second), "\x00\xff, wait=4": wait(4 * time.Second),
	} {
		require.Equal(t, want, preferencesOf(http.Header{"Prefer": {line}}), line)
	}
	require.Equal(t, preferences{minimal: true, waits: true, wait: time.Second}, preferencesOf(http.Header{"Prefer": {"wait=1", "return=minimal", "wait=9"}}))
}

func FuzzPreferences(f *testing.F) {
	for _, seed := range []string{"wait=2, return=minimal", `a="b\"c";d=e, wait=1`, `wait="`, ",,;=\\"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		p := preferencesOf(http.Header{"Prefer": {line}})
		require.GreaterOrEqual(t, p.wait, time.Duration(0))
		if !strings.ContainsAny(line, "\"\\") { // a comma ends an element for certain
			require.Equal(t, p, preferencesOf(http.Header{"Prefer": strings.Split(line, ",")}), "several lines are one list")
		}
	})
}

// waitFor notes how long it was asked to wait, and says what is stored by then.
type waitFor struct {
	within time.Duration
	stores bool
}

func (w *waitFor) Wait(ctx context.Context, ds []*delivery.Delivery) {
	at, _ := ctx.Deadline()
	w.within = time.Until(at)
	for _, d := range ds {
		if w.stores && d.Err == nil && d.Status == delivery.Queued {
			d.Status = delivery.Stored
		}
	}
}

// TestWhoWaits: the mode, the request's preference and the bound decide how long
// an answer waits; the answer says what is true then and what was applied.
func TestWhoWaits(t *testing.T) {
	for name, row := range map[string]struct {
		sync, stores bool
		path, prefer string
		log          func([]*delivery.Delivery)
		within       time.Duration // 0: it must not wait
		status       int
		text         string
		applied      string
	}{
		"async":                  {status: 202, text: `"status":"queued"`},
		"async, wait=2":          {stores: true, prefer: "wait=2", within: 2 * time.Second, status: 200, text: `"status":"stored"`, applied: "wait=2"},
		"async, wait past bound": {stores: true, prefer: "wait=3600", within: 5 * time.Second, status: 200, text: `"status":"stored"`, applied: "wait=5"},
		"async, in vain":         {prefer: "wait=2", within: 2 * time.Second, status: 202, text: `"status":"queued"`, applied: "wait=2"},
		"async, nonsense":        {prefer: "wait=soon", status: 202, text: `"status":"queued"`},
		"sync":                   {sync: true, stores: true, within: 5 * time.Second, status: 200, text: `"status":"stored"`},
		"sync, in vain":          {sync: true, within: 5 * time.Second, status: 202, text: `"status":"queued"`},
		"sync, wait=0":           {sync: true, stores: true, prefer: "wait=0", status: 202, text: `"status":"queued"`, applied: "wait=0"},
		"sync, spooled":          {sync: true, stores: true, log: fates(spooled), within: 5 * time.Second, status: 202, text: `"status":"spooled"`},
		"sync, a repeat":         {sync: true, stores: true, log: fates(repeat), within: 5 * time.Second, status: 200, text: `"status":"stored","deduplicated":true`},
		"sync, not accepted":     {sync: true, stores: true, log: fates(fails(delivery.ErrAway)), status: 503, text: "log-unavailable"},
		"batch, sync":            {sync: true, stores: true, path: "/batch", within: 5 * time.Second, status: 200, text: `"status":"stored"`},
		"batch, both":            {stores: true, path: "/batch", prefer: "wait=1, return=minimal", within: time.Second, status: 200, text: `"items":[]`, applied: "return=minimal, wait=1"},
	} {
		t.Run(name, func(t *testing.T) {
			waiter := &waitFor{stores: row.stores}
			p := parts(&fakeLog{answer: row.log})
			p.Stored, p.Sync = waiter, func() bool { return row.sync }
			a, err := New(DefaultConfig(), p, logtest.New(io.Discard), prometheus.NewRegistry())
			require.NoError(t, err)
			body, header := one, []string{}
			if row.path != "" {
				body = "[" + one + "]"
			}
			if row.prefer != "" {
				header = []string{"Prefer", row.prefer}
			}
			w := post(a.Handler(func() error { return nil }, nil), "/api/events"+row.path, body, header...)
			require.Equal(t, row.status, w.Code, w.Body)
			require.Contains(t, w.Body.String(), row.text)
			require.Equal(t, row.applied, strings.Join(w.Header().Values("Preference-Applied"), ", "))
			require.True(t, waiter.within <= row.within && waiter.within >= row.within-time.Second, "asked to wait %v", waiter.within)
			require.Zero(t, a.budget.Used())
		})
	}
}
