package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/time/rate"

	"sluice/consumer/internal/balance"
	"sluice/consumer/internal/doctor"
	"sluice/consumer/internal/failure"
	"sluice/consumer/internal/group"
	"sluice/consumer/internal/index"
	"sluice/consumer/internal/kafka"
	"sluice/consumer/internal/migrate"
	"sluice/consumer/internal/monitor"
	"sluice/consumer/internal/operations"
	"sluice/consumer/internal/partition"
	"sluice/consumer/internal/replay"
	"sluice/consumer/internal/store"
	"sluice/consumer/internal/tombstone"
	"sluice/deploy/service"
	"sluice/deploy/service/trace"
)

// run is the service: the admin server beside the consumer, until ctx ends.
func run(ctx context.Context, cfg config) error {
	log, err := service.NewLogger(os.Stderr, cfg.Log)
	if err != nil {
		return err
	}
	defer cfg.GC.Apply()()
	reg := service.NewRegistry()
	mon := monitor.New(reg)
	listener, err := service.Listen(ctx, cfg.Admin.Address, "admin.address")
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/", service.AdminHandler(reg, mon.Ready))
	mux.Handle("GET /status", mon.StatusHandler())
	mux.Handle("GET /readyz", mon.ReadyHandler())
	admin := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	served := make(chan error, 1)
	go func() { served <- service.Serve(serving, listener, admin, time.Second, log) }()

	err = consume(ctx, cfg, log, mon, service.KafkaMetrics(reg, "sluice_consumer"))
	stopServing()
	if serveErr := <-served; err == nil {
		err = serveErr
	}
	if err == nil {
		log.Info("stopped in order")
	}
	return err
}

// consume is the consumer itself: it returns when ctx has ended and every
// partition has been given up in order. extra are options for the group's client.
func consume(ctx context.Context, cfg config, log *slog.Logger, mon *monitor.Monitor, extra ...kgo.Opt) error {
	for {
		anew, err := consumeTopic(ctx, cfg, log, mon, extra...)
		if err != nil || !anew {
			return err
		}
		log.Warn("the topic was deleted and made again: beginning with the new one", "topic", cfg.Kafka.Topic)
	}
}

// consumeTopic consumes until ctx ends or, with anew, the topic is another.
func consumeTopic(ctx context.Context, cfg config, log *slog.Logger, mon *monitor.Monitor, extra ...kgo.Opt) (anew bool, err error) {
	opts := cfg.Kafka.Options(log)
	k, err := kafka.New(opts, kafka.Names{Topic: cfg.Kafka.Topic, DeadLetters: cfg.Kafka.DeadLetters, Group: cfg.Group.ID})
	if err != nil {
		return false, err
	}
	defer k.Close()
	st, err := store.Open(cfg.ClickHouse.DSN)
	if err != nil {
		return false, err
	}
	defer st.Close() //nolint:errcheck // nothing is left to be written
	look := func(ctx context.Context) error { return migrate.Check(ctx, st.Conn()) }
	if err := awaitSchema(ctx, look, mon.Waiting, log); err != nil {
		return false, err
	}
	setup := doctorSetup(cfg)
	watch := doctor.NewWatch(setup, func(ctx context.Context) doctor.Facts {
		return doctor.Gather(ctx, setup, st.Conn(), k.Admin())
	}, mon, log)
	switch err := watch.Start(ctx, mon.Waiting); {
	case ctx.Err() != nil:
		return false, nil
	case err != nil:
		return false, err
	}

	if err := claimTopic(ctx, cfg, k, st, log); err != nil {
		return false, nil // told to stop
	}

	// Owners outlive the signal to stop: they finish what they are at.
	owning, disown := context.WithCancel(context.WithoutCancel(ctx))
	defer disown()
	watcher, err := replay.NewWatcher(opts, cfg.Kafka.Control, log)
	if err != nil {
		return false, err
	}
	defer watcher.Close()
	prove, closeProver, err := proving(owning, cfg, opts, k, st, mon, log)
	if err != nil {
		return false, err
	}
	defer closeProver()
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer disown()
	tasks.Go(func() { watcher.Run(owning) })
	tasks.Go(prove.run)
	running, stop := context.WithCancel(ctx)
	defer stop()
	var again atomic.Bool
	tasks.Go(func() {
		if k.Watch(owning) {
			again.Store(true)
			stop()
		}
	})
	tasks.Go(func() { watch.Run(owning) })
	sheet := balance.New(balance.Config{}, st.Conn(), mon.Registerer(), log)
	defer sheet.Close()
	tasks.Go(func() { sheet.Run(owning) })
	lag := mon.NewLag(monitor.LagConfig{Topic: cfg.Kafka.Topic, Group: cfg.Group.ID}, k.Admin(), log)
	defer lag.Close()
	tasks.Go(func() { lag.Run(owning) })

	budget := rate.NewLimiter(rate.Limit(cfg.Budget.InsertsPerSecond), max(1, int(cfg.Budget.InsertsPerSecond/4)))
	turns := partition.NewTurns(partition.StepsAtOnce)
	audit := newAudit(st.Conn(), mon, log)
	tasks.Go(func() { audit.run(owning) })
	taken := tombstone.NewCache(st.Conn())
	gone := func(ctx context.Context) (partition.Gone, error) { return taken.Get(ctx) }
	keys := index.NewBudget(cfg.Index.Bytes, cfg.Index.Loads)
	tracer, err := trace.New(ctx, cfg.Trace, "sluice-consumer", service.ReadBuild().Version)
	if err != nil {
		return false, err
	}
	defer tracer.Close(ctx, log)
	rows := traceStore(st, tracer)
	start := func(ctx context.Context, stop <-chan struct{}, p int32, commit group.CommitFunc) {
		mon.Assigned(p)
		defer mon.Gone(p)
		defer prove.owns(p)()
		owner := partition.New(partition.Config{
			Topic: cfg.Kafka.Topic, Partition: p, Limits: cfg.Batch,
			CloseAfter: cfg.Group.CloseAfter, IntentFresh: cfg.Group.IntentFresh,
			Partitions: k.Partitions, Budget: budget, Turns: turns, Before: watch.Before,
			Gone: gone, Index: keys, IndexLive: cfg.Index.Live, Happened: audit.happened,
			Paused: func() (string, <-chan struct{}) { return watcher.Paused(p) },
			SkippedTo: func(logID uuid.UUID, offset int64) (int64, string) {
				return watcher.SkippedTo(logID, p, offset)
			},
		}, kafka.Owned{Log: k, Partition: p, CommitFunc: commit}, rows, mon, log)
		watcher.Own(ctx, p, owner)
		defer watcher.Disown(p, owner)
		// What must be mended ends the owner's context: nothing more is written.
		watch.Guard(ctx, stop, func(ctx context.Context) { owner.Run(ctx, stop) })
	}
	member, err := group.Join(owning, group.Config{
		Topic: cfg.Kafka.Topic, ID: cfg.Group.ID, InstanceID: cfg.Group.InstanceID, Protocol: cfg.Group.Protocol, Admin: k.Admin(),
		SessionTimeout: cfg.Group.SessionTimeout, RevokeTimeout: cfg.Group.RevokeTimeout, OnJoined: mon.Joined, OnError: mon.Unjoined,
	}, append(opts[:len(opts):len(opts)], extra...), log, start)
	if err != nil {
		return false, err
	}
	tasks.Go(func() { member.Run(owning) })
	<-running.Done()
	if ctx.Err() != nil {
		mon.Stopping()
	}
	log.Info("stopping: finishing the batches at hand")
	member.Leave()
	return again.Load(), nil
}

// claimTopic writes down that this group writes the topic's rows, for the doctors of
// others. It tries until that is written; an error is ctx's.
func claimTopic(ctx context.Context, cfg config, k *kafka.Log, st *store.Store, log *slog.Logger) error {
	for {
		id, _, err := k.Topic(ctx)
		if err == nil {
			err = operations.Log{Conn: st.Conn()}.Write(ctx, operations.GroupOf(id, cfg.Group.ID, who()))
		}
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		log.Warn("that this group writes the topic can't be written down yet", "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// awaitSchema waits until look, which asks ClickHouse for its schema, finds the
// one this program was built for. A wrong schema is an error at once, and so is
// what only a person can mend; an engine that goes away between two questions is
// waited for as one that was never there.
func awaitSchema(ctx context.Context, look func(context.Context) error, waiting func(error), log *slog.Logger) error {
	for {
		err := look(ctx)
		switch {
		case err == nil, ctx.Err() != nil:
			return nil //nolint:nilerr // being told to stop is no failure
		case errors.Is(err, migrate.ErrOutdated), errors.Is(err, migrate.ErrNewer), errors.Is(err, migrate.ErrDrift),
			failure.Of(err) == failure.Halt:
			return fmt.Errorf("clickhouse: %w", err)
		}
		log.Warn("ClickHouse does not answer", "error", err)
		waiting(fmt.Errorf("ClickHouse does not answer: %w", err))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// unregistered makes a monitor that no one scrapes, for commands that consume.
func unregistered() *monitor.Monitor { return monitor.New(prometheus.NewRegistry()) }
