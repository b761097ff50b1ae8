package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"github.com/stretchr/testify/require"
)

// TestMemoryIsGivenBack: what the edge took for clients that have left goes back to
// the system, with no request in between to make the collector run.
func TestMemoryIsGivenBack(t *testing.T) {
	broker := brokerProcess(t)
	for name, burst := range map[string]func(*testing.T, *program){
		"large batches": func(t *testing.T, p *program) { postBatches(t, p, 6, 20_000) },
		// No one of them holds much, and all that they hold are connections.
		"many connections": func(t *testing.T, p *program) {
			var conns []net.Conn
			for i := range 3000 {
				c, err := net.Dial("tcp", p.events)
				require.NoError(t, err)
				conns = append(conns, c)
				require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
				_, err = c.Write(requestBytes("/api/events", "application/json", sample(i)))
				require.NoError(t, err)
			}
			for _, c := range conns {
				_, err := io.ReadFull(c, make([]byte, 12))
				require.NoError(t, err)
				require.NoError(t, c.Close())
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProgram(t, broker)
			p.waitReady(t)
			resident := func() int {
				t.Helper()
				proc, err := procfs.NewProc(p.cmd.Process.Pid)
				require.NoError(t, err)
				stat, err := proc.Stat()
				require.NoError(t, err)
				return stat.ResidentMemory() >> 20
			}
			postBatches(t, p, 4, 500) // the memory of known keys is there from the first posts on
			before := resident()
			burst(t, p)
			after := resident()
			t.Logf("%d MiB before, %d after", before, after)
			require.Greater(t, after, before+16, "no burst that could be told from nothing")
			require.Eventually(t, func() bool { return resident() <= before+(after-before)/4 }, 40*time.Second, 200*time.Millisecond,
				"%d MiB before, %d after", before, after)
		})
	}
}

// postBatches posts one batch of so many events of a kilobyte from each client.
func postBatches(t *testing.T, p *program, clients, events int) {
	t.Helper()
	filler := strings.Repeat("x", 1000)
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			e := p.edge()
			defer e.client.CloseIdleConnections()
			var body bytes.Buffer
			for i := range events {
				fmt.Fprintf(&body, `{"source":"s","event_type":"t","actor_id":"%d-%d-%d","occurred_at":"2026-01-02T03:04:05Z","payload":{"p":"%s"}}`+"\n", c, i, events, filler)
			}
			a, err := e.tryPost("/api/events/batch", body.Bytes(), "Content-Type", "application/x-ndjson", "Prefer", "return=minimal")
			if err != nil || a.status != http.StatusAccepted && a.status != http.StatusServiceUnavailable {
				t.Errorf("%d %v", a.status, err)
			}
		})
	}
	wg.Wait()
}
