// Package mode is the switch between the edge's two ways to answer: once the log
// has the event, or once it can be queried.
package mode

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Mode is a way to answer.
type Mode string

const (
	// Async answers once the log has acknowledged an event: 202, queued.
	Async Mode = "async"
	// Sync waits, within a bound, until it can be queried: 200, stored.
	Sync Mode = "sync"
)

// Parse reads the name of a mode.
func Parse(name string) (Mode, error) {
	switch m := Mode(name); m {
	case Async, Sync:
		return m, nil
	}
	return "", fmt.Errorf("mode %q: want async or sync", name)
}

// State is what the switch stands at.
type State struct {
	Mode  Mode      `json:"mode"`
	Since time.Time `json:"since"`
	// By is who set it: "start", "admin", "signal" or "file".
	By string `json:"by"`
}

// Switch holds the mode in force. It is safe for concurrent use, and takes effect
// at once: each request looks at it.
type Switch struct {
	log *slog.Logger

	mu    sync.RWMutex
	state State
}

// NewSwitch returns a switch that stands at m.
func NewSwitch(m Mode, log *slog.Logger, reg *prometheus.Registry) *Switch {
	s := &Switch{log: log, state: State{Mode: m, Since: time.Now(), By: "start"}}
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "sluice_ingest_mode_sync",
		Help: "1 when answers wait until events can be queried, 0 when only for the log.",
	}, func() float64 {
		if s.Sync() {
			return 1
		}
		return 0
	}))
	return s
}

// Sync tells whether the mode in force is [Sync].
func (s *Switch) Sync() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.state.Mode == Sync
}

// State is what the switch stands at, and since when.
func (s *Switch) State() State {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.state
}

// Set switches to m for every request that asks from now on, and returns what the
// switch stands at then. Set to what it stands at already, it changes nothing.
func (s *Switch) Set(m Mode, by string) State {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.Mode != m {
		s.log.Info("the mode is switched", "from", s.state.Mode, "to", m, "by", by)
		s.state = State{Mode: m, Since: time.Now(), By: by}
	}
	return s.state
}
