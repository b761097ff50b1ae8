package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"sluice/deploy/chaos/internal/evidence"
	"sluice/deploy/chaos/internal/plan"
	"sluice/deploy/chaos/internal/process"
)

// newBroker says how the broker is run: it listens on port and tells clients to
// connect to advertise.
func newBroker(cfg config, data string, port int, advertise string) (broker, error) {
	if cfg.broker != "kfake" {
		return broker{}, errors.New("BROKER=apache is not there yet")
	}
	return broker{
		port: port,
		spec: process.Spec{
			Name: plan.Broker, Path: filepath.Join(filepath.Dir(data), "bin", "broker"),
			Args: []string{"--port", strconv.Itoa(port), "--advertise", advertise, "--data", data},
		},
		settle: func(ctx context.Context, log *evidence.Log) error {
			return shortSessions(ctx, log.Admin(), cfg.session)
		},
	}, nil
}

// shortSessions lets members ask for a session timeout below the default's 6 s,
// so that a round that waits for one to end is short.
func shortSessions(ctx context.Context, admin *kadm.Client, session time.Duration) error {
	ms := strconv.FormatInt(session.Milliseconds(), 10)
	altered, err := admin.AlterBrokerConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "group.min.session.timeout.ms", Value: &ms}})
	for _, a := range altered {
		err = errors.Join(err, a.Err)
	}
	if err != nil {
		return fmt.Errorf("setting group.min.session.timeout.ms: %w", err)
	}
	return nil
}
