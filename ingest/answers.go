package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/ingest/internal/delivery"
	"sluice/ingest/internal/httpapi"
	"sluice/ingest/internal/known"
	"sluice/ingest/internal/mode"
	"sluice/ingest/internal/reload"
	"sluice/ingest/internal/stored"
)

// answers is what decides how an accepted event is answered: the mode, what is
// known of repeats, and what is stored already.
type answers struct {
	parts    httpapi.Parts
	mode     *mode.Switch
	follower *stored.Follower
	client   *kgo.Client   // of the follower
	changed  chan struct{} // the configuration file has changed
}

// newAnswers puts them before log. Close the client when no one waits any more.
func newAnswers(cfg config, log delivery.Log, topicID func() uuid.UUID, logger *slog.Logger, reg *prometheus.Registry) (*answers, error) {
	if cfg.Known.Bytes > 0 {
		k, err := known.New(cfg.known(), log, topicID, reg)
		if err != nil {
			return nil, err
		}
		log = k
	}
	// A client of its own: a request for offsets that a broker holds up must not
	// stand before a produce.
	client, err := kgo.NewClient(cfg.Kafka.Options(logger)...)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	a := &answers{
		mode:     mode.NewSwitch(mode.Mode(cfg.Ingest.Mode), logger, reg),
		follower: stored.New(stored.NewKafka(client, cfg.Ingest.Group, cfg.Kafka.Topic), logger, reg),
		client:   client,
		changed:  make(chan struct{}, 1),
	}
	a.parts = httpapi.Parts{Log: log, Stored: a.follower, Sync: a.mode.Sync, Now: time.Now}
	return a, nil
}

// rereading reads the configuration again: the file, with the environment and the
// flags of the start above it.
type rereading struct {
	file string // "": none
	load func() (config, error)
}

// source is the configuration file, as something to be watched.
func (a *answers) source(file string) reload.Source {
	return reload.Source{Name: "configuration", Paths: []string{file}, Reload: func() error {
		select {
		case a.changed <- struct{}{}:
		default: // told already, and not looked at yet
		}
		return nil
	}}
}

// switching switches the mode until ctx ends: SIGUSR1 to sync, SIGUSR2 to async,
// SIGHUP to what the configuration says now; and to what the file says whenever
// another mode stands there than did before. Nothing else of the configuration
// takes effect before a restart.
func (a *answers) switching(ctx context.Context, again rereading, was string, log *slog.Logger) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGHUP)
	defer signal.Stop(signals)
	read := func() (mode.Mode, bool) {
		if again.load == nil {
			return "", false
		}
		cfg, err := again.load()
		if err != nil {
			log.Error("the configuration is not read again, and the mode stays", "error", err)
			return "", false
		}
		return mode.Mode(cfg.Ingest.Mode), true
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.changed:
			if m, ok := read(); ok && string(m) != was {
				was = string(m)
				a.mode.Set(m, "file")
			}
		case s := <-signals:
			switch s {
			case syscall.SIGUSR1:
				a.mode.Set(mode.Sync, "signal")
			case syscall.SIGUSR2:
				a.mode.Set(mode.Async, "signal")
			case syscall.SIGHUP:
				if m, ok := read(); ok {
					was = string(m)
					a.mode.Set(m, "signal")
				}
			}
		}
	}
}
