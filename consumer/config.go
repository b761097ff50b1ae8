package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/doctor"
	"sluice/consumer/internal/group"
	"sluice/deploy/service"
	"sluice/deploy/service/trace"
	"sluice/schemas/topic"
)

// config is everything the consumer and its commands can be told.
type config struct {
	Log        service.Log   `mapstructure:"log"`
	Admin      service.Admin `mapstructure:"admin"`
	GC         service.GC    `mapstructure:"gc"`
	Kafka      service.Kafka `mapstructure:"kafka"`
	ClickHouse struct {
		DSN     string `mapstructure:"dsn" secret:"true" help:"http://host:8123/database or clickhouse://host:9000/database"`
		Cluster string `mapstructure:"cluster" help:"make Replicated and Distributed tables on this cluster; empty: a single server"`
	} `mapstructure:"clickhouse"`
	Batch  batch.Limits `mapstructure:"batch"`
	Budget struct {
		InsertsPerSecond float64 `mapstructure:"inserts_per_second" help:"most INSERTs of rows a second over all partitions of this process, but for full batches; batches grow to stay within"`
	} `mapstructure:"budget"`
	Group struct {
		ID             string         `mapstructure:"id" help:"consumer group"`
		InstanceID     string         `mapstructure:"instance_id" help:"static membership (KIP-345): this process's own name in the group"`
		Protocol       group.Protocol `mapstructure:"protocol" help:"classic (members assign, cooperatively), eager, broker (KIP-848), or auto (broker where it can); the same for all members"`
		SessionTimeout time.Duration  `mapstructure:"session_timeout" help:"silence after which the broker gives a member's partitions away"`
		RevokeTimeout  time.Duration  `mapstructure:"revoke_timeout" help:"how long a partition taken away may finish its batch"`
		CloseAfter     time.Duration  `mapstructure:"close_after" help:"how long a batch's closing commit waits for the next intent"`
		IntentFresh    time.Duration  `mapstructure:"intent_fresh" help:"age of an intent past which it is committed again before its INSERT"`
	} `mapstructure:"group"`
	Index struct {
		Bytes int64         `mapstructure:"bytes" help:"memory for known keys, shared by all partitions of this process (9 to 14 bytes a key)"`
		Live  time.Duration `mapstructure:"live" help:"how far back keys are loaded first when a partition is assigned"`
		Loads int           `mapstructure:"loads" help:"most loads of keys from ClickHouse at a time"`
	} `mapstructure:"index"`
	Topics struct {
		Partitions  int32         `mapstructure:"partitions" help:"partitions of the events topic when \"topics ensure\" creates it"`
		Replication int16         `mapstructure:"replication" help:"replicas of each partition when \"topics ensure\" creates a topic"`
		Retention   time.Duration `mapstructure:"retention" help:"how long the log keeps events when \"topics ensure\" creates the topic"`
	} `mapstructure:"topics"`
	Retention struct {
		Keep time.Duration `mapstructure:"keep" help:"what \"consumer retention\" keeps when it is given no time; 0: it must be given one"`
	} `mapstructure:"retention"`
	Status struct {
		Edges []string `mapstructure:"edges" help:"admin addresses of edges, host:port, that \"consumer status\" asks too; empty: none"`
	} `mapstructure:"status"`
	Doctor doctor.Config `mapstructure:"doctor"`
	Trace  trace.Config  `mapstructure:"trace"`
}

func defaults() config {
	var c config
	c.Log = service.DefaultLog()
	c.Admin.Address = "127.0.0.1:8082"
	c.GC = service.DefaultGC(2 << 30)
	c.Kafka = service.DefaultKafka("sluice-consumer")
	c.ClickHouse.DSN = "http://127.0.0.1:8123/sluice"
	c.Batch = batch.DefaultLimits()
	c.Budget.InsertsPerSecond = 20
	c.Group.ID = topic.Group
	c.Group.Protocol = group.Classic
	c.Group.SessionTimeout = 10 * time.Second
	c.Group.RevokeTimeout = 5 * time.Second
	c.Group.CloseAfter = 5 * time.Millisecond
	c.Group.IntentFresh = 3 * time.Second
	c.Index.Bytes = 512 << 20
	c.Index.Live = 2 * time.Hour
	c.Index.Loads = 2
	c.Topics.Partitions = 4
	c.Topics.Replication = 1
	c.Topics.Retention = 7 * 24 * time.Hour
	c.Doctor = doctor.DefaultConfig()
	c.Trace = trace.DefaultConfig()
	return c
}

func (c config) validate() error {
	var errs []error
	_, logErr := service.NewLogger(io.Discard, c.Log)
	errs = append(errs, logErr, c.Kafka.Validate(), c.GC.Validate(), c.Batch.Validate(), c.Doctor.Validate(), c.Trace.Validate(), c.Group.Protocol.Validate())
	if c.Group.ID == "" {
		errs = append(errs, errors.New("group.id must be set"))
	}
	if c.Group.IntentFresh >= c.Group.SessionTimeout {
		errs = append(errs, fmt.Errorf("group.intent_fresh (%s) must be less than group.session_timeout (%s): an intent must not outlive the membership it was made under",
			c.Group.IntentFresh, c.Group.SessionTimeout))
	}
	if c.Budget.InsertsPerSecond <= 0 {
		errs = append(errs, errors.New("budget.inserts_per_second must be positive"))
	}
	if c.Index.Bytes < 1<<20 || c.Index.Loads < 1 {
		errs = append(errs, errors.New("index.bytes must be at least 1048576 and index.loads at least 1"))
	}
	if c.Topics.Partitions < 1 || c.Topics.Replication < 1 {
		errs = append(errs, errors.New("topics.partitions and topics.replication must be at least 1"))
	}
	return errors.Join(errs...)
}

// edgeSections are the edge's parts of a shared environment.
var edgeSections = []string{"http", "limits", "produce", "spool", "shutdown", "ingest", "auth", "schemas", "insecure", "known", "admission"}

func load(cmd *cobra.Command) (config, error) {
	c, err := service.Load(defaults(), service.FromProcess(cmd.Flags(), edgeSections...))
	if err != nil {
		return c, err
	}
	return c, c.validate()
}
