package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/netutil"

	"sluice/deploy/service"
	"sluice/deploy/service/trace"
	"sluice/ingest/internal/admission"
	"sluice/ingest/internal/complete"
	"sluice/ingest/internal/health"
	"sluice/ingest/internal/httpapi"
	"sluice/ingest/internal/limit"
	"sluice/ingest/internal/page"
	"sluice/ingest/internal/produce"
	"sluice/schemas"
)

// serve runs the edge until ctx ends, then stops in order: readiness off, a
// grace for load balancers, requests in flight, the producer's flush. listening
// is told the two addresses once both listen; it may be nil.
func serve(ctx context.Context, cfg config, again rereading, log *slog.Logger, listening func(events, admin net.Addr)) error {
	repeats := service.NewRepeats(log.Handler())
	log = slog.New(repeats)
	reg := service.NewRegistry()
	build := service.ReadBuild()
	service.RegisterBuild(reg, "sluice_ingest", build)
	tracer, err := trace.New(ctx, cfg.Trace, "sluice-ingest", build.Version)
	if err != nil {
		return err
	}
	defer tracer.Close(ctx, log)
	access, err := openAccess(cfg, log, reg)
	if err != nil {
		return err
	}
	defer access.close()
	// Before anything else is taken: a port in use is what is wrong then, and not
	// the spool's folder, which has its name from the port.
	events, err := service.Listen(ctx, cfg.HTTP.Address, "http.address")
	if err != nil {
		return err
	}
	defer func() { _ = events.Close() }() // its server has closed it, unless there was none
	admin, err := service.Listen(ctx, cfg.Admin.Address, "admin.address")
	if err != nil {
		return err
	}
	defer func() { _ = admin.Close() }()
	common := append(cfg.Kafka.Options(log), service.KafkaMetrics(reg, "sluice_ingest"))
	producer, err := produce.New(cfg.producer(), log, reg, common...)
	if err != nil {
		return err
	}
	stopProducer := func() error {
		bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.Shutdown.Flush)
		defer cancel()
		return producer.Stop(bound)
	}
	kept, err := openSpool(cfg, producer, log, reg)
	if err != nil {
		return errors.Join(err, stopProducer())
	}
	// stopLog brings to the log what can be within the bound; the rest stays in
	// the spool.
	stopLog := func() error {
		bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.Shutdown.Flush)
		defer cancel()
		kept.finish(bound)
		return errors.Join(producer.Stop(bound), kept.close())
	}
	gin.SetMode(gin.ReleaseMode)
	answers, err := newAnswers(cfg, kept.before(producer), producer.TopicID, log, reg)
	if err != nil {
		return errors.Join(err, stopLog())
	}
	defer answers.client.Close()
	if again.file != "" {
		access.watch.Add(answers.source(again.file))
	}
	limits := cfg.api()
	limits.Edge, limits.Guard = kept.edge(cfg), access.guard
	limiter := admission.NewLimiter(admission.Config(cfg.Admission), reg)
	limits.Limiter = limiter
	api, err := httpapi.New(limits, answers.parts, log, reg)
	if err != nil {
		return errors.Join(err, stopLog())
	}
	pages, err := page.Documents(schemas.OpenAPI)
	if err != nil {
		return errors.Join(err, stopLog())
	}
	if listening != nil {
		listening(events.Addr(), admin.Addr())
	}

	board := health.NewBoard(log, reg)
	pages["/health"] = board.Handler()
	board.Add(health.Check{Name: "kafka", Probe: kept.probe(producer.Check), Every: cfg.Produce.ProbeInterval, Timeout: produce.CheckTimeout, Takes: true})
	kept.watch(board, producer)
	whole := complete.NewFollower(log)
	board.Completeness(whole.Last)
	for _, c := range access.checks() {
		board.Add(c)
	}
	// Each part has a context of its own, so that they end in order; one that
	// fails ends all.
	running, fail := context.WithCancelCause(context.WithoutCancel(ctx))
	defer fail(nil)
	defer context.AfterFunc(ctx, func() { fail(nil) })()
	eventsCtx, endEvents := context.WithCancel(context.WithoutCancel(ctx))
	defer endEvents()
	adminCtx, endAdmin := context.WithCancel(context.WithoutCancel(ctx))
	defer endAdmin()

	var errs struct {
		sync.Mutex
		all []error
	}
	var eventsDone, rest sync.WaitGroup
	start := func(wg *sync.WaitGroup, run func() error) {
		wg.Go(func() {
			if err := run(); err != nil {
				errs.Lock()
				errs.all = append(errs.all, err)
				errs.Unlock()
				fail(err)
			}
		})
	}
	start(&rest, func() error { board.Run(adminCtx); return nil })
	start(&rest, func() error { return whole.Run(adminCtx, cfg.Kafka.Control, cfg.Kafka.Options(log)...) })
	start(&rest, func() error { limiter.Run(adminCtx); return nil })
	start(&rest, func() error { admission.GiveBack(adminCtx, api.InFlightBytes); return nil })
	feed := page.NewFeed(page.Source{
		Metrics: reg, Health: board.Report, Errors: repeats.Recent, Build: build,
		Mode: func() string { return string(answers.mode.State().Mode) },
	})
	start(&rest, func() error { feed.Run(adminCtx); return nil })
	start(&rest, func() error { answers.follower.Run(adminCtx); return nil })
	start(&rest, func() error { answers.switching(adminCtx, again, cfg.Ingest.Mode, log); return nil })
	kept.run()
	start(&rest, func() error { access.run(adminCtx); return nil })
	start(&rest, func() error {
		mux := http.NewServeMux()
		mux.Handle("/", service.AdminHandler(reg, board.Ready))
		mux.Handle("/mode", answers.mode.Handler())
		mux.Handle("GET /health", board.Handler())
		for path, h := range feed.Pages() {
			mux.Handle("GET "+path, h)
		}
		mux.HandleFunc("GET /spool", kept.serve)
		mux.HandleFunc("POST /schemas/reload", access.reloadSchemas)
		// A page in a browser on this machine must not turn switches.
		own := ownHost(cfg.Admin.Address, http.NewCrossOriginProtection().Handler(mux))
		srv := &http.Server{Handler: own, ReadHeaderTimeout: cfg.HTTP.ReadHeaderTimeout}
		return service.Serve(adminCtx, admin, srv, time.Second, log)
	})
	refused := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "sluice_ingest_connections_refused_total",
		Help: "Connections closed because their address had too many.",
	})
	reg.MustRegister(refused)
	start(&eventsDone, func() error {
		limited := limit.NewListener(netutil.LimitListener(events, cfg.HTTP.MaxConnections), cfg.HTTP.MaxPerAddress, refused.Inc)
		routes := tracer.Requests(api.Handler(board.Ready, pages), "/api/events", "/api/events/batch")
		return service.Serve(eventsCtx, access.secured(limited), server(cfg.HTTP, crossOrigin(cfg.HTTP.CORSOrigins, routes)), cfg.Shutdown.Drain, log)
	})
	log.Info("listening", "events", events.Addr().String(), "admin", admin.Addr().String(), "brokers", cfg.Kafka.Brokers, "topic", cfg.Kafka.Topic)

	<-running.Done()
	board.Stopping()
	log.Info("stopping", "grace", cfg.Shutdown.Grace, "drain", cfg.Shutdown.Drain, "flush", cfg.Shutdown.Flush)
	if ctx.Err() != nil { // told to, not failed
		time.Sleep(cfg.Shutdown.Grace)
	}
	endEvents()
	eventsDone.Wait()
	if err := stopLog(); err != nil {
		// Every request has its answer by now: these were answered with a 503.
		log.Warn("gave up records that no one was told are in the log", "error", err)
	}
	endAdmin()
	rest.Wait()
	if err := errors.Join(errs.all...); err != nil {
		return fmt.Errorf("stopped, but not in order: %w", err)
	}
	log.Info("stopped")
	return nil
}

func server(cfg httpConfig, h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: cfg.ReadHeaderTimeout,
		ReadTimeout:       cfg.ReadTimeout,
		WriteTimeout:      cfg.WriteTimeout,
		IdleTimeout:       cfg.IdleTimeout,
		MaxHeaderBytes:    cfg.MaxHeaderBytes,
		ConnContext:       httpapi.ConnContext,
	}
}
