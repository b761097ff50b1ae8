package monitor

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
)

// Status is what a member says of itself, as /status of the admin port serves it.
type Status struct {
	// Ready is what /readyz says; Reason why it is not.
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"`
	// Refused is what the doctor wants mended, "" if nothing.
	Refused    string      `json:"refused,omitempty"`
	Partitions []Partition `json:"partitions"`
}

// State is what an owned partition does.
type State string

// The states of a partition.
const (
	// Owning: it moves, or waits for records.
	Owning State = "owning"
	// Recovering: it has been assigned, and finds out where to start.
	Recovering State = "recovering"
	// Halted: it does not move, for Reason.
	Halted State = "halted"
	// Paused: an operator wants it not to move, for Reason.
	Paused State = "paused"
	// Rereading: a range is read again since the group's offset was set back.
	Rereading State = "rereading"
)

// Partition is one partition that a member owns.
type Partition struct {
	Partition int32  `json:"partition"`
	State     State  `json:"state"`
	Reason    string `json:"reason,omitempty"`
	// Next is the first offset not journaled, -1 before the first batch of
	// this assignment.
	Next int64 `json:"next"`
	// Reread is the last range that was read again since the group's offset was
	// set back, Jump the last offset past the journal's end that was not
	// followed; nil: none in this assignment.
	Reread *Reread `json:"reread,omitempty"`
	Jump   *Jump   `json:"jump,omitempty"`
}

// Reread is a range of offsets that is or was read again: From inclusive, To
// exclusive. Missing is how many rows and fates of it were missing, and written.
type Reread struct {
	From    int64 `json:"from"`
	To      int64 `json:"to"`
	Next    int64 `json:"next"`
	Records int   `json:"records"`
	Missing int   `json:"missing"`
	Done    bool  `json:"done"`
}

// Jump is an offset of the group, set by someone else, past where the journal ended.
type Jump struct {
	To         int64 `json:"to"`
	JournalEnd int64 `json:"journal_end"`
}

// Status tells what this member is at, its partitions in ascending order.
func (m *Monitor) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := Status{Ready: true, Partitions: []Partition{}}
	if err := m.ready(); err != nil {
		s.Ready, s.Reason = false, err.Error()
	}
	if m.refused != nil {
		s.Refused = m.refused.Error()
	}
	for p, next := range m.owned {
		x := Partition{Partition: p, State: Owning, Next: next}
		switch err := m.waiting[p]; {
		case m.refused != nil:
			x.State, x.Reason = Halted, "the doctor stopped it"
		case errors.Is(err, errRecovering):
			x.State = Recovering
		case err != nil:
			x.State, x.Reason = Halted, err.Error()
		}
		if r, ok := m.rereads[p]; ok {
			if x.Reread = &r; !r.Done && x.State == Recovering {
				x.State = Rereading
			}
		}
		if j, ok := m.jumps[p]; ok {
			x.Jump = &j
		}
		if reason := m.pauses[p]; reason != "" && m.refused == nil {
			x.State, x.Reason = Paused, reason
		}
		s.Partitions = append(s.Partitions, x)
	}
	slices.SortFunc(s.Partitions, func(a, b Partition) int { return int(a.Partition - b.Partition) })
	return s
}

// StatusHandler serves [Monitor.Status] as JSON.
func (m *Monitor) StatusHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(m.Status()) //nolint:errcheck // the client went away
	})
}

// Doctor implements the doctor package's Observer: what must be mended makes
// the service unready, and the findings are a metric.
func (m *Monitor) Doctor(refused error, findings map[string]int) {
	for severity, n := range findings {
		m.doctor.WithLabelValues(severity).Set(float64(n))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refused = refused
}
