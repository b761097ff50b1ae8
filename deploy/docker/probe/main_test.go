package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestProbe(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			http.Error(w, "the log does not answer", http.StatusServiceUnavailable)
		}
	}))
	require.NoError(t, probe(t.Context(), srv.URL+"/readyz"))
	require.ErrorContains(t, probe(t.Context(), srv.URL+"/other"), "503 Service Unavailable: the log does not answer")
	srv.Close()
	require.Error(t, probe(t.Context(), srv.URL+"/readyz"))
	require.Error(t, probe(t.Context(), "::"))
}
