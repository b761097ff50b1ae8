package balance

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"sluice/consumer/internal/migrate"
	"sluice/consumer/internal/store"
	"sluice/deploy/local/enginetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var topicA, topicB = uuid.MustParse("aaaaaaaa-0000-8000-8000-000000000000"), uuid.MustParse("bbbbbbbb-0000-8000-8000-000000000000")

type fixture struct {
	t      *testing.T
	engine *enginetest.Engine
	store  *store.Store
}

func start(t *testing.T) *fixture {
	t.Helper()
	e := enginetest.Start(t)
	require.NoError(t, migrate.Up(t.Context(), e.URL+"/sluice", func(string) {}))
	st, err := store.Open(e.URL + "/sluice")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, st.Close()) })
	return &fixture{t, e, st}
}

func (f *fixture) exec(query string, args ...any) {
	f.t.Helper()
	require.NoError(f.t, f.store.Conn().Exec(f.t.Context(), query, args...))
}

func (f *fixture) rows(topic uuid.UUID, partition int32, first, n int) {
	f.t.Helper()
	f.exec(fmt.Sprintf(`INSERT INTO event_log (event_id, source, event_type, actor_id, occurred_at, topic_id, partition, offset)
		SELECT generateUUIDv4(), 's', 't', '%s/%d/' || toString(number), '2026-01-01 00:00:00', '%s', %d, toInt64(number) FROM numbers(%d, %d)`,
		topic, partition, topic, partition, first, n))
}

func (f *fixture) journal(topic uuid.UUID, partition int32, entry, fate string, first, last, records int) {
	f.t.Helper()
	f.exec("INSERT INTO journal (topic_id, topic, partition, entry, offset, last_offset, fate, records) VALUES (?, 'events', ?, ?, ?, ?, ?, ?)",
		topic, partition, entry, first, last, fate, records)
}

// value is a metric's.
func value(t *testing.T, m prometheus.Metric) float64 {
	t.Helper()
	var out dto.Metric
	require.NoError(t, m.Write(&out))
	return out.GetGauge().GetValue() + out.GetCounter().GetValue()
}

// series is how many a metric has.
func series(c prometheus.Collector) int {
	all := make(chan prometheus.Metric, 100)
	c.Collect(all)
	return len(all)
}

// The gauges are what the tables hold: well first, then after each fault, then
// after it was mended.
func TestGaugesFollowTheTables(t *testing.T) {
	f := start(t)
	reg := prometheus.NewRegistry()
	var log strings.Builder
	c := New(Config{}, f.store.Conn(), reg, slog.New(slog.NewTextHandler(&log, nil)))
	look := func(want string) {
		t.Helper()
		require.NoError(t, c.check(t.Context()))
		got := ""
		for _, g := range []*prometheus.GaugeVec{c.difference, c.gaps, c.overlaps, c.repeats} {
			got += fmt.Sprintf("%g,%g ", value(t, g.WithLabelValues("0")), value(t, g.WithLabelValues("1")))
		}
		require.Equal(t, want+" ", got)
	}
	f.exec("SYSTEM STOP MERGES event_log")
	f.rows(topicA, 0, 0, 10)
	f.rows(topicA, 1, 0, 5)
	f.journal(topicA, 0, "fate", "duplicate", 10, 10, 1)
	f.journal(topicA, 0, "batch", "", 0, 10, 11)
	f.journal(topicA, 1, "batch", "", 0, 4, 5)
	look("0,0 0,0 0,0 0,0")
	require.Equal(t, 15.0, value(t, c.records.WithLabelValues("rows")))
	require.Equal(t, 1.0, value(t, c.records.WithLabelValues("duplicates")))
	require.Equal(t, len(columns), series(c.records))
	require.Empty(t, log.String())

	f.rows(topicA, 1, 2, 2)
	look("0,0 0,0 0,0 0,2")
	f.journal(topicA, 0, "batch", "", 20, 29, 0)
	look("0,0 1,0 0,0 0,2")
	f.journal(topicA, 0, "batch", "", 25, 31, 0)
	look("0,0 1,0 5,0 0,2")
	require.Equal(t, 2, strings.Count(log.String(), "does not add up"), "each partition once")

	// Today's line lacks a record, and an older topic's has one too many.
	f.exec("SYSTEM START MERGES event_log") // DELETE waits for them
	f.exec("OPTIMIZE TABLE event_log FINAL")
	f.exec("DELETE FROM event_log WHERE partition = 1 AND offset = 0")
	f.journal(topicB, 1, "fate", "duplicate", 0, 0, 1)
	f.journal(topicB, 1, "batch", "", 0, 0, 0)
	look("0,2 1,0 5,0 0,0")

	f.exec("DELETE FROM journal WHERE topic_id = ? OR offset >= 20", topicB)
	f.rows(topicA, 1, 0, 1)
	look("0,0 0,0 0,0 0,0")
	require.Equal(t, 2, strings.Count(log.String(), "adds up again"))

	f.exec("TRUNCATE TABLE journal")
	require.NoError(t, c.check(t.Context()))
	require.Zero(t, series(c.difference), "what is gone leaves no figure behind")
}

// Run goes on while ClickHouse is away, and ends with its context.
func TestRunOutlivesAnOutage(t *testing.T) {
	f := start(t)
	f.rows(topicA, 0, 0, 3)
	f.journal(topicA, 0, "batch", "", 0, 2, 3)
	c := New(Config{Interval: 10 * time.Millisecond, Timeout: 10 * time.Second}, f.store.Conn(), prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx) }()
	rows := func() float64 { return value(t, c.records.WithLabelValues("rows")) }
	require.Eventually(t, func() bool { return rows() == 3 }, 20*time.Second, time.Millisecond)
	f.engine.Kill()
	require.Eventually(t, func() bool { return value(t, c.failures) > 0 }, 20*time.Second, time.Millisecond)
	require.Equal(t, 3.0, rows(), "as it was")
	f.engine.Restart()
	f.rows(topicA, 0, 3, 1)
	f.journal(topicA, 0, "batch", "", 3, 3, 1)
	require.Eventually(t, func() bool { return rows() == 4 }, 20*time.Second, time.Millisecond)
	cancel()
	<-done
}
