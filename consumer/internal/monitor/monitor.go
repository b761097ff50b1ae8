// Package monitor is what the consumer knows of itself: metrics, and whether it
// is ready.
package monitor

import (
	"errors"
	"fmt"
	"sort"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/consumer/internal/dedup"
)

// Monitor implements the partition package's Observer. It is for concurrent use.
type Monitor struct {
	reg     prometheus.Registerer
	records *prometheus.CounterVec
	rows    prometheus.Counter
	batches prometheus.Counter
	next    *prometheus.GaugeVec
	halted  *prometheus.GaugeVec
	doctor  *prometheus.GaugeVec
	paused  *prometheus.GaugeVec
	reread  *prometheus.GaugeVec
	again   *prometheus.CounterVec

	mu       sync.Mutex
	joined   bool
	before   error // what is waited for before joining
	stopping bool
	waiting  map[int32]error // partitions that do not move, and why
	owned    map[int32]int64 // the partitions that are ours, with their next offsets
	refused  error           // what the doctor wants mended
	pauses   map[int32]string
	rereads  map[int32]Reread
	jumps    map[int32]Jump
}

// New returns a monitor that reports to reg.
func New(reg prometheus.Registerer) *Monitor {
	m := &Monitor{
		reg: reg,
		records: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_consumer_records_total", Help: "Records decided, by fate.",
		}, []string{"fate"}),
		rows: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_consumer_rows_written_total", Help: "Rows written to ClickHouse.",
		}),
		batches: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_consumer_batches_total", Help: "Batches journaled.",
		}),
		next: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sluice_consumer_journal_end", Help: "First offset not journaled.",
		}, []string{"partition"}),
		halted: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sluice_consumer_partition_halted", Help: "1 while an owned partition does not move.",
		}, []string{"partition"}),
		doctor: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sluice_consumer_doctor_findings", Help: "What the doctor found, by severity; \"refuse\" stops every partition.",
		}, []string{"severity"}),
		paused: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sluice_consumer_partition_paused", Help: "1 while an owned partition is paused by an operator.",
		}, []string{"partition"}),
		reread: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sluice_consumer_reread_remaining_offsets", Help: "Offsets still to be read again since the group's offset was set back.",
		}, []string{"partition"}),
		again: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_consumer_rereads_total", Help: "Times that the group's offset was set by others: back (read again), or forward (not followed).",
		}, []string{"direction"}),
		waiting: map[int32]error{},
		owned:   map[int32]int64{},
		pauses:  map[int32]string{}, rereads: map[int32]Reread{}, jumps: map[int32]Jump{},
	}
	// Every fate has a series from the start: a first dead letter is an increase.
	for _, fate := range []dedup.Fate{dedup.Row, dedup.Duplicate, dedup.Conflict, dedup.DeadLetter, dedup.Forwarded, dedup.Skipped, dedup.Lost, dedup.Cut} {
		m.records.WithLabelValues(string(fate))
	}
	reg.MustRegister(m.records, m.rows, m.batches, m.next, m.halted, m.doctor, m.paused, m.reread, m.again)
	return m
}

// Registerer is where further metrics of the same service go.
func (m *Monitor) Registerer() prometheus.Registerer { return m.reg }

// Decided implements the partition package's Observer.
func (m *Monitor) Decided(partition int32, counts map[dedup.Fate]int, written int, next int64) {
	for fate, n := range counts {
		m.records.WithLabelValues(string(fate)).Add(float64(n))
	}
	m.rows.Add(float64(written))
	m.batches.Inc()
	m.next.WithLabelValues(strconv.Itoa(int(partition))).Set(float64(next))
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ours := m.owned[partition]; ours {
		m.owned[partition] = next
	}
}

// Halted implements the partition package's Observer.
func (m *Monitor) Halted(partition int32, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	gauge := m.halted.WithLabelValues(strconv.Itoa(int(partition)))
	if err == nil {
		delete(m.waiting, partition)
		gauge.Set(0)
		return
	}
	m.waiting[partition] = err
	gauge.Set(1)
}

var errRecovering = errors.New("recovering")

// Waiting says what the service waits for before it joins the group.
func (m *Monitor) Waiting(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.before = err
}

// Unjoined says that membership of the group is in trouble: until [Monitor.Joined],
// this member may own nothing.
func (m *Monitor) Unjoined(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.joined, m.before = false, fmt.Errorf("the consumer group: %w", err)
}

// Assigned says that a partition became ours and is not yet recovered.
func (m *Monitor) Assigned(partition int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.joined = true
	m.owned[partition] = -1
	m.waiting[partition] = errRecovering
}

// Joined says that the group has answered, be it with no partition at all.
func (m *Monitor) Joined() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.joined, m.before = true, nil
}

// Gone says that a partition is no longer ours.
func (m *Monitor) Gone(partition int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.waiting, partition)
	delete(m.owned, partition)
	delete(m.pauses, partition)
	delete(m.rereads, partition)
	delete(m.jumps, partition)
	label := strconv.Itoa(int(partition))
	m.halted.DeleteLabelValues(label)
	m.next.DeleteLabelValues(label)
	m.paused.DeleteLabelValues(label)
	m.reread.DeleteLabelValues(label)
}

// Stopping makes the service unready for good.
func (m *Monitor) Stopping() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopping = true
}

// Ready is nil when every partition of this member moves.
func (m *Monitor) Ready() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ready()
}

func (m *Monitor) ready() error {
	switch {
	case m.stopping:
		return errors.New("stopping")
	case m.refused != nil:
		return m.refused
	case !m.joined && m.before != nil:
		return m.before
	case !m.joined:
		return errors.New("joining the consumer group")
	}
	var ps []int
	for p := range m.waiting {
		if m.pauses[p] == "" { // a pause is somebody's will
			ps = append(ps, int(p))
		}
	}
	if len(ps) == 0 {
		return nil
	}
	sort.Ints(ps)
	return fmt.Errorf("%d partitions do not move; partition %d: %w", len(ps), ps[0], m.waiting[int32(ps[0])])
}
