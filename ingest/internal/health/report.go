package health

import (
	"encoding/json"
	"net/http"
	"time"
)

// Report is what is known at one moment, as /health answers it.
type Report struct {
	// Status is "up" when every check is, "down" when no event can be taken,
	// "stopping" while the edge stops, else "degraded".
	Status string `json:"status"`
	// Ready tells whether events can be taken; /readyz says the same.
	Ready bool `json:"ready"`
	// Reason says why not.
	Reason string `json:"reason,omitempty"`
	// UptimeSeconds is how long the edge has run.
	UptimeSeconds float64 `json:"uptime_seconds"`
	// Checks are in the order in which they were added.
	Checks []CheckReport `json:"checks"`
	// Complete is up to when what edges accepted can be queried; nil while the
	// edge has not heard of it.
	Complete *CompleteReport `json:"complete,omitempty"`
}

// CompleteReport is what the consumer said last of the data being whole.
type CompleteReport struct {
	// Through: what was accepted before it can be queried.
	Through time.Time `json:"through"`
	// AgeSeconds is how long ago that is.
	AgeSeconds float64 `json:"age_seconds"`
	// ToldSecondsAgo is how long ago the consumer said so, by its clock.
	ToldSecondsAgo float64 `json:"told_seconds_ago"`
	// HeldBy is the edge that it waits for, of Edges.
	HeldBy string `json:"held_by"`
	Edges  int    `json:"edges"`
}

// CheckReport is what is known of one dependency.
type CheckReport struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	// Since is when the status became what it is.
	Since time.Time `json:"since"`
	// AgeSeconds is how long ago the last probe ended, so how old this is.
	AgeSeconds float64 `json:"age_seconds"`
	// ProbingSeconds is how long the probe has run that runs now; 0 when none.
	ProbingSeconds float64 `json:"probing_seconds,omitempty"`
	// Error is the last probe's.
	Error string `json:"error,omitempty"`
}

// Report tells what is known now. It asks no one.
func (b *Board) Report() Report {
	now := time.Now()
	r := Report{Status: "up", Ready: true, UptimeSeconds: round(now.Sub(b.begun)), Checks: make([]CheckReport, len(b.checks))}
	for i, c := range b.checks {
		cr := CheckReport{Name: c.Name, Status: Unknown, Since: b.begun.UTC(), AgeSeconds: round(b.age(c, now))}
		if last := c.last.Load(); last != nil {
			cr.Status, cr.Since = Up, last.since.UTC()
			if last.err != nil {
				cr.Status, cr.Error = Down, last.err.Error()
			}
		}
		if began := c.began.Load(); began != 0 {
			cr.ProbingSeconds = round(now.Sub(b.begun) - time.Duration(began))
		}
		if cr.Status != Up {
			r.Status = "degraded"
		}
		r.Checks[i] = cr
	}
	if c, ok := b.complete(); ok {
		r.Complete = &CompleteReport{c.CompleteThrough, round(now.Sub(c.CompleteThrough)), round(now.Sub(c.At)), c.HeldBy, c.Edges}
	}
	if err := b.Ready(); err != nil {
		r.Ready, r.Reason, r.Status = false, err.Error(), "down"
		if b.stop.Load() {
			r.Status = "stopping"
		}
	}
	return r
}

func round(d time.Duration) float64 { return max(0, d.Round(time.Millisecond).Seconds()) }

// Handler serves the report as JSON, always with 200: it tells a person; what
// decides about traffic is /readyz.
func (b *Board) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_ = json.NewEncoder(w).Encode(b.Report()) // the client has left
	})
}
