package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestSlowClients: 200 clients that send a byte and then none hold up no one
// else, hold little memory, and are shown out when their time is over.
func TestSlowClients(t *testing.T) {
	e := startEdge(t, newCluster(t), func(c *config) {
		c.HTTP.ReadHeaderTimeout = 2 * time.Second
		c.HTTP.ReadTimeout = 2 * time.Second
	})
	const slow = 200
	conns := make([]net.Conn, slow)
	for i := range conns {
		c, err := net.Dial("tcp", e.address)
		require.NoError(t, err)
		defer c.Close()
		conns[i] = c
		begin := "P" // in the middle of the header
		if i%2 == 0 {
			begin = "POST /api/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{"
		}
		_, err = io.WriteString(c, begin)
		require.NoError(t, err)
	}
	for i := range 300 {
		require.Equal(t, http.StatusAccepted, e.post(t, "/api/events", []byte(numbered(i))).status)
	}
	_, text := e.get(t, e.admin+"/metrics")
	var held float64
	_, err := fmt.Sscan(metric(text, "sluice_ingest_in_flight_bytes"), &held)
	require.NoError(t, err)
	require.LessOrEqual(t, held, float64(slow*4<<10), "what is announced is not set aside")
	for i, c := range conns {
		require.NoError(t, c.SetReadDeadline(time.Now().Add(30*time.Second)))
		got, err := io.ReadAll(c)
		require.NoError(t, err, "the edge did not close connection %d", i)
		if i%2 == 0 {
			resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(got)), nil)
			require.NoError(t, err, "%s", got)
			resp.Body.Close()
			require.Equal(t, http.StatusRequestTimeout, resp.StatusCode)
		}
	}
}

// TestAnnouncedTooLarge: a body whose announced length is too large is refused
// before any of it is read.
func TestAnnouncedTooLarge(t *testing.T) {
	e := startEdge(t, newCluster(t), nil)
	c, err := net.Dial("tcp", e.address)
	require.NoError(t, err)
	defer c.Close()
	_, err = io.WriteString(c, "POST /api/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 20000000\r\nExpect: 100-continue\r\n\r\n")
	require.NoError(t, err)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(20*time.Second)))
	got, err := io.ReadAll(c)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(got), "HTTP/1.1 413 "), "%s", got)
	require.Contains(t, string(got), "Connection: close")
}
