package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/deploy/local/lock"
	"sluice/ingest/internal/control"
	"sluice/ingest/internal/delivery"
	"sluice/ingest/internal/health"
	"sluice/ingest/internal/produce"
	"sluice/ingest/internal/spool"
)

// spoolDir is the folder of the spool: the one configured, or one for this
// edge's port where a service keeps its state.
func (c config) spoolDir(environ func(string) string) (string, error) {
	if c.Spool.Dir != "" {
		return c.Spool.Dir, nil
	}
	_, port, err := net.SplitHostPort(c.HTTP.Address)
	if err != nil {
		return "", fmt.Errorf("http.address: %w", err)
	}
	name := "ingest-spool-" + port
	if dir := environ("STATE_DIRECTORY"); dir != "" { // systemd's
		return filepath.Join(dir, name), nil
	}
	if dir := environ("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "sluice", name), nil
	}
	if home := environ("HOME"); home != "" {
		return filepath.Join(home, ".local", "state", "sluice", name), nil
	}
	return "", errors.New("the spool needs a folder: set spool.dir (SLUICE_SPOOL_DIR), or spool.enabled to false")
}

// spooling is the spool as serve runs it; nil when it is turned off, and then
// every method does nothing.
type spooling struct {
	store  *spool.Store
	spool  *spool.Spool
	herald *spool.Herald
	log    *slog.Logger

	end  context.CancelFunc
	ctx  context.Context // of what run starts and close ends
	all  sync.WaitGroup
	tell context.CancelFunc // ends the herald, which must be silent before it retires
	told sync.WaitGroup
}

// openSpool takes the spool's folder, when there is to be one.
func openSpool(cfg config, producer *produce.Producer, log *slog.Logger, reg *prometheus.Registry) (*spooling, error) {
	if !cfg.Spool.Enabled {
		return nil, nil
	}
	dir, err := cfg.spoolDir(os.Getenv)
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	own := cfg.spool(dir)
	store, err := spool.Open(own, log)
	if err != nil {
		var held *lock.HeldError
		if errors.As(err, &held) {
			if _, port, _ := net.SplitHostPort(cfg.HTTP.Address); port == "0" && cfg.Spool.Dir == "" {
				return nil, fmt.Errorf("the spool %s is that of every edge with port 0, and process %d has it: give this edge a port, or a folder by spool.dir (SLUICE_SPOOL_DIR)", dir, held.PID)
			}
			return nil, fmt.Errorf("the spool %s belongs to process %d: stop that one, or give this edge another folder by spool.dir (SLUICE_SPOOL_DIR)", dir, held.PID)
		}
		return nil, err
	}
	st := store.Status()
	log.Info("the spool is open", "dir", dir, "edge", store.Edge(), "records", st.Records, "bytes", st.Bytes, "took", time.Since(begin).Round(time.Millisecond))
	k := &spooling{store: store, spool: spool.New(own, store, producer, log, reg), log: log}
	k.herald = spool.NewHerald(k.spool, controlTopic{cfg, producer, log}, log)
	k.ctx, k.end = context.WithCancel(context.Background())
	return k, nil
}

// edge is the name of this edge: the spool's, or without one what is configured.
func (k *spooling) edge(cfg config) string {
	if k == nil {
		return cfg.Spool.Edge
	}
	return k.store.Edge()
}

// controlTopic is the control topic of an edge that is configured so.
type controlTopic struct {
	cfg      config
	producer *produce.Producer
	log      *slog.Logger
}

func (c controlTopic) Tell(ctx context.Context, key, value []byte) (int64, error) {
	return c.producer.Tell(ctx, c.cfg.Kafka.Control, key, value)
}

func (c controlTopic) History(ctx context.Context, key []byte, end int64, each func(value []byte)) error {
	return control.History(ctx, c.cfg.Kafka.Control, key, end, each, c.cfg.Kafka.Options(c.log)...)
}

// before returns the log with the spool before it.
func (k *spooling) before(log delivery.Log) delivery.Log {
	if k == nil {
		return log
	}
	return k.spool
}

// firstLook is how long an edge that starts waits for its first sight of the log,
// and for its first watermark to stand there, before it says that it can take events, into the spool.
const firstLook = time.Second

// watch puts the spool on the board: an edge is ready while it takes events.
func (k *spooling) watch(board *health.Board, producer *produce.Producer) {
	if k == nil {
		return
	}
	looked := false
	board.Add(health.Check{Name: "spool", Takes: true, Probe: func(ctx context.Context) error {
		for end := time.Now().Add(firstLook); !looked && (producer.Ready() != nil || !k.spool.Announced()) && time.Now().Before(end); {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(10 * time.Millisecond):
			}
		}
		looked = true
		return k.spool.Ready()
	}})
}

// probe is check, and the first time that it finds the log well it waits for the
// edge's watermark to stand there, so that an edge that says it is ready need not
// spool.
func (k *spooling) probe(check func(context.Context) error) func(context.Context) error {
	if k == nil {
		return check
	}
	found := false
	return func(ctx context.Context) error {
		if err := check(ctx); err != nil || found {
			return err
		}
		found = true
		for end := time.Now().Add(firstLook); !k.spool.Announced() && time.Now().Before(end); {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(10 * time.Millisecond):
			}
		}
		return nil
	}
}

// run starts the drain and the herald.
func (k *spooling) run() {
	if k == nil {
		return
	}
	k.all.Go(func() { k.spool.Run(k.ctx) })
	var ctx context.Context
	ctx, k.tell = context.WithCancel(k.ctx)
	k.told.Go(func() { k.herald.Run(ctx) })
}

// finish drains what can be until ctx ends, and says farewell when that is all.
// No request may be under way.
func (k *spooling) finish(ctx context.Context) {
	if k == nil || k.tell == nil {
		return
	}
	k.tell()
	k.told.Wait()
	if left := k.spool.Finish(ctx); left > 0 {
		k.log.Warn("events stay in the spool until the next start", "records", left)
		return
	}
	if err := k.herald.Retire(ctx); err != nil {
		k.log.Warn("this edge's readers of watermarks wait for it until it starts again", "error", err)
	}
}

// close gives the folder back. The producer must have stopped.
func (k *spooling) close() error {
	if k == nil {
		return nil
	}
	k.end()
	k.all.Wait()
	return k.store.Close()
}

// serve answers with the spool's state.
func (k *spooling) serve(w http.ResponseWriter, _ *http.Request) {
	if k == nil {
		http.Error(w, "the spool is turned off (spool.enabled)", http.StatusNotFound)
		return
	}
	st, err := k.spool.State()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(st) // who asked has left
}
