package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"sluice/ingest/internal/problem"
	"sluice/ingest/internal/spool"
	"sluice/schemas/topic"
)

// spooled turns the spool on, in dir.
func spooled(dir string) func(*config) {
	return func(c *config) {
		c.Spool.Enabled, c.Spool.Dir = true, dir
		c.Spool.After = 100 * time.Millisecond
	}
}

// newControlled is a broker that has the control topic, too.
func newControlled(t testing.TB) *kfake.Cluster {
	return newCluster(t, kfake.SeedTopics(1, topic.Control))
}

// freezeProduce has the broker sit on produce requests until thaw is called; it
// carries them out then.
func freezeProduce(c *kfake.Cluster) (thaw func()) {
	release := make(chan struct{})
	var once sync.Once
	c.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		c.SleepControl(func() { <-release })
		return nil, nil, false
	})
	return func() { once.Do(func() { close(release) }) }
}

func statusOf(t testing.TB, a answer) string {
	t.Helper()
	var body struct{ Status string }
	require.NoError(t, json.Unmarshal(a.body, &body), "%s", a.body)
	return body.Status
}

func (e *edge) spoolState(t testing.TB) spool.State {
	t.Helper()
	status, body := e.get(t, e.admin+"/spool")
	require.Equal(t, http.StatusOK, status, body)
	var st spool.State
	require.NoError(t, json.Unmarshal([]byte(body), &st))
	return st
}

func (e *edge) waitDrained(t testing.TB) {
	t.Helper()
	require.Eventually(t, func() bool { return e.spoolState(t).Records == 0 }, 30*time.Second, 20*time.Millisecond)
}

// allRecords are the records of the topic, whatever their number.
func allRecords(t testing.TB, c *kfake.Cluster) []*kgo.Record {
	t.Helper()
	total := 0
	for p := range int32(partitions) {
		total += int(c.PartitionInfo(topic.Events, p).HighWatermark)
	}
	return records(t, c, total)
}

// TestSpooled: a log that does not answer in time costs a post that time once;
// the answer is a 202 with another promise, which is kept. The produce that timed
// out is carried out late: its event is in the log twice, never not at all, and
// its answer, "spooled", was true.
func TestSpooled(t *testing.T) {
	e := startEdge(t, newControlled(t), spooled(t.TempDir()))
	a := e.post(t, "/api/events", []byte(numbered(0)))
	require.Equal(t, "queued", statusOf(t, a))
	thaw := freezeProduce(e.cluster)
	defer thaw()
	for i := 1; i <= 20; i++ {
		a := e.post(t, "/api/events", []byte(numbered(i)))
		require.Equal(t, http.StatusAccepted, a.status, "%s", a.body)
		require.Equal(t, "spooled", statusOf(t, a))
	}
	b := e.post(t, "/api/events/batch", array(numbered(21), `{}`, numbered(22)))
	require.Equal(t, http.StatusMultiStatus, b.status, "%s", b.body)
	require.Equal(t, "spooled", b.batch(t).Items[0].Status)
	status, why := e.get(t, e.url+"/readyz")
	require.Equal(t, http.StatusOK, status, why)
	st := e.spoolState(t)
	require.True(t, st.InUse)
	require.Equal(t, 22, st.Records)

	thaw()
	e.waitDrained(t)
	times := map[string]int{}
	for _, r := range allRecords(t, e.cluster) {
		times[string(r.Key)]++
		require.Len(t, r.Headers, 3, "the headers of %s", r.Key)
		require.Equal(t, kgo.RecordHeader{Key: topic.HeaderEdge, Value: []byte(st.Edge)}, r.Headers[2])
	}
	for i := range 23 {
		require.Positive(t, times[fmt.Sprintf("app:click:u%d:2026-01-02T03:04:05.000000000Z", i)], "event %d", i)
	}
	require.Len(t, times, 23)
	require.Greater(t, times["app:click:u1:2026-01-02T03:04:05.000000000Z"], 1, "the produce that timed out was carried out, and the drain's")
	require.Eventually(t, func() bool {
		return statusOf(t, e.post(t, "/api/events", []byte(numbered(30)))) == "queued"
	}, 20*time.Second, 20*time.Millisecond)
}

// TestSpoolWithoutBroker: an edge that has never seen its log takes events; the
// next one brings them there.
func TestSpoolWithoutBroker(t *testing.T) {
	dir := t.TempDir()
	e := launchEdge(t, []string{"127.0.0.1:1"}, spooled(dir))
	e.waitReady(t)
	require.Equal(t, "spooled", statusOf(t, e.post(t, "/api/events", []byte(numbered(1)))))
	e.stop()
	require.NoError(t, e.wait(t))
	require.Contains(t, e.log.String(), "stay in the spool")
	e = startEdge(t, newControlled(t), spooled(dir))
	e.waitDrained(t)
	require.Len(t, allRecords(t, e.cluster), 1)
}

// TestSpoolFull: when neither has room the answer is a 503 that says when to try
// again; the edge is not ready; both end when the log is back.
func TestSpoolFull(t *testing.T) {
	e := startEdge(t, newControlled(t), func(c *config) {
		spooled(t.TempDir())(c)
		c.Spool.Bytes = spool.MinBytes
	})
	thaw := freezeProduce(e.cluster)
	defer thaw()
	big := func(i int) string {
		return strings.Replace(with("payload", `{"a":"`+strings.Repeat("x", 900_000)+`"}`), `"actor_id":"u1"`, fmt.Sprintf(`"actor_id":"u%d"`, i), 1)
	}
	taken := 0
	var a answer
	for {
		if a = e.post(t, "/api/events", []byte(big(taken))); a.status != http.StatusAccepted {
			break
		}
		taken++
	}
	require.Equal(t, http.StatusServiceUnavailable, a.status, "%s", a.body)
	require.Equal(t, problem.TypePrefix+"spool-full", a.problem(t).Type)
	requireRetryAfter(t, a)
	b := e.post(t, "/api/events/batch", array(big(1_000)))
	require.Equal(t, http.StatusServiceUnavailable, b.status, "%s", b.body)
	requireRetryAfter(t, b)
	thaw()
	e.waitDrained(t)
	require.Equal(t, http.StatusAccepted, e.post(t, "/api/events", []byte(big(2_000))).status)
}

// TestSpoolTaken: a second edge on one folder does not start, and says who has it.
func TestSpoolTaken(t *testing.T) {
	dir := t.TempDir()
	e := startEdge(t, newControlled(t), spooled(dir))
	cfg := defaults()
	cfg.HTTP.Address, cfg.Admin.Address, cfg.Kafka.Brokers = "127.0.0.1:0", "127.0.0.1:0", e.cluster.ListenAddrs()
	spooled(dir)(&cfg)
	err := serve(t.Context(), cfg, rereading{}, slog.New(slog.DiscardHandler), nil)
	require.ErrorContains(t, err, fmt.Sprintf("belongs to process %d", os.Getpid()))
	require.ErrorContains(t, err, "SLUICE_SPOOL_DIR")
}

// TestWatermarks: an edge says how far its promise goes, holds it back while
// something is spooled, and says farewell.
func TestWatermarks(t *testing.T) {
	cluster := newControlled(t)
	e := startEdge(t, cluster, spooled(t.TempDir()))
	last := func() (w topic.Watermark) {
		client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ConsumeTopics(topic.Control),
			kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		require.NoError(t, err)
		defer client.Close()
		for end := cluster.PartitionInfo(topic.Control, 0).HighWatermark; end > 0; {
			fetches := client.PollFetches(t.Context())
			require.NoError(t, fetches.Err())
			fetches.EachRecord(func(r *kgo.Record) {
				var ok bool
				w, ok, err = topic.ParseWatermark(r.Key, r.Value)
				require.NoError(t, err)
				require.True(t, ok)
				if r.Offset == end-1 {
					end = 0
				}
			})
		}
		return w
	}
	begin := time.Now()
	require.Equal(t, "queued", statusOf(t, e.post(t, "/api/events", []byte(numbered(1)))))
	require.Eventually(t, func() bool { return last().LowWater.After(begin) }, 20*time.Second, 50*time.Millisecond)
	w := last()
	require.NotEmpty(t, w.Edge)
	require.NotEmpty(t, w.Instance)
	require.False(t, w.Retired)
	e.stop()
	require.NoError(t, e.wait(t))
	w = last()
	require.True(t, w.Retired)
	require.Zero(t, w.Spooled)
}

// TestSpoolDir: where the spool is when no one says.
func TestSpoolDir(t *testing.T) {
	c := defaults()
	for _, r := range []struct{ name, value, want string }{
		{"STATE_DIRECTORY", "/s", "/s/ingest-spool-8080"},
		{"XDG_STATE_HOME", "/x", "/x/sluice/ingest-spool-8080"},
		{"HOME", "/h", "/h/.local/state/sluice/ingest-spool-8080"},
	} {
		got, err := c.spoolDir(func(name string) string { return map[string]string{r.name: r.value}[name] })
		require.NoError(t, err)
		require.Equal(t, r.want, got)
	}
	_, err := c.spoolDir(func(string) string { return "" })
	require.ErrorContains(t, err, "set spool.dir")
	c.Spool.Dir = "/mine"
	got, err := c.spoolDir(nil)
	require.NoError(t, err)
	require.Equal(t, "/mine", got)
}
