package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"sluice/deploy/chaos/internal/evidence"
	"sluice/deploy/chaos/internal/plan"
	"sluice/deploy/chaos/internal/process"
	"sluice/deploy/local/apache"
)

// broker is what stands behind the proxy of Kafka's protocol.
type broker struct {
	spec process.Spec
	// settle is run once, when it first answers.
	settle func(context.Context, *evidence.Log) error
}

// sessions are the settings by which a broker bounds or, in the protocol in which
// it assigns, decides how long a silent member is waited for. With their defaults
// of 6 s and more every round that waits for a session's end would be long.
func sessions(session time.Duration) map[string]string {
	return map[string]string{
		"group.min.session.timeout.ms":             milliseconds(session),
		"group.consumer.min.session.timeout.ms":    milliseconds(session),
		"group.consumer.session.timeout.ms":        milliseconds(session),
		"group.consumer.min.heartbeat.interval.ms": milliseconds(session / 5),
		"group.consumer.heartbeat.interval.ms":     milliseconds(session / 5),
	}
}

// newBroker says how the broker is run: it listens on port and tells clients to
// connect to advertise. What it needs is installed and prepared.
func newBroker(ctx context.Context, cfg config, dir string, port int, advertise string) (broker, error) {
	data := filepath.Join(dir, "broker")
	if cfg.broker == apacheBroker {
		return newApache(ctx, cfg, data, port, advertise)
	}
	return broker{
		spec: process.Spec{
			Name: plan.Broker, Path: filepath.Join(dir, "bin", "broker"),
			Args: []string{"--port", strconv.Itoa(port), "--advertise", advertise, "--data", data},
		},
		settle: func(ctx context.Context, log *evidence.Log) error {
			return alter(ctx, log.Admin(), sessions(cfg.session))
		},
	}, nil
}

// newApache is one node of Apache Kafka itself.
func newApache(ctx context.Context, cfg config, data string, port int, advertise string) (broker, error) {
	library, err := apache.Ensure(ctx, apache.Dir(cfg.root), os.Stderr)
	if err != nil {
		return broker{}, err
	}
	settings := sessions(cfg.session)
	settings["advertised.listeners"] = "BROKER://" + advertise
	c, err := apache.New(apache.Config{
		Library: library, Dir: data, Ports: []int{port}, Quick: true, Settings: settings,
	})
	if err != nil {
		return broker{}, err
	}
	if err := c.Prepare(ctx); err != nil {
		return broker{}, err
	}
	path, args := c.Command(c.Nodes()[0])
	return broker{
		spec:   process.Spec{Name: plan.Broker, Path: path, Args: args},
		settle: func(context.Context, *evidence.Log) error { return nil },
	}, nil
}

// linger is how long connections to the broker outlive their clients. kfake
// never expires a member that was killed while it waited to be let into the
// group: it begins the session when it has answered, and on a connection that
// was reset it cannot. Such a member holds its partitions for ever.
func linger(cfg config) time.Duration {
	if cfg.broker == apacheBroker {
		return 0
	}
	return 3 * cfg.session
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// alter sets settings of the broker.
func alter(ctx context.Context, admin *kadm.Client, settings map[string]string) error {
	var configs []kadm.AlterConfig
	for name, value := range settings {
		configs = append(configs, kadm.AlterConfig{Op: kadm.SetConfig, Name: name, Value: &value})
	}
	altered, err := admin.AlterBrokerConfigs(ctx, configs)
	for _, a := range altered {
		err = errors.Join(err, a.Err)
	}
	if err != nil {
		return fmt.Errorf("setting the broker's %v: %w", settings, err)
	}
	return nil
}
