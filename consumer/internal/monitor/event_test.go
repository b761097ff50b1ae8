package monitor

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"sluice/consumer/internal/partition"
)

// A paused partition does not make the service unready, and /readyz says so; what
// happened to the group's offsets shows until the partition is another's.
func TestHappened(t *testing.T) {
	m := New(prometheus.NewRegistry())
	get := func() (int, string) {
		rec := httptest.NewRecorder()
		m.ReadyHandler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/readyz", nil))
		return rec.Code, rec.Body.String()
	}
	code, text := get()
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.Contains(t, text, "joining")
	m.Assigned(1)
	m.Happened(partition.Event{Partition: 1, Kind: partition.SetBack, From: 3, To: 9, Progress: partition.Progress{Next: 5, Records: 2, Written: 1}})
	require.Equal(t, Rereading, m.Status().Partitions[0].State)
	require.Equal(t, &Reread{From: 3, To: 9, Next: 5, Records: 2, Missing: 1}, m.Status().Partitions[0].Reread)
	m.Happened(partition.Event{Partition: 1, Kind: partition.Paused, Reason: "paused by ada: an upgrade"})
	code, text = get()
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, "ready\npartition 1: paused by ada: an upgrade\n", text)
	require.Equal(t, Paused, m.Status().Partitions[0].State)
	m.Happened(partition.Event{Partition: 1, Kind: partition.Paused})
	m.Halted(1, nil)
	m.Happened(partition.Event{Partition: 1, Kind: partition.JumpNotFollowed, From: 9, To: 70})
	require.Equal(t, Owning, m.Status().Partitions[0].State)
	require.Equal(t, &Jump{To: 70, JournalEnd: 9}, m.Status().Partitions[0].Jump)
	m.Gone(1)
	m.Assigned(1)
	require.Nil(t, m.Status().Partitions[0].Jump)
}
