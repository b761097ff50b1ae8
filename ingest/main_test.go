package main

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCommandLine: exit codes and what is printed.
func TestCommandLine(t *testing.T) {
	rows := []struct {
		name   string
		args   []string
		env    []string
		code   int
		stdout string
		stderr string
	}{
		{"help", []string{"--help"}, nil, 0, "POST /api/events/batch", ""},
		{"help of config", []string{"config", "--help"}, nil, 0, "Secrets are masked", ""},
		{"config", []string{"config"}, nil, 0, "ack_timeout: 5s", ""},
		{"config by flag", []string{"config", "--produce.ack_timeout", "2s"}, nil, 0, "ack_timeout: 2s", ""},
		{"config by environment", []string{"config"}, []string{"SLUICE_LIMITS_EVENT_BYTES=1000"}, 0, "event_bytes: 1000", ""},
		{"flag over environment", []string{"config", "--limits.event_bytes=7"}, []string{"SLUICE_LIMITS_EVENT_BYTES=1000"}, 0, "event_bytes: 7\n", ""},
		{"the consumer's variables", []string{"config"}, []string{"SLUICE_CLICKHOUSE_URL=http://x", "SLUICE_BATCH_ROWS=1", "SLUICE_GROUP=g"}, 0, "limits:", ""},
		{"unknown command", []string{"serve"}, nil, 2, "", "unknown command"},
		{"unknown flag", []string{"--htp.address", "x"}, nil, 2, "", "unknown flag"},
		{"unknown variable", []string{"config"}, []string{"SLUICE_LIMITS_EVENT_BITES=1"}, 2, "", "did you mean limits.event_bytes?"},
		{"not a number", []string{"config", "--limits.depth", "deep"}, nil, 2, "", "depth"},
		{"no such file", []string{"config", "--config", "/nowhere.yaml"}, nil, 2, "", "/nowhere.yaml"},
		{"wider than the log: fields", []string{"--limits.field_bytes", "4097"}, nil, 2, "", "the log takes no more"},
		{"wider than the log: depth", []string{"--limits.depth", "257"}, nil, 2, "", "the log takes no more"},
		{"wider than the log: event", []string{"--limits.event_bytes", "2097152"}, nil, 2, "", "room for no more"},
		{"body below event", []string{"--limits.body_bytes", "1000"}, nil, 2, "", "at least event_bytes"},
		{"memory below one batch", []string{"--limits.in_flight_bytes", "1000000"}, nil, 2, "", "what one batch"},
		{"no compression of that name", []string{"--produce.compression", "rar"}, nil, 2, "", "none, snappy, lz4 or zstd"},
		{"answer cut off", []string{"--http.write_timeout", "10s"}, nil, 2, "", "ingest.sync_wait together"},
		{"log level", []string{"--log.level", "loud"}, nil, 2, "", "log.level"},
		{"no brokers", []string{"--kafka.brokers", ""}, nil, 2, "", "kafka.brokers"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), r.args, r.env, &stdout, &stderr)
			require.Equal(t, r.code, code, "stdout: %s\nstderr: %s", &stdout, &stderr)
			require.Contains(t, stdout.String(), r.stdout)
			require.Contains(t, stderr.String(), r.stderr)
			if r.code == 0 {
				require.Empty(t, stderr.String())
			} else {
				require.Empty(t, stdout.String())
			}
		})
	}
}

// TestConfigRoundTrip: what "config" prints is read again as the same.
func TestConfigRoundTrip(t *testing.T) {
	var first, second, stderr bytes.Buffer
	require.Zero(t, run(t.Context(), []string{"config", "--limits.max_age", "48h", "--kafka.brokers", "a:1,b:2"}, nil, &first, &stderr), "%s", &stderr)
	file := filepath.Join(t.TempDir(), "ingest.yaml")
	require.NoError(t, os.WriteFile(file, first.Bytes(), 0o600))
	require.Zero(t, run(t.Context(), []string{"config", "--config", file}, nil, &second, &stderr), "%s", &stderr)
	require.Equal(t, first.String(), second.String())
	require.Contains(t, first.String(), "max_age: 48h0m0s")
}

// TestAddressInUse: the error names the key and the variable that move it.
func TestAddressInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	var stderr bytes.Buffer
	code := run(t.Context(), []string{"--http.address", l.Addr().String()}, nil, io.Discard, &stderr)
	require.Equal(t, exitFailed, code)
	require.Contains(t, stderr.String(), "http.address")
	require.Contains(t, stderr.String(), "SLUICE_HTTP_ADDRESS")
}
