package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"
	"github.com/twmb/franz-go/pkg/kadm"

	"sluice/deploy/local/apache"
)

const (
	postRounds  = 3
	postClients = 32
	postFor     = 10 * time.Second
	steadyRate  = 1000
	steadyFor   = time.Minute
	warmFor     = 30 * time.Second // of a broker in a JVM
)

// server is one thing that takes posts.
type server struct {
	name    string
	url     string
	program *program
}

// posts measures single posts in a closed loop, each server in turn, round after
// round, so that what else the machine does meets them all.
func posts(ctx context.Context, b *bench) (t *table, err error) {
	wrk, err := exec.LookPath("wrk")
	if err != nil {
		return nil, fmt.Errorf("%w: install it, as in: apt-get install wrk", err)
	}
	s, err := b.start(ctx, freshPartitions)
	defer func() { err = errors.Join(err, s.stop()) }()
	if err != nil {
		return nil, err
	}
	servers, err := s.servers()
	if err != nil {
		return nil, err
	}
	type found struct {
		rate, perCPU  []float64
		p50, p95, p99 []time.Duration
	}
	all := make([]found, len(servers))
	lasting := max(time.Second, b.cfg.lasting(postFor))
	for round := range postRounds {
		for i, srv := range servers {
			b.say("posts: round %d, %s", round+1, srv.name)
			before, _, err := srv.program.used()
			if err != nil {
				return nil, err
			}
			w, err := s.hammer(wrk, srv, lasting, fmt.Sprintf("%d-%d", round, i))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", srv.name, err)
			}
			after, _, err := srv.program.used()
			if err != nil {
				return nil, err
			}
			f := &all[i]
			f.rate = append(f.rate, float64(w.Requests)/(float64(w.Micros)/1e6))
			f.perCPU = append(f.perCPU, float64(w.Requests)/(after-before).Seconds())
			f.p50 = append(f.p50, time.Duration(w.P50)*time.Microsecond)
			f.p95 = append(f.p95, time.Duration(w.P95)*time.Microsecond)
			f.p99 = append(f.p99, time.Duration(w.P99)*time.Microsecond)
		}
	}
	t = newTable(
		column{"server", "server", "%s"}, column{"posts_per_second", "posts/s", "%.0f"}, column{"spread", "from - to", "%s"},
		column{"posts_per_cpu_second", "posts/CPU-s", "%.0f"}, column{"p50_ms", "P50 ms", "%.1f"}, column{"p95_ms", "P95 ms", "%.1f"}, column{"p99_ms", "P99 ms", "%.1f"},
		column{"sluice_ratio", "the edge against it", "%.2f"},
	)
	ms := func(all []time.Duration) float64 { return float64(median(all)) / float64(time.Millisecond) }
	edge := slices.IndexFunc(servers, func(s server) bool { return s.name == edgeName })
	for i, srv := range servers {
		var ratios []float64
		for round := range postRounds {
			ratios = append(ratios, all[edge].rate[round]/all[i].rate[round])
		}
		f := all[i]
		t.add(srv.name, median(f.rate), fmt.Sprintf("%.0f - %.0f", slices.Min(f.rate), slices.Max(f.rate)), median(f.perCPU), ms(f.p50), ms(f.p95), ms(f.p99), median(ratios))
	}
	t.note("wrk -t1 -c%d, %v a turn, %d rounds, the servers in turn; medians of the rounds, ratios of the same round. Broker, server and wrk share the cores.", postClients, lasting, postRounds)
	return t, nil
}

const edgeName = "the edge"

// servers starts all that is compared, on the stack's broker.
func (s *stack) servers() ([]server, error) {
	if err := s.ingest(); err != nil {
		return nil, err
	}
	all := []server{{edgeName, s.edge, s.programs[len(s.programs)-1]}}
	bare, err := s.bare()
	if err != nil {
		return nil, err
	}
	option3, err := s.option3()
	if err != nil {
		return nil, err
	}
	for _, c := range []struct {
		name, path string
		args       func(port string) []string
	}{
		{"gin that does nothing", bare, func(port string) []string { return []string{"noop", "127.0.0.1:" + port} }},
		{bareName, bare, s.bareArgs},
		{"Express, BullMQ, Redis", "node", func(port string) []string { return append([]string{option3.script, port}, option3.redis) }},
	} {
		srv, err := s.serve(c.name, c.path, c.args)
		if err != nil {
			return nil, err
		}
		all = append(all, srv)
	}
	return all, nil
}

// bareName is the handler that an edge with nothing of ours would be.
const bareName = "gin, JSON, ProduceSync"

// bare builds what the edge is measured beside, and makes a topic for it: the edge's
// log is left to the edge.
func (s *stack) bare() (path string, err error) {
	path = filepath.Join(s.bin, "bare")
	build := exec.CommandContext(s.ctx, "go", "build", "-o", path, "./deploy/bench/bare")
	build.Dir, build.Env = s.cfg.root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building what the edge is compared with: %w: %s", err, out)
	}
	return path, s.create("bare")
}

func (s *stack) bareArgs(port string) []string {
	return []string{"produce", "127.0.0.1:" + port, s.kafka, "bare"}
}

// serve starts a server on a free port, and returns when it is ready.
func (s *stack) serve(name, path string, args func(port string) []string) (srv server, err error) {
	ports, err := apache.FreePorts(1)
	if err != nil {
		return srv, err
	}
	port := strconv.Itoa(ports[0])
	srv = server{name: name, url: "http://127.0.0.1:" + port}
	if srv.program, err = s.run(name, path, args(port)...); err != nil {
		return srv, err
	}
	return srv, s.await(name, func(ctx context.Context) error { return get(ctx, srv.url+"/readyz", io.Discard) })
}

// run starts a program that is none of ours.
func (s *stack) run(name, path string, args ...string) (*program, error) {
	path, err := exec.LookPath(path)
	if err != nil {
		return nil, err
	}
	p, err := launch(s.spawner, name, path, args, nil, filepath.Join(s.dir, filepath.Base(path)+".log"), s.end)
	if err == nil {
		s.programs = append(s.programs, p)
	}
	return p, err
}

type option3 struct{ script, redis string }

// option3 installs what the draft needs and starts its Redis, which appends every
// write to its file and syncs once a second, as Redis does where it is told to be
// durable.
func (s *stack) option3() (option3, error) {
	for _, need := range []string{"node", "npm", "redis-server"} {
		if _, err := exec.LookPath(need); err != nil {
			return option3{}, fmt.Errorf("%w: install it, as in: apt-get install nodejs npm redis-server", err)
		}
	}
	dir := filepath.Join(s.cfg.root, ".local", "option3")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return option3{}, err
	}
	for _, name := range []string{"package.json", "server.mjs"} {
		text, err := os.ReadFile(filepath.Join(s.cfg.root, "deploy", "bench", "option3", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), text, 0o644)
		}
		if err != nil {
			return option3{}, err
		}
	}
	s.say("posts: installing Express, BullMQ and ioredis into .local/option3")
	npm := exec.CommandContext(s.ctx, "npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--silent")
	npm.Dir = dir
	if out, err := npm.CombinedOutput(); err != nil {
		return option3{}, fmt.Errorf("npm install: %w: %s", err, out)
	}
	ports, err := apache.FreePorts(1)
	if err != nil {
		return option3{}, err
	}
	port := strconv.Itoa(ports[0])
	_, err = s.run("redis", "redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", s.dir, "--appendonly", "yes", "--save", "")
	return option3{filepath.Join(dir, "server.mjs"), port}, err
}

// create makes a topic beside the stack's own.
func (s *stack) create(name string) error {
	r, err := kadm.NewClient(s.client).CreateTopic(s.ctx, int32(s.partitions), 1, nil, name)
	if err := errors.Join(err, r.Err); err != nil {
		return fmt.Errorf("topic %s: %w", name, err)
	}
	return nil
}

// hammered is what wrk found.
type hammered struct {
	Requests int64 `json:"requests"`
	Micros   int64 `json:"micros"`
	Failed   int64 `json:"failed"`
	P50      int64 `json:"p50"`
	P95      int64 `json:"p95"`
	P99      int64 `json:"p99"`
}

func (s *stack) hammer(wrk string, srv server, lasting time.Duration, run string) (w hammered, err error) {
	cmd := exec.CommandContext(s.ctx, wrk, "-t1", "-c"+strconv.Itoa(postClients), "-d"+strconv.Itoa(int(lasting.Seconds()))+"s",
		"-s", filepath.Join(s.cfg.root, "deploy", "bench", "wrk.lua"), srv.url+"/api/events")
	cmd.Env = append(os.Environ(), "RUN="+run)
	out, err := cmd.Output()
	if err != nil {
		return w, fmt.Errorf("wrk: %w: %s", err, out)
	}
	at := bytes.LastIndexByte(bytes.TrimSpace(out), '\n')
	if err := json.Unmarshal(out[at+1:], &w); err != nil {
		return w, fmt.Errorf("wrk: %w: %s", err, out)
	}
	if w.Failed > 0 || w.Requests == 0 {
		return w, fmt.Errorf("%d of %d posts failed", w.Failed, w.Requests)
	}
	return w, nil
}

// steady measures single posts in an open loop: each is sent when it is due,
// whatever became of those before.
func steady(ctx context.Context, b *bench) (t *table, err error) {
	s, err := b.start(ctx, freshPartitions)
	defer func() { err = errors.Join(err, s.stop()) }()
	if err != nil {
		return nil, err
	}
	if err := s.ingest(); err != nil {
		return nil, err
	}
	lasting := b.cfg.lasting(steadyFor)
	base := time.Now()
	var sent atomic.Int64 // the workers ask at the same time
	target := func(to *vegeta.Target) error {
		n := int(sent.Add(1))
		e := s.sample.event(n, base.Add(time.Duration(n)*time.Microsecond))
		*to = vegeta.Target{
			Method: "POST", URL: s.edge + "/api/events", Header: map[string][]string{"Content-Type": {"application/json"}},
			Body: e.AppendJSON(nil),
		}
		return nil
	}
	attack := func(lasting time.Duration) (m vegeta.Metrics, err error) {
		attacker := vegeta.NewAttacker(vegeta.Timeout(postBound), vegeta.Workers(64), vegeta.Connections(1000)) // one attacks once
		for r := range attacker.Attack(target, vegeta.Rate{Freq: steadyRate, Per: time.Second}, lasting, "steady") {
			m.Add(r)
		}
		if m.Close(); m.Success < 1 {
			err = fmt.Errorf("%.4f of the posts were not accepted: %v", 1-m.Success, m.Errors)
		}
		return m, err
	}
	if b.cfg.broker == apacheBroker {
		b.say("steady: the JVM compiles what it runs first; %v are not counted", warmFor)
		if _, err := attack(warmFor); err != nil {
			return nil, err
		}
	}
	t = newTable(
		column{"beside", "beside the edge", "%s"},
		column{"posts", "posts", "%d"}, column{"asked_per_second", "asked/s", "%d"}, column{"per_second", "posts/s", "%.0f"},
		column{"p50_ms", "P50 ms", "%.2f"}, column{"p95_ms", "P95 ms", "%.2f"}, column{"p99_ms", "P99 ms", "%.2f"}, column{"max_ms", "max ms", "%.1f"},
	)
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	measure := func(beside string) error {
		b.say("steady: %d posts a second for %v beside %s", steadyRate, lasting, beside)
		m, err := attack(lasting)
		if err != nil {
			return err
		}
		t.add(beside, m.Requests, steadyRate, m.Rate, ms(m.Latencies.P50), ms(m.Latencies.P95), ms(m.Latencies.P99), ms(m.Latencies.Max))
		return nil
	}
	written := func() error {
		return s.await("the rows of the posts", func(context.Context) error { return s.holds(int(sent.Load())) })
	}
	if err := measure("broker and load"); err != nil {
		return t, err
	}
	if err := errors.Join(s.consumeAll(1), written()); err != nil {
		return t, err
	}
	if err := measure("them, a consumer and ClickHouse"); err != nil {
		return t, err
	}
	t.note("vegeta as a library; an idle worker takes the post when it is due, and a new one when none is idle. Every post became a row.")
	return t, written()
}

func median[T ~int64 | ~float64](all []T) T {
	sorted := slices.Clone(all)
	slices.Sort(sorted)
	return sorted[len(sorted)/2]
}
