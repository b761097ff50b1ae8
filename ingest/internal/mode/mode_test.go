package mode_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"sluice/ingest/internal/logtest"
	"sluice/ingest/internal/mode"
)

func newSwitch() *mode.Switch {
	return mode.NewSwitch(mode.Async, logtest.New(io.Discard), prometheus.NewRegistry())
}

func ask(s *mode.Switch, method, media, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "/mode", strings.NewReader(body))
	if media != "" {
		r.Header.Set("Content-Type", media)
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

func TestSwitch(t *testing.T) {
	s := newSwitch()
	require.False(t, s.Sync())
	for _, want := range []mode.Mode{mode.Sync, mode.Sync, mode.Async, mode.Sync} {
		before := s.State()
		w := ask(s, http.MethodPut, "application/json; charset=utf-8", `{"mode":"`+string(want)+`"}`)
		require.Equal(t, http.StatusOK, w.Code, w.Body)
		var got mode.State
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got))
		require.Equal(t, want, got.Mode)
		require.Equal(t, want == mode.Sync, s.Sync())
		require.Equal(t, want == before.Mode, s.State() == before, "what it stands at already changes nothing")
		require.Equal(t, w.Body.String(), ask(s, http.MethodGet, "", "").Body.String())
	}
	require.Equal(t, "admin", s.State().By)
}

// TestGarbage: nothing but a whole and right request moves the switch.
func TestGarbage(t *testing.T) {
	for _, row := range []struct {
		method, media, body string
		status              int
	}{
		{http.MethodPut, "", `{"mode":"sync"}`, 415},
		{http.MethodPut, "text/plain", `{"mode":"sync"}`, 415},
		{http.MethodPut, "application/x-www-form-urlencoded", `mode=sync`, 415},
		{http.MethodPut, "application/json", ``, 400},
		{http.MethodPut, "application/json", `{}`, 400},
		{http.MethodPut, "application/json", `"sync"`, 400},
		{http.MethodPut, "application/json", `{"mode":"Sync"}`, 400},
		{http.MethodPut, "application/json", `{"mode":" sync"}`, 400},
		{http.MethodPut, "application/json", `{"Mode":"sync"}`, 400},
		{http.MethodPut, "application/json", `{"mode":"sync","mode":"sync"}`, 400},
		{http.MethodPut, "application/json", `{"mode":"sync","x":1}`, 400},
		{http.MethodPut, "application/json", `{"mode":"sync"}{}`, 400},
		{http.MethodPut, "application/json", `{"mode":true}`, 400},
		{http.MethodPut, "application/json", `{"mode":null}`, 400},
		{http.MethodPut, "application/json", `{"mode":"sync"}` + strings.Repeat(" ", 2000), 400},
		{http.MethodPost, "application/json", `{"mode":"sync"}`, 405},
		{http.MethodDelete, "application/json", ``, 405},
	} {
		s := newSwitch()
		w := ask(s, row.method, row.media, row.body)
		require.Equal(t, row.status, w.Code, "%v: %s", row, w.Body)
		require.False(t, s.Sync(), "%v", row)
	}
}

func TestParse(t *testing.T) {
	for _, name := range []string{"", "SYNC", "both", "sync\n"} {
		_, err := mode.Parse(name)
		require.ErrorContains(t, err, "want async or sync")
	}
}
