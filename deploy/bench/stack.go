package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/deploy/local/apache"
	"sluice/deploy/local/supervise"
	"sluice/schemas/topic"
)

// startBound is how long the programs may take to be ready, on a busy machine.
const startBound = 2 * time.Minute

// stack is all that runs on one set of data: the processes, and our own clients.
type stack struct {
	*bench
	ctx        context.Context // ends, with the reason, when a program ends by itself
	end        context.CancelCauseFunc
	dir        string
	spawner    *supervise.Spawner
	partitions int
	env        []string // of the consumers

	programs  []*program
	nodes     *apache.Nodes
	broker    *program // nil when it is Apache Kafka
	engine    *program
	consumers map[int]*member
	kafka     string
	dsn       string
	edge      string // its URL
	edgeAdmin string // its address
	witnessed int    // requests that witnesses may have sent
	client    *kgo.Client
	conn      driver.Conn
}

// member is one consumer.
type member struct {
	*program
	admin string
}

// start brings up broker, engine, tables and topics. stop must be called, also
// when it fails.
func (b *bench) start(ctx context.Context, partitions int, env ...string) (s *stack, err error) {
	s = &stack{bench: b, spawner: supervise.NewSpawner(), partitions: partitions, env: env, consumers: map[int]*member{}}
	s.ctx, s.end = context.WithCancelCause(ctx)
	if s.dir, err = os.MkdirTemp(b.dir, "stack-"); err != nil {
		return s, err
	}
	ports, err := apache.FreePorts(2)
	if err != nil {
		return s, err
	}
	if err := s.startBroker(ports[0]); err != nil {
		return s, fmt.Errorf("broker: %w", err)
	}
	engine := local(ports[1])
	s.engine, err = s.launch("engine", []string{"--listen", engine, "--library", b.library, "--data", filepath.Join(s.dir, "engine")}, nil)
	if err != nil {
		return s, err
	}
	if err := s.await("engine", func(ctx context.Context) error { return get(ctx, "http://"+engine+"/ping", io.Discard) }); err != nil {
		return s, err
	}
	s.dsn = "http://" + engine + "/sluice"
	opts, err := clickhouse.ParseDSN(s.dsn)
	if err != nil {
		return s, err
	}
	opts.ReadTimeout = 2 * time.Minute
	if s.conn, err = clickhouse.Open(opts); err != nil {
		return s, err
	}
	for _, args := range [][]string{{"topics", "ensure"}, {"migrate"}} {
		if err := s.command(args...); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (s *stack) startBroker(port int) (err error) {
	s.kafka = local(port)
	if s.cfg.broker == apacheBroker {
		library, err := apache.Ensure(s.ctx, apache.Dir(s.cfg.root), s.tell)
		if err != nil {
			return err
		}
		s.nodes, err = apache.Run(s.ctx, apache.Config{Library: library, Dir: filepath.Join(s.dir, "broker"), Ports: []int{port}, HeapMegabytes: 1024})
		if err != nil {
			return err
		}
	} else {
		s.broker, err = s.launch("broker", []string{"--port", strconv.Itoa(port), "--data", filepath.Join(s.dir, "broker")}, nil)
		if err != nil {
			return err
		}
	}
	s.client, err = kgo.NewClient(
		kgo.SeedBrokers(s.kafka), kgo.ClientID("bench"), kgo.DisableClientMetrics(), kgo.DefaultProduceTopic(topic.Events),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), // the record says; see sample
		kgo.ProducerLinger(linger), kgo.MaxBufferedRecords(100_000), kgo.ProducerBatchCompression(kgo.Lz4Compression()),
	)
	if err != nil {
		return err
	}
	if err := s.await("broker", s.client.Ping); err != nil || s.nodes != nil {
		return err
	}
	var settings []kadm.AlterConfig
	for name, d := range groupSettings() {
		value := strconv.FormatInt(d.Milliseconds(), 10)
		settings = append(settings, kadm.AlterConfig{Op: kadm.SetConfig, Name: name, Value: &value})
	}
	altered, err := kadm.NewClient(s.client).AlterBrokerConfigs(s.ctx, settings)
	for _, a := range altered {
		err = errors.Join(err, a.Err)
	}
	return err
}

// sessionSetting is for how long a silent member is waited for in the protocol
// in which the broker decides that.
const sessionSetting = "group.consumer.session.timeout.ms"

// groupSettings are what deploy/local/apache sets, for the other broker: Kafka's
// own defaults are 45 s and 5 s, the consumer's session in the classic protocol
// is 10 s.
func groupSettings() map[string]time.Duration {
	return map[string]time.Duration{
		"group.consumer.min.session.timeout.ms":    6 * time.Second,
		sessionSetting:                             10 * time.Second,
		"group.consumer.min.heartbeat.interval.ms": time.Second,
		"group.consumer.heartbeat.interval.ms":     2 * time.Second,
	}
}

// linger is how long our own producer waits for more records, which is part of
// every freshness measured with it.
const linger = 2 * time.Millisecond

// launch starts one of the copied programs.
func (s *stack) launch(name string, args, env []string) (*program, error) {
	binary := name
	if env != nil && name != "ingest" {
		binary = "consumer"
	}
	p, err := launch(s.spawner, name, filepath.Join(s.bin, binary), args, env, filepath.Join(s.dir, name+".log"), s.end)
	if err == nil {
		s.programs = append(s.programs, p)
	}
	return p, err
}

func (s *stack) consumerEnv() []string {
	return slices.Concat([]string{
		"SLUICE_KAFKA_BROKERS=" + s.kafka, "SLUICE_CLICKHOUSE_DSN=" + s.dsn,
		"SLUICE_TOPICS_PARTITIONS=" + strconv.Itoa(s.partitions),
	}, s.env, s.cfg.env)
}

// command runs one of the consumer's commands.
func (s *stack) command(args ...string) error {
	ctx, cancel := context.WithTimeout(s.ctx, startBound)
	defer cancel()
	cmd := command(filepath.Join(s.bin, "consumer"), args, s.consumerEnv())
	words, err := os.Create(filepath.Join(s.dir, "command.log"))
	if err != nil {
		return err
	}
	defer words.Close()
	cmd.Stderr = words
	if err := s.spawner.Start(cmd); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })()
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("consumer %v: %w: %s", args, err, lastWords(words.Name()))
	}
	return nil
}

// consume starts consumer number n.
func (s *stack) consume(n int) (*member, error) {
	ports, err := apache.FreePorts(1)
	if err != nil {
		return nil, err
	}
	name := "consumer" + strconv.Itoa(n)
	m := &member{admin: local(ports[0])}
	env := append(s.consumerEnv(), "SLUICE_ADMIN_ADDRESS="+m.admin, "SLUICE_KAFKA_CLIENT_ID="+name)
	if m.program, err = s.launch(name, nil, env); err != nil {
		return nil, err
	}
	s.consumers[n] = m
	return m, nil
}

// consumeAll starts so many consumers and returns when all partitions are owned,
// evenly, and move.
func (s *stack) consumeAll(members int) error {
	for n := 1; n <= members; n++ {
		if _, err := s.consume(n); err != nil {
			return err
		}
	}
	return s.balanced()
}

// ingest starts the edge, with env besides, and returns when it takes posts.
func (s *stack) ingest(env ...string) error {
	ports, err := apache.FreePorts(2)
	if err != nil {
		return err
	}
	admin := local(ports[1])
	s.edgeAdmin = admin
	s.edge = "http://" + local(ports[0])
	if _, err = s.launch("ingest", nil, append(slices.Concat(s.cfg.edgeEnv, env),
		"SLUICE_KAFKA_BROKERS="+s.kafka, "SLUICE_HTTP_ADDRESS="+local(ports[0]), "SLUICE_ADMIN_ADDRESS="+admin,
		"SLUICE_SPOOL_DIR="+filepath.Join(s.dir, "spool"),
	)); err != nil {
		return err
	}
	return s.await("ingest", func(ctx context.Context) error { return get(ctx, "http://"+admin+"/readyz", io.Discard) })
}

// await probes until probe is content, within startBound.
func (s *stack) await(what string, probe func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(s.ctx, startBound, errors.New("not ready within "+startBound.String()))
	defer cancel()
	if err := supervise.Await(ctx, probe); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// gone takes a consumer that was killed off the list of those that are asked.
func (s *stack) gone(n int) {
	m := s.consumers[n]
	delete(s.consumers, n)
	s.programs = slices.DeleteFunc(s.programs, func(p *program) bool { return p == m.program })
}

// stop ends everything at once and removes the data: nothing of it is wanted.
func (s *stack) stop() error {
	for _, p := range slices.Backward(s.programs) {
		p.kill()
	}
	s.end(nil)
	var err error
	if s.client != nil {
		s.client.Close()
	}
	if s.conn != nil {
		err = s.conn.Close()
	}
	if s.nodes != nil {
		err = errors.Join(err, s.nodes.Close())
	}
	s.spawner.Close()
	http.DefaultClient.CloseIdleConnections()
	return errors.Join(err, os.RemoveAll(s.dir))
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// get copies the answer of a GET to w; an answer other than 200 is an error.
func get(ctx context.Context, url string, w io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 500)) // it adds to the error only
		return fmt.Errorf("%s: %s: %s", url, resp.Status, text)
	}
	_, err = io.Copy(w, resp.Body)
	return err
}
