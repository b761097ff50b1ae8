package monitor

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"sluice/consumer/internal/partition"
)

// Happened takes in what an owner says; it returns at once.
func (m *Monitor) Happened(e partition.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	label := strconv.Itoa(int(e.Partition))
	switch e.Kind {
	case partition.Paused:
		delete(m.pauses, e.Partition)
		m.paused.WithLabelValues(label).Set(0)
		if e.Reason != "" {
			m.pauses[e.Partition] = e.Reason
			m.paused.WithLabelValues(label).Set(1)
		}
	case partition.SetBack, partition.TakenOver:
		p := e.Progress
		m.rereads[e.Partition] = Reread{From: e.From, To: e.To, Next: p.Next, Records: p.Records, Missing: p.Written + p.Journaled, Done: p.Done}
		remaining := max(e.To-p.Next, 0)
		if p.Done {
			remaining = 0
			m.again.WithLabelValues("back").Inc()
		}
		m.reread.WithLabelValues(label).Set(float64(remaining))
	case partition.JumpNotFollowed:
		m.jumps[e.Partition] = Jump{To: e.To, JournalEnd: e.From}
		m.again.WithLabelValues("forward").Inc()
	}
}

// Note is what /readyz adds to "ready": which partitions are paused, and why. A
// pause is somebody's will, so it does not make the service unready.
func (m *Monitor) Note() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var lines []string
	for p, reason := range m.pauses {
		lines = append(lines, fmt.Sprintf("partition %d: %s", p, reason))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// ReadyHandler answers 200 "ready", and which partitions are paused, or 503 with
// the reason.
func (m *Monitor) ReadyHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if err := m.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
		if note := m.Note(); note != "" {
			fmt.Fprintln(w, note)
		}
	})
}
