package grafana_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"sluice/deploy/local/apache"
	"sluice/deploy/local/enginetest"
	"sluice/schemas/topic"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestAgainstTheServices asks running services and a real ClickHouse everything
// that the dashboards and the alerts ask.
func TestAgainstTheServices(t *testing.T) {
	w := newWorld(t)
	for name, test := range map[string]func(*testing.T, *stack){
		"every metric asked for is there": everyMetricAskedForIsThere,
		"every query answers":             everyQueryAnswers,
	} {
		t.Run(name, func(t *testing.T) {
			inner := *w
			inner.t = t
			test(t, &inner)
		})
	}
}

// bound is how long any one thing may take on a busy machine.
const bound = time.Minute

// stack is both services as programs, as they run anywhere, with a broker and a
// ClickHouse.
type stack struct {
	t                           *testing.T
	engine                      *enginetest.Engine
	kafka                       *kgo.Client
	brokers                     []string
	env                         []string // the consumer's, and its commands'
	ingest, consumer            string   // binaries
	edge, edgeAdmin, ownerAdmin string   // addresses
}

func newStack(t *testing.T) *stack {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.DefaultProduceTopic(topic.Events))
	require.NoError(t, err)
	t.Cleanup(client.Close)
	dir := t.TempDir()
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	s := &stack{t: t, engine: enginetest.Start(t), kafka: client, brokers: cluster.ListenAddrs(),
		ingest: filepath.Join(dir, "ingest"), consumer: filepath.Join(dir, "consumer")}
	build := exec.Command("go", "build", "-o", dir+string(filepath.Separator), "./ingest", "./consumer")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	s.env = []string{
		"SLUICE_KAFKA_BROKERS=" + strings.Join(s.brokers, ","), "SLUICE_CLICKHOUSE_DSN=" + s.engine.URL + "/sluice",
		"SLUICE_TOPICS_PARTITIONS=2",
	}
	s.command("topics", "ensure")
	s.command("migrate")
	return s
}

// command runs one of the consumer's commands.
func (s *stack) command(args ...string) {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), s.consumer, args...)
	cmd.Env = s.env
	out, err := cmd.CombinedOutput()
	require.NoError(s.t, err, "consumer %v: %s", args, out)
}

// start runs a service until the returned function is called or the test ends.
func (s *stack) start(binary, admin string, env ...string) (stop func()) {
	s.t.Helper()
	log := &bytes.Buffer{}
	cmd := exec.Command(binary)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.t.TempDir(), log, log
	cmd.Env = append(env[:len(env):len(env)], "SLUICE_ADMIN_ADDRESS="+admin)
	require.NoError(s.t, cmd.Start())
	running := true
	stop = func() {
		if !running {
			return
		}
		running = false
		require.NoError(s.t, cmd.Process.Signal(os.Interrupt))
		killed := time.AfterFunc(bound, func() { _ = cmd.Process.Kill() }) // it may be gone
		defer killed.Stop()
		require.NoError(s.t, cmd.Wait(), "%s", log)
	}
	s.t.Cleanup(stop)
	s.await("ready", func() bool {
		resp, err := http.Get("http://" + admin + "/readyz")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return stop
}

func (s *stack) await(what string, done func() bool) {
	s.t.Helper()
	require.Eventually(s.t, done, bound, 20*time.Millisecond, what)
}

// startEdge starts the edge.
func (s *stack) startEdge() {
	s.t.Helper()
	addresses := s.free(2)
	s.edge, s.edgeAdmin = addresses[0], addresses[1]
	s.start(s.ingest, s.edgeAdmin, "SLUICE_HTTP_ADDRESS="+s.edge, "SLUICE_KAFKA_BROKERS="+strings.Join(s.brokers, ","), "SLUICE_SPOOL_DIR="+filepath.Join(s.t.TempDir(), "spool"))
}

// startConsumer starts a consumer.
func (s *stack) startConsumer() (stop func()) {
	s.t.Helper()
	s.ownerAdmin = s.free(1)[0]
	return s.start(s.consumer, s.ownerAdmin, s.env...)
}

func (s *stack) free(n int) []string {
	s.t.Helper()
	ports, err := apache.FreePorts(n)
	require.NoError(s.t, err)
	out := make([]string, n)
	for i, p := range ports {
		out[i] = net.JoinHostPort("127.0.0.1", strconv.Itoa(p))
	}
	return out
}

// post posts a batch of events and wants the status.
func (s *stack) post(status int, events ...map[string]any) {
	s.t.Helper()
	body, err := json.Marshal(events)
	require.NoError(s.t, err)
	resp, err := http.Post("http://"+s.edge+"/api/events/batch", "application/json", bytes.NewReader(body))
	require.NoError(s.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(s.t, err)
	require.Equal(s.t, status, resp.StatusCode, "%s", text)
}

// garbage puts records into the log that cannot become rows.
func (s *stack) garbage(n int) {
	s.t.Helper()
	for i := range n {
		require.NoError(s.t, s.kafka.ProduceSync(s.t.Context(), &kgo.Record{Value: fmt.Appendf(nil, "not an event %d", i)}).FirstErr())
	}
}

// repeat puts events into the log past the edge, which knows its own repeats and
// would answer them without a record.
func (s *stack) repeat(events ...map[string]any) {
	s.t.Helper()
	for _, e := range events {
		value, err := json.Marshal(e)
		require.NoError(s.t, err)
		require.NoError(s.t, s.kafka.ProduceSync(s.t.Context(), &kgo.Record{Value: value}).FirstErr())
	}
}

// scrape reads a service's metrics.
func (s *stack) scrape(admin string) map[string]*dto.MetricFamily {
	s.t.Helper()
	resp, err := http.Get("http://" + admin + "/metrics")
	require.NoError(s.t, err)
	defer resp.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	require.NoError(s.t, err)
	return families
}

// query runs SQL in the database sluice and returns the rows, a map of columns each.
func (s *stack) query(sql string) ([]map[string]any, error) {
	s.t.Helper()
	resp, err := http.Post(s.engine.URL+"/?"+url.Values{"database": {"sluice"}, "default_format": {"JSON"}}.Encode(), "text/plain", strings.NewReader(sql))
	require.NoError(s.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(s.t, err)
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s", text)
	}
	var answer struct {
		Meta []struct{ Name, Type string }
		Data []map[string]any
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return nil, fmt.Errorf("%w in %s", err, text)
	}
	return answer.Data, nil
}

// rows is the count of events in ClickHouse.
func (s *stack) rows() int {
	s.t.Helper()
	got, err := s.query("SELECT toInt32(count()) AS n FROM events")
	require.NoError(s.t, err)
	return int(got[0]["n"].(float64))
}

// newWorld has everything a dashboard shows: events of several sources, repeats,
// conflicts, dead letters, refused events, and a balance that was read after.
func newWorld(t *testing.T) *stack {
	t.Helper()
	s := newStack(t)
	s.startEdge()
	now := time.Now().UTC().Truncate(time.Second)
	stop := s.startConsumer()
	events := func(from, to int, payload string) (out []map[string]any) {
		for i := from; i < to; i++ {
			out = append(out, map[string]any{
				"source": []string{"web", "app:ios", `shop's "best" \ one`}[i%3], "event_type": []string{"page_view", "order"}[i%2], "actor_id": fmt.Sprint("actor ", i%5),
				"occurred_at": now.Add(-time.Duration(i) * 10 * time.Minute).Format(time.RFC3339), "payload": map[string]any{"n": payload, "duration_ms": i * 10},
			})
		}
		return out
	}
	s.post(http.StatusAccepted, events(0, 60, "first")...)
	s.await("rows", func() bool { return s.rows() == 60 })
	stop()
	// The balance is read at a consumer's start and then by the minute.
	s.startConsumer()
	s.repeat(events(0, 20, "first")...)
	s.post(http.StatusAccepted, events(20, 30, "another one")...) // conflicts
	s.post(http.StatusAccepted, events(60, 90, "first")...)
	s.post(http.StatusBadRequest, map[string]any{"source": "web"})
	s.garbage(3)
	s.await("completeness", func() bool {
		got, err := s.query("SELECT source FROM complete_through")
		require.NoError(t, err)
		return len(got) > 0
	})
	s.await("fates", func() bool {
		got, err := s.query("SELECT toInt32(sumIf(records, fate = 'duplicate')) AS d, toInt32(sumIf(records, fate = 'conflict')) AS c, toInt32(sumIf(records, fate = 'dead_letter')) AS l FROM journal FINAL WHERE entry = 'fate'")
		require.NoError(t, err)
		return s.rows() == 90 && got[0]["d"] == 20.0 && got[0]["c"] == 10.0 && got[0]["l"] == 3.0
	})
	return s
}
