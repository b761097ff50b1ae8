package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// holdProduce has the broker sit on the first produce request until release is
// called; held is closed when it has come.
func holdProduce(c *kfake.Cluster) (held <-chan struct{}, release func()) {
	come, let := make(chan struct{}), make(chan struct{})
	var first, once sync.Once
	c.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		c.SleepControl(func() {
			first.Do(func() { close(come) }) // the client may ask again
			<-let
		})
		return nil, nil, false
	})
	return come, func() { once.Do(func() { close(let) }) }
}

// TestDrain: told to stop while a post waits for the log, the edge first says
// that it is not ready, still takes what comes within the grace, answers what is
// in flight, and only then ends.
func TestDrain(t *testing.T) {
	e := startEdge(t, newCluster(t), func(c *config) { c.Shutdown.Grace = 300 * time.Millisecond })
	held, release := holdProduce(e.cluster)
	defer release()
	type outcome struct {
		answer answer
		err    error
	}
	inFlight := make(chan outcome, 1)
	go func() {
		a, err := e.tryPost("/api/events", []byte(good))
		inFlight <- outcome{a, err}
	}()
	<-held
	e.stop()
	require.Eventually(t, func() bool {
		status, why := e.get(t, e.url+"/readyz")
		return status == http.StatusServiceUnavailable && why == "stopping\n"
	}, 10*time.Second, time.Millisecond)
	release()
	o := <-inFlight
	require.NoError(t, o.err)
	require.Equal(t, http.StatusAccepted, o.answer.status, "%s", o.answer.body)
	require.NoError(t, e.wait(t))
	_, err := net.Dial("tcp", e.address)
	require.Error(t, err, "it still listens")
	records(t, e.cluster, 1)
}

// TestDrainTooLong: a record that no one acknowledges does not hold the edge for
// ever. Its sender was told so; the stop is an orderly one.
func TestDrainTooLong(t *testing.T) {
	e := startEdge(t, newCluster(t), func(c *config) {
		c.Produce.AckTimeout = 200 * time.Millisecond
		c.Shutdown.Flush = 300 * time.Millisecond
	})
	held, release := holdProduce(e.cluster)
	defer release()
	status := make(chan int, 1)
	go func() {
		a, err := e.tryPost("/api/events", []byte(good))
		if err != nil {
			t.Error(err)
		}
		status <- a.status
	}()
	<-held
	e.stop()
	require.NoError(t, e.wait(t))
	require.Equal(t, http.StatusServiceUnavailable, <-status)
	require.Contains(t, e.log.String(), "1 records not acknowledged")
}

// TestProcess builds the command and runs it as a process: it takes posts, is
// told to stop in the middle of them, answers those in flight, exits 0, and
// everything it answered with a 202 is in the log.
func TestProcess(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "ingest")
	build := exec.Command("go", "build", "-o", bin, ".")
	build.Stderr = os.Stderr
	require.NoError(t, build.Run())
	cluster := newCluster(t)
	cmd := exec.Command(bin, "--http.address", "127.0.0.1:0", "--admin.address", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), "SLUICE_KAFKA_BROKERS="+cluster.ListenAddrs()[0], "SLUICE_PRODUCE_PROBE_INTERVAL=50ms", "SLUICE_SPOOL_DIR="+t.TempDir(), "SLUICE_CLICKHOUSE_URL=not-ours")
	log := new(lockedBuffer)
	cmd.Stderr = log
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()

	address := regexp.MustCompile(`msg=listening events=(\S+) admin=(\S+)`)
	e := &edge{client: &http.Client{}}
	defer e.client.CloseIdleConnections()
	require.Eventually(t, func() bool {
		m := address.FindStringSubmatch(log.String())
		if m != nil {
			e.url, e.admin = "http://"+m[1], "http://"+m[2]
		}
		return m != nil
	}, 20*time.Second, 10*time.Millisecond, "%s", log)
	e.waitReady(t)

	var mu sync.Mutex
	accepted := map[string]bool{}
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				a, err := e.tryPost("/api/events", []byte(numbered(worker*1_000_000+i)))
				if err != nil {
					return // it has stopped listening
				}
				if a.status != http.StatusAccepted {
					t.Errorf("answered %d: %s", a.status, a.body)
					return
				}
				mu.Lock()
				accepted[fmt.Sprintf("app:click:u%d:2026-01-02T03:04:05.000000000Z", worker*1_000_000+i)] = true
				mu.Unlock()
			}
		})
	}
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(accepted) > 200
	}, 20*time.Second, time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, <-ended, "%s", log)
	wg.Wait()
	total := 0
	for p := range int32(partitions) {
		total += int(cluster.PartitionInfo("events", p).HighWatermark)
	}
	stored := map[string]bool{}
	for _, r := range records(t, cluster, total) {
		stored[string(r.Key)] = true
	}
	for key := range accepted {
		require.True(t, stored[key], "%s was answered with a 202 and is not in the log", key)
	}
	require.NotContains(t, log.String(), "app", "no event's content in the log")
}
