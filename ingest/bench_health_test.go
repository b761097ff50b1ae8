package main

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BenchmarkHealth asks each health endpoint over one connection while Kafka takes
// requests and answers none, and reports the time that 99 of 100 stay under. The
// seed's /health took 271 ms in the median: it asked its dependencies.
func BenchmarkHealth(b *testing.B) {
	e := startEdge(b, newCluster(b), nil)
	asked, release := freeze(e)
	defer release()
	<-asked
	require.Eventually(b, func() bool { // from here on what is served does not change
		status, _ := e.get(b, e.url+"/readyz")
		return status == http.StatusServiceUnavailable || e.health(b, e.url).Status == "degraded"
	}, 30*time.Second, 10*time.Millisecond)
	for _, path := range []string{"/healthz", "/readyz", "/health"} {
		b.Run(path[1:], func(b *testing.B) {
			c, err := dialLean(e.address)
			require.NoError(b, err)
			defer c.conn.Close()
			request := fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", path)
			took := make([]time.Duration, 0, b.N)
			b.ResetTimer()
			for range b.N {
				began := time.Now()
				status, err := c.do(request)
				if err != nil || status != http.StatusOK && status != http.StatusServiceUnavailable {
					b.Fatalf("status %d, error %v", status, err)
				}
				took = append(took, time.Since(began))
			}
			b.StopTimer()
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
		})
	}
}
