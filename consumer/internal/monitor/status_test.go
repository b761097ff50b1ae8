package monitor

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

func TestStatus(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := New(reg)
	require.Equal(t, Status{Reason: "joining the consumer group", Partitions: []Partition{}}, m.Status())
	for p := range int32(3) {
		m.Assigned(p)
	}
	m.Halted(0, nil)
	m.Halted(1, errors.New("a full disk"))
	m.Decided(0, nil, 1, 7)
	m.Decided(9, nil, 1, 7) // gone meanwhile
	require.Equal(t, []Partition{
		{Partition: 0, State: Owning, Next: 7},
		{Partition: 1, State: Halted, Reason: "a full disk", Next: -1},
		{Partition: 2, State: Recovering, Next: -1},
	}, m.Status().Partitions)
	require.False(t, m.Status().Ready)

	m.Halted(1, nil)
	m.Gone(2)
	require.True(t, m.Status().Ready)
	require.Len(t, m.Status().Partitions, 2)
	require.NoError(t, m.Ready())

	m.Doctor(errors.New("mend this"), map[string]int{"refuse": 1, "warn": 2, "unknown": 0})
	require.EqualError(t, m.Ready(), "mend this")
	require.Equal(t, map[string]float64{"refuse": 1, "warn": 2, "unknown": 0}, findings(t, reg))
	answer := httptest.NewRecorder()
	m.StatusHandler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/status", nil))
	require.Equal(t, "application/json", answer.Header().Get("Content-Type"))
	var got Status
	require.NoError(t, json.Unmarshal(answer.Body.Bytes(), &got))
	require.Equal(t, m.Status(), got)
	require.Equal(t, "mend this", got.Refused)
	require.Equal(t, Halted, got.Partitions[0].State)

	m.Doctor(nil, nil)
	require.NoError(t, m.Ready())
}

// findings are the doctor's metric, by severity.
func findings(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	out := map[string]float64{}
	for _, f := range families {
		if f.GetName() == "sluice_consumer_doctor_findings" {
			for _, m := range f.GetMetric() {
				out[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
			}
		}
	}
	return out
}
