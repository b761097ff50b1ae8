package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/deploy/chaos/internal/evidence"
	"sluice/deploy/chaos/internal/plan"
	"sluice/deploy/chaos/internal/process"
	"sluice/deploy/chaos/internal/proxy"
	"sluice/deploy/local/supervise"
)

// stack is all that runs: the processes, the proxies between them, and our own
// clients, whose connections no fault befalls.
type stack struct {
	cfg     config
	dir     string
	spawner *supervise.Spawner

	processes map[string]*process.Process
	order     []string // of their start
	admin     map[string]string
	proxies   map[string]*proxy.Proxy // by the server behind them; engines by consumer
	kafka     string                  // the proxy's address
	engine    string                  // the engine's own address
	log       *evidence.Log
	tables    *evidence.Tables
	producer  *kgo.Client

	mu    sync.Mutex
	ended []string // processes that ended by themselves
}

// The names under which our own clients connect.
const (
	observer = "observer"
	stranger = "stranger" // who produces past the edge
)

// start brings everything up in dir. Whatever it returns, stop must be called.
func start(ctx context.Context, cfg config, library, dir string, spawner *supervise.Spawner, onEnd func(name, how string)) (s *stack, err error) {
	s = &stack{
		cfg: cfg, dir: dir, spawner: spawner,
		processes: map[string]*process.Process{}, admin: map[string]string{}, proxies: map[string]*proxy.Proxy{},
	}
	ports, err := freePorts(ctx, 4+cfg.consumers)
	if err != nil {
		return s, err
	}
	// While nothing is done to them, none may end.
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	ended := func(name string, state *os.ProcessState) {
		s.mu.Lock()
		s.ended = append(s.ended, name+": "+state.String())
		s.mu.Unlock()
		words := lastWords(filepath.Join(dir, name+".log"))
		fail(fmt.Errorf("%s ended by itself: %s: %s", name, state, words))
		onEnd(name, state.String()+": "+words)
	}
	add := func(spec process.Spec) error {
		spec.Log = filepath.Join(dir, spec.Name+".log")
		p := process.New(spawner, spec, ended)
		s.processes[spec.Name] = p
		s.order = append(s.order, spec.Name)
		return p.Start()
	}

	front, err := s.front(plan.Broker, proxy.Config{Target: local(ports[0]), Kafka: true, Linger: linger(cfg)})
	if err != nil {
		return s, err
	}
	s.kafka = front
	b, err := newBroker(ctx, cfg, dir, ports[0], front)
	if err != nil {
		return s, err
	}
	s.engine = local(ports[1])
	if err := errors.Join(add(b.spec), add(process.Spec{
		Name: plan.Engine, Path: filepath.Join(dir, "bin", "engine"),
		Args: []string{"--listen", s.engine, "--library", library, "--data", filepath.Join(dir, "engine")},
	})); err != nil {
		return s, err
	}
	if err := s.clients(); err != nil {
		return s, err
	}
	bound, cancel := context.WithTimeoutCause(ctx, startBound, errors.New("no answer within "+startBound.String()))
	defer cancel()
	if err := supervise.Await(bound, func(ctx context.Context) error { _, err := get(ctx, "http://"+s.engine+"/ping"); return err }); err != nil {
		return s, fmt.Errorf("engine: %w", err)
	}
	if err := supervise.Await(bound, s.log.Ping); err != nil {
		return s, fmt.Errorf("broker: %w", err)
	}
	if err := b.settle(bound, s.log); err != nil {
		return s, err
	}
	for _, args := range [][]string{{"topics", "ensure"}, {"migrate"}} {
		if _, err := s.consumer(args...); err != nil {
			return s, err
		}
	}
	if err := s.tables.KeepParts(ctx); err != nil {
		return s, err
	}

	s.admin[plan.Edge] = local(ports[2])
	if _, err := s.front(plan.Edge, proxy.Config{Target: local(ports[3]), Client: plan.A7}); err != nil {
		return s, err
	}
	if err := add(process.Spec{Name: plan.Edge, Path: filepath.Join(dir, "bin", "ingest"), Env: []string{
		"SLUICE_KAFKA_BROKERS=" + s.kafka, "SLUICE_KAFKA_CLIENT_ID=" + plan.Edge,
		"SLUICE_SPOOL_DIR=" + filepath.Join(dir, "spool"), "SLUICE_HTTP_ADDRESS=" + local(ports[3]), "SLUICE_ADMIN_ADDRESS=" + s.admin[plan.Edge],
		"SLUICE_PRODUCE_ACK_TIMEOUT=1500ms",
		// Repeats are for the consumer to find: the edge writes them all.
		"SLUICE_KNOWN_BYTES=0",
	}}); err != nil {
		return s, err
	}
	for n := 1; n <= cfg.consumers; n++ {
		name := plan.Consumer(n)
		s.admin[name] = local(ports[3+n])
		toEngine, err := s.front(name, proxy.Config{Target: s.engine, Client: name})
		if err != nil {
			return s, err
		}
		env := append(s.consumerEnv(toEngine, name),
			"SLUICE_ADMIN_ADDRESS="+s.admin[name],
			"SLUICE_GROUP_SESSION_TIMEOUT="+cfg.session.String(),
			"SLUICE_GROUP_INTENT_FRESH="+(cfg.session/3).String(),
			"SLUICE_GROUP_REVOKE_TIMEOUT="+(cfg.session/2).String(),
			"SLUICE_GROUP_PROTOCOL="+cfg.protocol,
			// Small batches: many steps of the protocol in little time.
			"SLUICE_BATCH_ROWS="+strconv.Itoa(s.cfg.batch), "SLUICE_BATCH_AGE=40ms", "SLUICE_BUDGET_INSERTS_PER_SECOND=200",
			// Little memory for keys: most of what is old is asked of ClickHouse.
			"SLUICE_INDEX_LIVE=10m", "SLUICE_INDEX_BYTES=1048576",
			"SLUICE_DOCTOR_EVERY=5s")
		if n == 1 && cfg.protocol == classicProtocol { // one of them is a static member
			env = append(env, "SLUICE_GROUP_INSTANCE_ID="+name)
		}
		if err := add(process.Spec{Name: name, Path: filepath.Join(dir, "bin", "consumer"), Env: env}); err != nil {
			return s, err
		}
	}
	bound, cancel = context.WithTimeoutCause(ctx, startBound, errors.New("not ready within "+startBound.String()))
	defer cancel()
	return s, supervise.Await(bound, s.ready)
}

// startBound is how long the programs may take to be ready.
const startBound = 60 * time.Second

func (s *stack) front(server string, cfg proxy.Config) (addr string, err error) {
	p, err := proxy.Listen(cfg)
	if err != nil {
		return "", err
	}
	s.proxies[server] = p
	return p.Addr(), nil
}

func (s *stack) clients() (err error) {
	options := func(name string) []kgo.Opt {
		return []kgo.Opt{
			kgo.SeedBrokers(s.kafka), kgo.ClientID(name), kgo.DisableClientMetrics(), kgo.DialTimeout(2 * time.Second),
			kgo.RetryBackoffFn(func(int) time.Duration { return 100 * time.Millisecond }),
			kgo.MetadataMinAge(100 * time.Millisecond),
		}
	}
	if s.log, err = evidence.OpenLog(options(observer)...); err != nil {
		return err
	}
	s.producer, err = kgo.NewClient(append(options(stranger), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		return err
	}
	s.tables, err = evidence.OpenTables("http://" + s.engine + "/sluice")
	return err
}

func (s *stack) consumerEnv(engine, client string) []string {
	return []string{
		"SLUICE_KAFKA_BROKERS=" + s.kafka, "SLUICE_KAFKA_CLIENT_ID=" + client,
		"SLUICE_CLICKHOUSE_DSN=http://" + engine + "/sluice",
		"SLUICE_TOPICS_PARTITIONS=" + strconv.Itoa(int(s.cfg.partitions)),
	}
}

// consumer runs one of the consumer's commands past all faults.
func (s *stack) consumer(args ...string) (stdout string, err error) {
	return process.Run(s.spawner, process.Spec{
		Name: "consumer " + strings.Join(args, " "), Path: filepath.Join(s.dir, "bin", "consumer"), Args: args,
		Env: s.consumerEnv(s.engine, observer),
	}, 2*time.Minute)
}

// ready is nil when edge and consumers say that they are.
func (s *stack) ready(ctx context.Context) error {
	for name, addr := range s.admin {
		if _, err := get(ctx, "http://"+addr+"/readyz"); err != nil {
			return fmt.Errorf("%s is not ready: %w", name, err)
		}
	}
	return nil
}

// drained is nil when nothing waits in the edge's spool. Before that the log
// does not hold all that was accepted.
func (s *stack) drained(ctx context.Context) error {
	text, err := get(ctx, "http://"+s.admin[plan.Edge]+"/spool")
	if err != nil {
		return fmt.Errorf("the edge's spool: %w", err)
	}
	var spool struct {
		Records int `json:"records"`
	}
	if err := json.Unmarshal(text, &spool); err != nil {
		return fmt.Errorf("the edge's spool: %w", err)
	}
	if spool.Records > 0 {
		return fmt.Errorf("%d records wait in the edge's spool", spool.Records)
	}
	return nil
}

// link finds the proxy of a link and the name of its client there.
func (s *stack) link(l plan.Link) (p *proxy.Proxy, client string) {
	if l.Server == plan.Engine {
		return s.proxies[l.Client], l.Client
	}
	return s.proxies[l.Server], l.Client
}

// stop ends everything, in the order that takes least time; it must not hang,
// whatever state things are in.
func (s *stack) stop() {
	var all sync.WaitGroup
	for _, name := range slices.Backward(s.order) {
		all.Go(func() {
			s.processes[name].Kill()
			s.processes[name].Stop(0) // waits for what watches it
		})
	}
	all.Wait()
	if s.producer != nil {
		s.producer.Close()
	}
	if s.log != nil {
		s.log.Close()
	}
	if s.tables != nil {
		s.tables.Close()
	}
	for _, p := range s.proxies {
		p.Close()
	}
}

// lastWords is the last line of a log.
func lastWords(log string) string {
	b, err := os.ReadFile(log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// freePorts finds ports that nobody listens on. They lie below the range from
// which the system takes those of outgoing connections: a program that is down
// must find its port free when it comes back.
func freePorts(ctx context.Context, n int) ([]int, error) {
	const least, most = 20_000, 32_000
	var ports []int
	for p := least + os.Getpid()*37%(most-least); len(ports) < n; p++ {
		if p >= most {
			p = least
		}
		if slices.Contains(ports, p) {
			return nil, errors.New("no free ports between 20000 and 32000")
		}
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", local(p))
		if err != nil {
			continue
		}
		l.Close()
		ports = append(ports, p)
	}
	return ports, nil
}

func get(ctx context.Context, url string) (text []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err = io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(strings.TrimSpace(string(text)))
	}
	return text, err
}
