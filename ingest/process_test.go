package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/schemas/topic"
)

// program is an edge as a process of its own, on ports that stay when it is
// started again.
type program struct {
	bin, events, admin, broker, dir string
	env                             []string

	log   *lockedBuffer
	cmd   *exec.Cmd
	ended chan error
}

var buildEdge = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "sluice-edge")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "ingest")
	out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return bin, err
})

// freeAddress has a port that the system gives to nobody who asks for any: one of
// those could be another's before the program has it.
func freeAddress(t testing.TB) string {
	t.Helper()
	for range 1000 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(12_000)))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	require.FailNow(t, "no free port between 20000 and 32000")
	return ""
}

func newProgram(t testing.TB, broker string, env ...string) *program {
	t.Helper()
	bin, err := buildEdge()
	require.NoError(t, err)
	p := &program{bin: bin, events: freeAddress(t), admin: freeAddress(t), broker: broker, dir: t.TempDir(), env: env, log: new(lockedBuffer)}
	p.start(t)
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("the edge's log:\n%s", p.log)
		}
	})
	return p
}

func (p *program) start(t testing.TB) {
	t.Helper()
	p.cmd = exec.Command(p.bin, "--http.address", p.events, "--admin.address", p.admin, "--spool.dir", p.dir)
	p.cmd.Env = append(append(os.Environ(), "SLUICE_KAFKA_BROKERS="+p.broker), p.env...)
	p.cmd.Stderr = p.log
	require.NoError(t, p.cmd.Start())
	cmd, ended := p.cmd, make(chan error, 1)
	p.ended = ended
	go func() { ended <- cmd.Wait() }()
}

// kill is kill -9.
func (p *program) kill() {
	_ = p.cmd.Process.Kill()
	p.ended <- <-p.ended
}

// stop is SIGTERM, and the exit status.
func (p *program) stop(t testing.TB) int {
	t.Helper()
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	err := <-p.ended
	p.ended <- err
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	require.NoError(t, err)
	return 0
}

func (p *program) edge() *edge {
	return &edge{url: "http://" + p.events, admin: "http://" + p.admin, client: &http.Client{}}
}

func (p *program) waitReady(t testing.TB) {
	t.Helper()
	client := &http.Client{}
	defer client.CloseIdleConnections()
	require.Eventually(t, func() bool {
		resp, err := client.Get("http://" + p.admin + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}, 30*time.Second, 10*time.Millisecond, "%s", p.log)
}

// posts posts events at a rate. The events of one key are posted one after
// another, each with the next number as its payload, and again until they are
// accepted; the time of each is counted from when it was due.
type posts struct {
	targets []*program
	perSec  int
	keys    int

	stop chan struct{}
	all  sync.WaitGroup

	mu       sync.Mutex
	accepted []int // of each key, how many of its events: those numbered below
	failed   []string
	done     []posted
	statuses map[string]int
}

type posted struct {
	due   time.Time
	took  time.Duration
	tries int
}

func startPosts(perSec, keys int, targets ...*program) *posts {
	l := &posts{targets: targets, perSec: perSec, keys: keys, stop: make(chan struct{}), accepted: make([]int, keys), statuses: map[string]int{}}
	for k := range keys {
		l.all.Go(func() { l.post(k) })
	}
	return l
}

func (l *posts) post(k int) {
	every := time.Duration(l.keys) * time.Second / time.Duration(l.perSec)
	due := time.Now().Add(time.Duration(k) * every / time.Duration(l.keys))
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for n := 0; ; n++ {
		select {
		case <-l.stop:
			return
		case <-time.After(time.Until(due)):
		}
		body := fmt.Appendf(nil, `{"source":"app","event_type":"click","actor_id":"k%d","occurred_at":"2026-01-02T03:04:05Z","payload":{"n":%d}}`, k, n)
		tries, status, last := 0, "", ""
		for end := time.Now().Add(60 * time.Second); status == "" && time.Now().Before(end); tries++ {
			if tries > 0 {
				time.Sleep(20 * time.Millisecond)
			}
			p := l.targets[(k+tries)%len(l.targets)]
			e := &edge{url: "http://" + p.events, client: client}
			a, err := e.tryPost("/api/events", body)
			switch {
			case err != nil:
				last = err.Error()
			case a.status != http.StatusAccepted:
				last = fmt.Sprintf("%d %s", a.status, a.body)
			default:
				var body struct{ Status string }
				if err := json.Unmarshal(a.body, &body); err != nil {
					last = err.Error()
				}
				status = body.Status
			}
		}
		l.mu.Lock()
		if status == "" {
			l.failed = append(l.failed, last)
		} else {
			l.accepted[k] = n + 1
			l.statuses[status]++
			l.done = append(l.done, posted{due, time.Since(due), tries})
		}
		l.mu.Unlock()
		due = due.Add(every)
	}
}

// end stops the load and sees that no post failed.
func (l *posts) end(t testing.TB) {
	t.Helper()
	close(l.stop)
	l.all.Wait()
	require.Empty(t, l.failed, "posts that failed")
}

// between are the times of the posts due in a span that needed one try, sorted.
func (l *posts) between(from, to time.Time) []time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []time.Duration
	for _, p := range l.done {
		if p.tries == 1 && !p.due.Before(from) && p.due.Before(to) {
			out = append(out, p.took)
		}
	}
	slices.Sort(out)
	return out
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// check reads the topic to its end: every accepted event is there, and of each
// key the events' first records stand in the order they were accepted in. It
// returns how many records there are beyond one an event.
func (l *posts) check(t testing.TB, broker string) (again int) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.ConsumeTopics(topic.Events),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	require.NoError(t, err)
	defer client.Close()
	ends, err := kadm.NewClient(client).ListEndOffsets(t.Context(), topic.Events)
	require.NoError(t, err)
	require.NoError(t, ends.Error())
	left := int64(0)
	ends.Each(func(o kadm.ListedOffset) { left += o.Offset })
	next := make([]int, l.keys) // of each key, the first number not seen
	for left > 0 {
		fetches := client.PollFetches(t.Context())
		require.NoError(t, fetches.Err())
		fetches.EachRecord(func(r *kgo.Record) {
			left--
			var k, n int
			_, err := fmt.Sscanf(string(r.Key), "app:click:k%d:", &k)
			require.NoError(t, err)
			_, err = fmt.Sscanf(string(r.Value[bytes.Index(r.Value, []byte(`"n":`)):]), `"n":%d`, &n)
			require.NoError(t, err, "%s", r.Value)
			switch {
			case n == next[k]:
				next[k]++
			case n > next[k]:
				t.Fatalf("key %d: event %d stands in the log before event %d", k, n, next[k])
			default:
				again++
			}
		})
	}
	for k, n := range l.accepted {
		require.GreaterOrEqual(t, next[k], n, "key %d: accepted events are not in the log", k)
	}
	return again
}

func (l *posts) total() int {
	n := 0
	for _, a := range l.accepted {
		n += a
	}
	return n
}

// durationFrom and numberFrom read a size of a test that can be made longer by hand.
func durationFrom(t testing.TB, name string, def time.Duration) time.Duration {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return def
	}
	d, err := time.ParseDuration(text)
	require.NoError(t, err, name)
	return d
}

func numberFrom(t testing.TB, name string, def int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return def
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, name)
	return n
}

// TestFrozenLog: the broker stops dead (SIGSTOP) under 300 posts a second, for
// FROZEN (default 6s), and the edge is killed five times meanwhile. Every post is
// accepted, every accepted event is in the topic in the end, in the order of its
// key.
func TestFrozenLog(t *testing.T) {
	frozen := durationFrom(t, "FROZEN", 6*time.Second)
	kills := numberFrom(t, "KILLS", 5)
	broker, pid := brokerWithPID(t)
	p := newProgram(t, broker)
	p.waitReady(t)
	l := startPosts(300, 150, p)
	time.Sleep(time.Second)

	begin := time.Now()
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	for range kills {
		time.Sleep(frozen / time.Duration(kills+1))
		p.kill()
		p.start(t)
	}
	time.Sleep(time.Until(begin.Add(frozen)))
	require.NoError(t, syscall.Kill(pid, syscall.SIGCONT))
	end := time.Now()

	time.Sleep(2 * time.Second)
	l.end(t)
	e := p.edge()
	defer e.client.CloseIdleConnections()
	e.waitDrained(t)
	took := time.Since(end)
	again := l.check(t, broker)
	times := l.between(begin, end)
	t.Logf("frozen %v, killed %d times: %d posts accepted (%v), all in the topic in order, %d records twice; in the frozen time %d posts of one try: P50 %v, P95 %v, P99 %v, most %v; drained %v after the thaw, with 2s of load in it",
		end.Sub(begin).Round(time.Millisecond), kills, l.total(), l.statuses, again, len(times),
		quantile(times, .5), quantile(times, .95), quantile(times, .99), quantile(times, 1), took.Round(time.Millisecond))
}

// TestRestarts: two edges take turns in being stopped (SIGTERM) and started, RESTARTS
// times (default 6), under load, behind clients that try the other one. No
// post fails, none is lost, each stop exits 0.
func TestRestarts(t *testing.T) {
	restarts := numberFrom(t, "RESTARTS", 6)
	broker, _ := brokerWithPID(t)
	edges := []*program{
		newProgram(t, broker, "SLUICE_SHUTDOWN_GRACE=100ms"),
		newProgram(t, broker, "SLUICE_SHUTDOWN_GRACE=100ms"),
	}
	for _, p := range edges {
		p.waitReady(t)
	}
	l := startPosts(300, 60, edges...)
	slowest := time.Duration(0)
	for i := range restarts {
		time.Sleep(200 * time.Millisecond)
		p := edges[i%2]
		begin := time.Now()
		require.Zero(t, p.stop(t), "%s", p.log)
		slowest = max(slowest, time.Since(begin))
		p.start(t)
		p.waitReady(t)
	}
	l.end(t)
	for _, p := range edges {
		require.Zero(t, p.stop(t), "%s", p.log)
	}
	again := l.check(t, broker)
	t.Logf("%d restarts: %d posts accepted (%v), none failed, all in the topic, %d records twice; the slowest stop took %v",
		restarts, l.total(), l.statuses, again, slowest.Round(time.Millisecond))
}
