package health

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"sluice/ingest/internal/logtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newBoard() (*Board, *prometheus.Registry) {
	reg := prometheus.NewRegistry()
	return NewBoard(logtest.New(io.Discard), reg), reg
}

// probe is a dependency whose state a test sets.
type probe struct{ err atomic.Pointer[error] }

func (p *probe) set(err error) { p.err.Store(&err) }

func (p *probe) ask(context.Context) error {
	if err := p.err.Load(); err != nil {
		return *err
	}
	return nil
}

// TestReady: ready as long as one of the ways to take an event is well, and not
// from the moment of stopping.
func TestReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, reg := newBoard()
		var kafka, spool, other probe
		b.Add(Check{Name: "kafka", Probe: kafka.ask, Takes: true})
		b.Add(Check{Name: "spool", Probe: spool.ask, Takes: true})
		b.Add(Check{Name: "schemas", Probe: other.ask})
		require.ErrorContains(t, b.Ready(), "kafka: not checked yet")
		require.Equal(t, "down", b.Report().Status)
		require.Equal(t, Unknown, b.Report().Checks[0].Status)

		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); b.Run(ctx) }()
		synctest.Wait()
		require.NoError(t, b.Ready())
		require.Equal(t, "up", b.Report().Status)

		time.Sleep(10 * time.Second)
		kafka.set(errors.New("gone"))
		other.set(errors.New("a file is broken"))
		time.Sleep(1500 * time.Millisecond)
		require.NoError(t, b.Ready(), "the spool still takes events")
		r := b.Report()
		require.Equal(t, "degraded", r.Status)
		require.Equal(t, Down, r.Checks[0].Status)
		require.Equal(t, "gone", r.Checks[0].Error)
		require.InDelta(t, 0.5, r.Checks[0].AgeSeconds, 0.001)
		require.Equal(t, Up, r.Checks[1].Status)
		since := r.Checks[0].Since

		spool.set(errors.New("full"))
		time.Sleep(time.Second)
		require.ErrorContains(t, b.Ready(), "kafka: gone")
		require.ErrorContains(t, b.Ready(), "spool: full")
		r = b.Report()
		require.False(t, r.Ready)
		require.Equal(t, "down", r.Status)
		require.Equal(t, since, r.Checks[0].Since, "it has not changed since")

		families, err := reg.Gather()
		require.NoError(t, err)
		up := map[string]float64{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() == "sluice_ingest_check_up" {
					up[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
				}
			}
		}
		require.Equal(t, map[string]float64{"kafka": 0, "spool": 0, "schemas": 0}, up)

		spool.set(nil)
		time.Sleep(time.Second)
		require.NoError(t, b.Ready())
		b.Stopping()
		require.ErrorIs(t, b.Ready(), ErrStopping)
		require.Equal(t, "stopping", b.Report().Status)
		stop()
		<-done
	})
}

// TestHanging: a probe that hangs, whether or not it heeds its context, is an
// error when its time is up, and is not started a second time meanwhile. The
// seed's /health hung with what it asked.
func TestHanging(t *testing.T) {
	for name, heeds := range map[string]bool{"heeds its context": true, "does not": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, _ := newBoard()
				var running, most atomic.Int32
				release := make(chan struct{})
				b.Add(Check{Name: "kafka", Takes: true, Every: time.Second, Timeout: 3 * time.Second, Probe: func(ctx context.Context) error {
					most.Store(max(most.Load(), running.Add(1)))
					defer running.Add(-1)
					if heeds {
						select {
						case <-ctx.Done():
							return ctx.Err()
						case <-release:
							return nil
						}
					}
					<-release
					return nil
				}})
				ctx, stop := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() { defer close(done); b.Run(ctx) }()

				time.Sleep(2 * time.Second)
				r := b.Report()
				require.Equal(t, Unknown, r.Checks[0].Status)
				require.InDelta(t, 2, r.Checks[0].AgeSeconds, 0.001)
				require.InDelta(t, 2, r.Checks[0].ProbingSeconds, 0.001)

				time.Sleep(time.Minute)
				r = b.Report()
				require.Equal(t, Down, r.Checks[0].Status)
				require.Contains(t, r.Checks[0].Error, "no answer within 3s")
				require.Equal(t, int32(1), most.Load())
				require.ErrorContains(t, b.Ready(), "no answer")

				close(release)
				time.Sleep(6 * time.Second)
				require.NoError(t, b.Ready(), "it came back")
				stop()
				<-done
			})
		})
	}
}

// TestPanics: a probe that panics has failed, and ends nothing else.
func TestPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := newBoard()
		b.Add(Check{Name: "kafka", Takes: true, Probe: func(context.Context) error { panic("oh") }})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); b.Run(ctx) }()
		synctest.Wait()
		require.ErrorContains(t, b.Ready(), "the check itself failed: oh")
		stop()
		<-done
	})
}

// TestHandler: the report is answered from what is known, with 200, while a
// probe hangs.
func TestHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := newBoard()
		b.Add(Check{Name: "kafka", Takes: true, Timeout: time.Hour, Probe: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); b.Run(ctx) }()
		time.Sleep(1500 * time.Millisecond)
		began := time.Now()
		w := httptest.NewRecorder()
		b.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/health", nil))
		require.Equal(t, began, time.Now(), "it waited")
		require.Equal(t, http.StatusOK, w.Code)
		var r Report
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &r))
		require.False(t, r.Ready)
		require.Equal(t, "kafka: not checked yet", r.Reason)
		require.InDelta(t, 1.5, r.Checks[0].ProbingSeconds, 0.001)
		stop()
		<-done
	})
}

func TestAddRefuses(t *testing.T) {
	b, _ := newBoard()
	ok := func(context.Context) error { return nil }
	require.Panics(t, func() { b.Add(Check{Probe: ok}) })
	require.Panics(t, func() { b.Add(Check{Name: "a"}) })
	b.Add(Check{Name: "a", Probe: ok})
	require.Panics(t, func() { b.Add(Check{Name: "a", Probe: ok}) }, "a name twice")
}
