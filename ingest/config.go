package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"sluice/deploy/service"
	"sluice/deploy/service/trace"
	"sluice/ingest/internal/admission"
	"sluice/ingest/internal/httpapi"
	"sluice/ingest/internal/known"
	"sluice/ingest/internal/mode"
	"sluice/ingest/internal/produce"
	"sluice/ingest/internal/spool"
	"sluice/schemas/event"
	"sluice/schemas/topic"
)

// config is all that can be configured. "help" tags are the flags' usage texts.
type config struct {
	HTTP      httpConfig      `mapstructure:"http"`
	Admin     service.Admin   `mapstructure:"admin"`
	Kafka     service.Kafka   `mapstructure:"kafka"`
	Log       service.Log     `mapstructure:"log"`
	GC        service.GC      `mapstructure:"gc"`
	Limits    limitsConfig    `mapstructure:"limits"`
	Admission admissionConfig `mapstructure:"admission"`
	Produce   produceConfig   `mapstructure:"produce"`
	Spool     spoolConfig     `mapstructure:"spool"`
	Ingest    answerConfig    `mapstructure:"ingest"`
	Known     knownConfig     `mapstructure:"known"`
	Shutdown  shutdownConfig  `mapstructure:"shutdown"`
	Trace     trace.Config    `mapstructure:"trace"`
	Auth      authConfig      `mapstructure:"auth"`
	Schemas   schemasConfig   `mapstructure:"schemas"`
	Insecure  bool            `mapstructure:"insecure" help:"ask for no keys, wherever http.address is"`
}

type httpConfig struct {
	Address           string        `mapstructure:"address" help:"address that events are posted to"`
	ReadHeaderTimeout time.Duration `mapstructure:"read_header_timeout" help:"most time for a request's header to arrive"`
	ReadTimeout       time.Duration `mapstructure:"read_timeout" help:"most time for a whole request to arrive"`
	WriteTimeout      time.Duration `mapstructure:"write_timeout" help:"most time from a request's header to the end of its answer"`
	IdleTimeout       time.Duration `mapstructure:"idle_timeout" help:"how long a connection may wait for its next request"`
	MaxHeaderBytes    int           `mapstructure:"max_header_bytes" help:"most bytes of a request's header"`
	MaxConnections    int           `mapstructure:"max_connections" help:"most connections at a time; further ones wait to be accepted"`
	MaxPerAddress     int           `mapstructure:"max_connections_per_address" help:"most connections of one address (of IPv6, one /64) at a time; further ones are closed; 0: any number"`
	CORSOrigins       []string      `mapstructure:"cors_origins" help:"origins whose pages may post from a browser, separated by commas"`
	TLS               tlsConfig     `mapstructure:"tls"`
}

type limitsConfig struct {
	EventBytes    int64         `mapstructure:"event_bytes" help:"most bytes of an event"`
	BatchItems    int           `mapstructure:"batch_items" help:"most events of a batch"`
	BodyBytes     int64         `mapstructure:"body_bytes" help:"most bytes of a batch, as sent and decoded"`
	InFlightBytes int64         `mapstructure:"in_flight_bytes" help:"most bytes that all requests in flight hold"`
	Depth         int           `mapstructure:"depth" help:"how deep an event may be nested"`
	FieldBytes    int           `mapstructure:"field_bytes" help:"most bytes of source, event_type, actor_id, client_event_id"`
	MaxAhead      time.Duration `mapstructure:"max_ahead" help:"how far occurred_at may lie in the future; 0: unchecked"`
	MaxAge        time.Duration `mapstructure:"max_age" help:"how far occurred_at may lie in the past; 0: unchecked"`
}

type admissionConfig struct {
	Slack time.Duration `mapstructure:"slack" help:"how much longer than it must a request may take because of others before it: beyond that, new ones are refused; 0: for this none is"`
}

type answerConfig struct {
	Mode     string        `mapstructure:"mode" help:"async: answer once the log has the event; sync: once it can be queried. Switched while it runs: \"ingest mode --help\""`
	SyncWait time.Duration `mapstructure:"sync_wait" help:"most time that an answer waits for its event to be stored, in sync mode or by Prefer: wait"`
	Group    string        `mapstructure:"group" help:"the consumer group whose offsets tell what is stored: the consumer's group.id"`
}

type knownConfig struct {
	Bytes int64         `mapstructure:"bytes" help:"memory for keys lately acknowledged, whose repeats are not written again; 0: none"`
	Age   time.Duration `mapstructure:"age" help:"how long such a key is remembered at most"`
}

type produceConfig struct {
	AckTimeout    time.Duration `mapstructure:"ack_timeout" help:"how long a request waits for the log's acknowledgement"`
	Linger        time.Duration `mapstructure:"linger" help:"how long a partition waits for more records before it sends"`
	BufferBytes   int64         `mapstructure:"buffer_bytes" help:"most bytes of records not acknowledged yet"`
	Compression   string        `mapstructure:"compression" help:"none, snappy, lz4 or zstd"`
	ProbeInterval time.Duration `mapstructure:"probe_interval" help:"how often the log is asked whether it is there"`
}

type spoolConfig struct {
	Enabled    bool          `mapstructure:"enabled" help:"keep events on the disk while the log does not acknowledge them"`
	Dir        string        `mapstructure:"dir" help:"folder of the spool, of one process; empty: ingest-spool-PORT below $STATE_DIRECTORY, $XDG_STATE_HOME/sluice or ~/.local/state/sluice"`
	Bytes      int64         `mapstructure:"bytes" help:"most bytes of events on the disk"`
	After      time.Duration `mapstructure:"after" help:"how long an event waits for the log's acknowledgement before it is spooled"`
	DrainBytes int64         `mapstructure:"drain_rate_bytes" help:"most bytes a second that go from the spool to the log, beside live traffic"`
	Edge       string        `mapstructure:"edge" help:"name of this edge in its watermarks and on the records it makes; empty: made with the folder, and kept there"`
}

type shutdownConfig struct {
	Grace time.Duration `mapstructure:"grace" help:"how long to go on serving, not ready, before stopping: for load balancers to notice"`
	Drain time.Duration `mapstructure:"drain" help:"most time for requests in flight to finish"`
	Flush time.Duration `mapstructure:"flush" help:"most time after that for records to be acknowledged"`
}

// defaults is the configuration of an edge that is told nothing.
func defaults() config {
	limits := httpapi.DefaultConfig()
	send := produce.DefaultConfig("")
	repeats := known.DefaultConfig()
	keep := spool.DefaultConfig("")
	return config{
		HTTP: httpConfig{
			Address:           "127.0.0.1:8080",
			ReadHeaderTimeout: 5 * time.Second,
			ReadTimeout:       30 * time.Second,
			WriteTimeout:      90 * time.Second,
			IdleTimeout:       2 * time.Minute,
			MaxHeaderBytes:    32 << 10,
			MaxConnections:    10_000,
			MaxPerAddress:     5_000,
		},
		Admin: service.Admin{Address: "127.0.0.1:8081"},
		Kafka: service.DefaultKafka("sluice-ingest"),
		Log:   service.DefaultLog(),
		GC:    service.DefaultGC(1 << 30),
		Limits: limitsConfig{
			EventBytes:    limits.EventBytes,
			BatchItems:    limits.BatchItems,
			BodyBytes:     limits.BodyBytes,
			InFlightBytes: limits.InFlightBytes,
			Depth:         limits.Event.Depth,
			FieldBytes:    limits.Event.FieldBytes,
			MaxAhead:      limits.Event.MaxAhead,
			MaxAge:        limits.Event.MaxAge,
		},
		Admission: admissionConfig(admission.DefaultConfig()),
		Ingest:    answerConfig{Mode: string(mode.Async), SyncWait: limits.SyncWait, Group: topic.Group},
		Known:     knownConfig{Bytes: repeats.Bytes, Age: repeats.Age},
		Produce: produceConfig{
			AckTimeout:    send.AckTimeout,
			Linger:        send.Linger,
			BufferBytes:   send.BufferBytes,
			Compression:   send.Compression,
			ProbeInterval: send.ProbeInterval,
		},
		Spool: spoolConfig{
			Enabled: true,
			Bytes:   keep.Bytes, After: keep.After, DrainBytes: keep.DrainBytes,
		},
		Schemas:  schemasConfig{Unregistered: passUnregistered},
		Trace:    trace.DefaultConfig(),
		Shutdown: shutdownConfig{Drain: 15 * time.Second, Flush: 10 * time.Second},
	}
}

// load reads and checks the configuration of cmd.
func load(cmd *cobra.Command, environ []string) (config, error) {
	cfg, err := service.Load(defaults(), service.Source{
		Flags:   cmd.Flags(),
		Environ: environ,
		// The consumer's sections.
		Foreign: []string{"clickhouse", "batch", "group", "topics", "index", "budget", "doctor", "retention", "status"},
	})
	if err != nil {
		return cfg, err
	}
	return cfg, cfg.validate()
}

func (c config) validate() error {
	if err := c.Kafka.Validate(); err != nil {
		return err
	}
	if err := c.GC.Validate(); err != nil {
		return err
	}
	if err := c.validateAccess(); err != nil {
		return err
	}
	if err := c.Trace.Validate(); err != nil {
		return err
	}
	if err := c.api().Validate(); err != nil {
		return fmt.Errorf("limits: %w", err)
	}
	if err := admission.Config(c.Admission).Validate(); err != nil {
		return fmt.Errorf("admission: %w", err)
	}
	if err := c.producer().Validate(); err != nil {
		return fmt.Errorf("produce: %w", err)
	}
	if err := c.spool("unset").Validate(); err != nil && c.Spool.Enabled {
		return err
	}
	if err := c.known().Validate(); err != nil {
		return fmt.Errorf("known: %w", err)
	}
	if _, err := mode.Parse(c.Ingest.Mode); err != nil {
		return fmt.Errorf("ingest.%w", err)
	}
	if c.Ingest.Group == "" {
		return errors.New("ingest.group must be set: the consumer's group.id")
	}
	h := c.HTTP
	switch {
	case h.ReadHeaderTimeout <= 0 || h.ReadTimeout < h.ReadHeaderTimeout || h.IdleTimeout <= 0:
		return errors.New("http: read_header_timeout and idle_timeout must be more than 0, read_timeout at least read_header_timeout")
	case h.WriteTimeout < h.ReadTimeout+2*c.Produce.AckTimeout+c.Ingest.SyncWait:
		// Twice: a post may wait for another of its key, and go itself then.
		return fmt.Errorf("http.write_timeout is %v, want at least read_timeout, twice produce.ack_timeout and ingest.sync_wait together, %v",
			h.WriteTimeout, h.ReadTimeout+2*c.Produce.AckTimeout+c.Ingest.SyncWait)
	case h.MaxConnections < 1 || h.MaxHeaderBytes < 1024:
		return errors.New("http: max_connections must be at least 1, max_header_bytes at least 1024")
	case c.Shutdown.Grace < 0 || c.Shutdown.Drain <= 0 || c.Shutdown.Flush <= 0:
		return errors.New("shutdown: drain and flush must be more than 0, grace not negative")
	}
	return nil
}

func (c config) api() httpapi.Config {
	l := c.Limits
	return httpapi.Config{
		Event:         event.Limits{FieldBytes: l.FieldBytes, Depth: l.Depth, MaxAhead: l.MaxAhead, MaxAge: l.MaxAge},
		EventBytes:    l.EventBytes,
		BatchItems:    l.BatchItems,
		BodyBytes:     l.BodyBytes,
		InFlightBytes: l.InFlightBytes,
		SyncWait:      c.Ingest.SyncWait,
	}
}

func (c config) known() known.Config { return known.Config(c.Known) }

func (c config) producer() produce.Config {
	return produce.Config{
		Topic:         c.Kafka.Topic,
		AckTimeout:    c.Produce.AckTimeout,
		Linger:        c.Produce.Linger,
		BufferBytes:   c.Produce.BufferBytes,
		Compression:   c.Produce.Compression,
		ProbeInterval: c.Produce.ProbeInterval,
	}
}

// spool is the spool's configuration in the folder dir.
func (c config) spool(dir string) spool.Config {
	s := c.Spool
	return spool.Config{Dir: dir, Bytes: s.Bytes, After: s.After, DrainBytes: s.DrainBytes, Edge: s.Edge}
}
