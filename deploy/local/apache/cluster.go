// Package apache runs Apache Kafka itself on this machine, without Docker: one
// broker for "make run BROKER=apache", one or three for tests that kill and
// freeze them. Each node is a JVM that is broker and controller at once (KRaft),
// listens on 127.0.0.1 only and has a directory of its own.
package apache

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Config describes a cluster.
type Config struct {
	Library Library
	// Dir holds all of its data. What is there already is kept.
	Dir string
	// Ports are the brokers', one a node, on 127.0.0.1. Topics that nobody gives
	// another replication factor are replicated to all nodes, up to three.
	Ports []int
	// SyncWrites flushes each batch to disk before it is acknowledged. Without,
	// as is Kafka's default, what was acknowledged outlives the process but not
	// a power failure of all replicas.
	SyncWrites bool
	// HeapMegabytes bounds each JVM's heap. Default 512; a JVM takes 100 to 200
	// more.
	HeapMegabytes int
	// Quick leaves out the JVM's second compiler: it starts sooner and runs
	// slower, which suits tests.
	Quick bool
	// Settings are set over the server properties chosen here.
	Settings map[string]string
}

// Cluster is one or more nodes, not necessarily running. Nodes are numbered from
// 1, as Kafka's own tools and metadata number them.
type Cluster struct {
	cfg         Config
	controllers []int // their ports
}

// New returns a cluster; nothing happens on disk before Prepare. The
// controllers get free ports, new ones each time.
func New(cfg Config) (*Cluster, error) {
	if len(cfg.Ports) == 0 {
		return nil, errors.New("a cluster needs at least one broker's port")
	}
	if cfg.HeapMegabytes == 0 {
		cfg.HeapMegabytes = 512
	}
	var err error
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, err
	}
	controllers, err := FreePorts(len(cfg.Ports))
	if err != nil {
		return nil, err
	}
	return &Cluster{cfg: cfg, controllers: controllers}, nil
}

// FreePorts returns ports of 127.0.0.1 that nobody listened on just now.
func FreePorts(n int) (ports []int, err error) {
	for range n {
		l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("looking for a free port: %w", err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// Nodes are the nodes' numbers, from 1.
func (c *Cluster) Nodes() []int {
	nodes := make([]int, len(c.cfg.Ports))
	for i := range nodes {
		nodes[i] = i + 1
	}
	return nodes
}

// Address is where a broker answers clients, host:port.
func (c *Cluster) Address(node int) string { return local(c.cfg.Ports[node-1]) }

// Addresses are those of all brokers.
func (c *Cluster) Addresses() (all []string) {
	for _, n := range c.Nodes() {
		all = append(all, c.Address(n))
	}
	return all
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// Log is the file a node logs to.
func (c *Cluster) Log(node int) string { return filepath.Join(c.dir(node), "server.log") }

// Data is the directory of a node's logs of records.
func (c *Cluster) Data(node int) string { return filepath.Join(c.dir(node), "data") }

func (c *Cluster) dir(node int) string {
	return filepath.Join(c.cfg.Dir, "node-"+strconv.Itoa(node))
}

func (c *Cluster) properties(node int) string {
	return filepath.Join(c.dir(node), "server.properties")
}

// Command is how a node is run, once Prepare is done. SIGTERM stops it in order.
func (c *Cluster) Command(node int) (path string, args []string) {
	return c.cfg.Library.Java, append(c.flags(c.Log(node), c.cfg.HeapMegabytes), "kafka.Kafka", c.properties(node))
}

// flags are the JVM's. Its log goes to the file log.
func (c *Cluster) flags(log string, heapMegabytes int) []string {
	flags := []string{
		fmt.Sprintf("-Xmx%dm", heapMegabytes), "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError",
		"-Djava.awt.headless=true", "-Dsluice.log=" + log,
		"-Dlog4j2.configurationFile=" + filepath.Join(c.cfg.Dir, "log4j2.xml"),
	}
	if c.cfg.Quick {
		flags = append(flags, "-XX:TieredStopAtLevel=1")
	}
	return append(flags, "-cp", filepath.Join(c.cfg.Library.Jars, "*"))
}

// Prepare writes the nodes' configuration and formats the data directories that
// have not been. It takes two seconds for a new node and none for one that is
// there. No node may be running.
func (c *Cluster) Prepare(ctx context.Context) error {
	if err := os.MkdirAll(c.cfg.Dir, 0o755); err != nil {
		return fmt.Errorf("kafka's data directory: %w", err)
	}
	if err := os.WriteFile(filepath.Join(c.cfg.Dir, "log4j2.xml"), log4j, 0o644); err != nil {
		return fmt.Errorf("kafka's configuration: %w", err)
	}
	id, err := c.clusterID()
	if err != nil {
		return err
	}
	for _, n := range c.Nodes() {
		if err := os.MkdirAll(c.Data(n), 0o755); err != nil {
			return fmt.Errorf("kafka's data directory: %w", err)
		}
		if err := os.WriteFile(c.properties(n), []byte(c.settings(n)), 0o644); err != nil {
			return fmt.Errorf("kafka's configuration: %w", err)
		}
		if err := c.format(ctx, n, id); err != nil {
			return err
		}
	}
	return nil
}

// format prepares a node's storage, unless a marker says that this was done.
func (c *Cluster) format(ctx context.Context, node int, id string) error {
	marker := filepath.Join(c.dir(node), "formatted")
	if _, err := os.Stat(marker); err == nil {
		return nil
	}
	if _, err := c.Tool(ctx, "kafka.tools.StorageTool", "format", "--ignore-formatted", "-t", id, "-c", c.properties(node)); err != nil {
		return fmt.Errorf("formatting the storage of kafka's node %d: %w", node, err)
	}
	return os.WriteFile(marker, nil, 0o644)
}

// clusterID is made once and kept.
func (c *Cluster) clusterID() (string, error) {
	path := filepath.Join(c.cfg.Dir, "cluster-id")
	b, err := os.ReadFile(path)
	if err == nil {
		return strings.TrimSpace(string(b)), nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("kafka's cluster id: %w", err)
	}
	id := "-"
	for strings.HasPrefix(id, "-") { // the tools would take it for a flag
		u := uuid.New()
		id = base64.RawURLEncoding.EncodeToString(u[:])
	}
	return id, os.WriteFile(path, []byte(id+"\n"), 0o644)
}

// toolHeap is enough for any of Kafka's tools.
const toolHeap = 256

// Tool runs one of Kafka's own command-line tools by its class, and returns what
// it says. An error has that too.
func (c *Cluster) Tool(ctx context.Context, class string, args ...string) (string, error) {
	args = append(append(c.flags(filepath.Join(c.cfg.Dir, "tools.log"), toolHeap), class), args...)
	cmd := exec.CommandContext(ctx, c.cfg.Library.Java, args...)
	// It dies with us: the signal comes when the thread that forked ends, so
	// that thread is kept until the tool has ended.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w\n%s", class, err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// settings are a node's server properties.
func (c *Cluster) settings(node int) string {
	var voters []string
	for i, port := range c.controllers {
		voters = append(voters, fmt.Sprintf("%d@%s", i+1, local(port)))
	}
	copies := min(len(c.cfg.Ports), 3)
	replicas, inSync := strconv.Itoa(copies), strconv.Itoa(max(1, copies-1))
	listeners := "BROKER://" + c.Address(node) + ",CONTROLLER://" + local(c.controllers[node-1])
	s := map[string]string{
		"process.roles":                  "broker,controller",
		"node.id":                        strconv.Itoa(node),
		"listeners":                      listeners,
		"advertised.listeners":           listeners,
		"listener.security.protocol.map": "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"inter.broker.listener.name":     "BROKER",
		"controller.listener.names":      "CONTROLLER",
		// Voters by configuration and not in the log: their ports change.
		"controller.quorum.voters": strings.Join(voters, ","),
		"log.dirs":                 c.Data(node),

		"auto.create.topics.enable":      "false",
		"default.replication.factor":     replicas,
		"min.insync.replicas":            inSync,
		"unclean.leader.election.enable": "false",

		"offsets.topic.replication.factor":                 replicas,
		"offsets.topic.num.partitions":                     "4",
		"transaction.state.log.replication.factor":         replicas,
		"transaction.state.log.min.isr":                    inSync,
		"transaction.state.log.num.partitions":             "4",
		"share.coordinator.state.topic.replication.factor": replicas,
		"share.coordinator.state.topic.min.isr":            inSync,
		"share.coordinator.state.topic.num.partitions":     "1",

		// Few members: no more are worth waiting for.
		"group.initial.rebalance.delay.ms": "0",
		// In the consumer protocol the broker alone says when a silent member is
		// gone. 45 s by default; here as long as the consumer's own default is in
		// the classic protocol.
		"group.consumer.min.session.timeout.ms":    "6000",
		"group.consumer.session.timeout.ms":        "10000",
		"group.consumer.min.heartbeat.interval.ms": "1000",
		"group.consumer.heartbeat.interval.ms":     "2000",
	}
	if len(c.cfg.Ports) == 1 {
		// A broker that was killed is let in again when its session has ended: 9 s
		// by default, so that others don't take over too soon. Here is no other.
		s["broker.session.timeout.ms"], s["broker.heartbeat.interval.ms"] = "3000", "500"
	}
	if c.cfg.SyncWrites {
		s["log.flush.interval.messages"] = "1"
	}
	maps.Copy(s, c.cfg.Settings)
	var b strings.Builder
	b.WriteString("# Written at each start: changes are lost.\n")
	for _, k := range slices.Sorted(maps.Keys(s)) {
		fmt.Fprintf(&b, "%s=%s\n", k, s[k])
	}
	return b.String()
}

// answerBound is how long one question to a broker may take.
const answerBound = 2 * time.Second

// Answers asks each broker for the cluster's metadata: it returns nil when each
// answers and knows all of them, and a controller.
func (c *Cluster) Answers(ctx context.Context) error {
	for _, n := range c.Nodes() {
		if err := c.answers(ctx, n); err != nil {
			return fmt.Errorf("kafka's node %d: %w", n, err)
		}
	}
	return nil
}

func (c *Cluster) answers(ctx context.Context, node int) error {
	ctx, cancel := context.WithTimeout(ctx, answerBound)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Address(node)), kgo.DialTimeout(answerBound), kgo.RequestRetries(0), kgo.DisableClientMetrics())
	if err != nil {
		return err
	}
	defer client.Close()
	m, err := kadm.NewClient(client).BrokerMetadata(ctx)
	if err != nil {
		return err
	}
	if len(m.Brokers) != len(c.cfg.Ports) || m.Controller < 0 {
		return fmt.Errorf("it knows %d of %d brokers, and the controller %d", len(m.Brokers), len(c.cfg.Ports), m.Controller)
	}
	return nil
}
