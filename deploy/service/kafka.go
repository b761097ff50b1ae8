package service

import (
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kprom"
	"github.com/twmb/franz-go/plugin/kslog"

	"sluice/schemas/topic"
)

// Kafka says where the log is.
type Kafka struct {
	// Brokers are the seeds, host:port. Default 127.0.0.1:9092.
	Brokers []string `mapstructure:"brokers" help:"seed brokers, host:port, separated by commas"`
	// ClientID names this process to the brokers. Default: the service's name.
	ClientID string `mapstructure:"client_id" help:"name of this process to the brokers"`
	// Topic, DeadLetters and Control are the topics' names.
	Topic       string `mapstructure:"topic" help:"topic of the events"`
	DeadLetters string `mapstructure:"dead_letters" help:"topic of what cannot become a row"`
	Control     string `mapstructure:"control" help:"topic of requests to the partitions' owners"`
}

// DefaultKafka is a broker on this machine and the contract's topics.
func DefaultKafka(clientID string) Kafka {
	return Kafka{
		Brokers:     []string{"127.0.0.1:9092"},
		ClientID:    clientID,
		Topic:       topic.Events,
		DeadLetters: topic.DeadLetters,
		Control:     topic.Control,
	}
}

// Validate tells what is missing.
func (k Kafka) Validate() error {
	switch {
	case len(k.Brokers) == 0:
		return errors.New("kafka.brokers: name at least one broker, host:port")
	case k.Topic == "" || k.DeadLetters == "" || k.Control == "":
		return errors.New("kafka.topic, kafka.dead_letters and kafka.control must be set")
	}
	return nil
}

// Options are the options every client of ours has: where the brokers are, who
// we are, our log, and a dial bound that lets a dead broker be noticed.
func (k Kafka) Options(log *slog.Logger) []kgo.Opt {
	return []kgo.Opt{
		kgo.SeedBrokers(k.Brokers...),
		kgo.ClientID(k.ClientID),
		kgo.DialTimeout(3 * time.Second),
		// Else each client pushes its telemetry to the broker (KIP-714) every
		// half minute; our metrics are on the admin port.
		kgo.DisableClientMetrics(),
		// A client that lost its broker tries again soon: the default's last
		// step of 2.5 s would be felt by whoever waits for the answer.
		kgo.RetryBackoffFn(func(tries int) time.Duration {
			return min(time.Duration(tries)*50*time.Millisecond, 500*time.Millisecond)
		}),
		kgo.WithLogger(kslog.New(clientLog(log))),
	}
}

// KafkaMetrics makes a client report to reg, its metrics' names beginning with
// namespace.
func KafkaMetrics(reg *prometheus.Registry, namespace string) kgo.Opt {
	return kgo.WithHooks(kprom.NewMetrics(namespace, kprom.Registry(reg), kprom.Subsystem("kafka")))
}
