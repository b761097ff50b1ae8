package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/pflag"
)

// config is what can be told to the supervisor: by flags, or by the environment
// variables that are also make's.
type config struct {
	root       string // of the working copy
	bin        string // where make build puts the binaries
	data       string // of broker and engine
	broker     string // which one: kfake or apache
	partitions int
	syncWrites bool

	http, ingestAdmin, consumerAdmin, clickhouse, kafka port
}

// The brokers there are.
const (
	kfakeBroker  = "kfake"
	apacheBroker = "apache"
)

// port is one of the five that the stack listens on.
type port struct {
	number   int
	what     string
	variable string // of make, which moves it
}

func (p port) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.number)) }

func (c *config) ports() []*port {
	return []*port{&c.http, &c.ingestAdmin, &c.consumerAdmin, &c.clickhouse, &c.kafka}
}

// addFlags adds the flags; their defaults come from the environment.
func (c *config) addFlags(f *pflag.FlagSet) error {
	*c = config{
		http:          port{8080, "the edge", "HTTP_PORT"},
		ingestAdmin:   port{8081, "the edge's admin server", "INGEST_ADMIN_PORT"},
		consumerAdmin: port{8082, "the consumer's admin server", "CONSUMER_ADMIN_PORT"},
		clickhouse:    port{8123, "ClickHouse", "CLICKHOUSE_PORT"},
		kafka:         port{9092, "Kafka", "KAFKA_PORT"},
		partitions:    4,
		broker:        kfakeBroker,
	}
	flags := []string{"http-port", "ingest-admin-port", "consumer-admin-port", "clickhouse-port", "kafka-port"}
	for i, p := range c.ports() {
		if err := fromEnv(p.variable, &p.number, "a port's number", strconv.Atoi); err != nil {
			return err
		}
		f.IntVar(&p.number, flags[i], p.number, "port of "+p.what+", on 127.0.0.1 ("+p.variable+")")
	}
	broker := func(name string) (string, error) { return name, knownBroker(name) }
	if err := fromEnv("BROKER", &c.broker, kfakeBroker+" or "+apacheBroker, broker); err != nil {
		return err
	}
	if err := fromEnv("PARTITIONS", &c.partitions, "a number", strconv.Atoi); err != nil {
		return err
	}
	if err := fromEnv("SYNC_WRITES", &c.syncWrites, "1 or 0", strconv.ParseBool); err != nil {
		return err
	}
	f.IntVar(&c.partitions, "partitions", c.partitions, "partitions of the events topic when it is created (PARTITIONS)")
	f.BoolVar(&c.syncWrites, "sync-writes", c.syncWrites, "the broker fsyncs every batch before it acknowledges it (SYNC_WRITES)")
	f.StringVar(&c.broker, "broker", c.broker, "kfake, which needs nothing installed, or apache: Kafka itself, on Java (BROKER)")
	f.StringVar(&c.root, "root", ".", "root of the working copy")
	f.StringVar(&c.bin, "bin", "", "directory of the binaries (default ROOT/.local/bin)")
	f.StringVar(&c.data, "data", "", "data directory (default ROOT/.local/data)")
	return nil
}

func fromEnv[T any](name string, into *T, want string, parse func(string) (T, error)) error {
	text := os.Getenv(name)
	if text == "" {
		return nil
	}
	v, err := parse(text)
	if err != nil {
		return fmt.Errorf("%s=%q: want %s", name, text, want)
	}
	*into = v
	return nil
}

// complete makes the paths absolute and checks what needs no look at the
// machine.
func (c *config) complete() (err error) {
	if c.root, err = filepath.Abs(c.root); err != nil {
		return err
	}
	for path, below := range map[*string]string{&c.bin: "bin", &c.data: "data"} {
		if *path == "" {
			*path = filepath.Join(c.root, ".local", below)
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	if err := knownBroker(c.broker); err != nil {
		return err
	}
	if c.partitions < 1 {
		return fmt.Errorf("PARTITIONS=%d: want at least 1", c.partitions)
	}
	taken := map[int]*port{}
	for _, p := range c.ports() {
		if p.number < 1 || p.number > 65535 {
			return fmt.Errorf("%s=%d: want a port, 1 to 65535", p.variable, p.number)
		}
		if other := taken[p.number]; other != nil {
			return fmt.Errorf("%s and %s are both %d: give one of them another port", other.variable, p.variable, p.number)
		}
		taken[p.number] = p
	}
	return nil
}

func knownBroker(name string) error {
	if name != kfakeBroker && name != apacheBroker {
		return fmt.Errorf("--broker %s: want %s or %s", name, kfakeBroker, apacheBroker)
	}
	return nil
}

// apacheDir is where Apache Kafka keeps its data.
func (c *config) apacheDir() string { return filepath.Join(c.data, "apache") }

// The environments below are the services' whole configuration: they are run as
// anywhere else, and only where things are differs.

// sharedEnv is what both services are told.
func (c *config) sharedEnv() []string {
	return []string{"SLUICE_KAFKA_BROKERS=" + c.kafka.address()}
}

func (c *config) ingestEnv() []string {
	return append(c.sharedEnv(),
		"SLUICE_HTTP_ADDRESS="+c.http.address(),
		"SLUICE_ADMIN_ADDRESS="+c.ingestAdmin.address(),
		"SLUICE_SPOOL_DIR="+filepath.Join(c.data, "ingest-spool"))
}

func (c *config) consumerEnv() []string {
	return append(c.sharedEnv(),
		"SLUICE_ADMIN_ADDRESS="+c.consumerAdmin.address(),
		"SLUICE_STATUS_EDGES="+c.ingestAdmin.address(),
		"SLUICE_CLICKHOUSE_DSN=http://"+c.clickhouse.address()+"/sluice",
		"SLUICE_TOPICS_PARTITIONS="+strconv.Itoa(c.partitions))
}

// memberEnv is for the one consumer that the supervisor keeps: killed and
// started again it takes its own place. A second one, started by hand with
// consumerEnv, must not take it.
func (c *config) memberEnv() []string {
	return append(c.consumerEnv(), "SLUICE_GROUP_INSTANCE_ID=local")
}
