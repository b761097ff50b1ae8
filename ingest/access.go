package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/cors"

	"sluice/ingest/internal/auth"
	"sluice/ingest/internal/cert"
	"sluice/ingest/internal/guard"
	"sluice/ingest/internal/health"
	"sluice/ingest/internal/reload"
	"sluice/ingest/internal/schema"
)

type authConfig struct {
	KeysFile   string `mapstructure:"keys_file" help:"file of API keys, written by \"ingest keys\""`
	PepperFile string `mapstructure:"pepper_file" help:"file of the secret that the keys' hashes are made with; by default keys_file with .pepper behind it"`
}

type schemasConfig struct {
	Dir          string `mapstructure:"dir" help:"directory of JSON Schemas, <event type>.v<number>.json"`
	Unregistered string `mapstructure:"unregistered" help:"what becomes of events whose type has no schema: pass or refuse"`
}

type tlsConfig struct {
	CertFile     string `mapstructure:"cert_file" help:"certificate chain, PEM; read again when it changes"`
	KeyFile      string `mapstructure:"key_file" help:"the certificate's private key, PEM"`
	ClientCAFile string `mapstructure:"client_ca_file" help:"authorities whose client certificates are required, PEM"`
}

// What schemas.unregistered may be.
const (
	passUnregistered   = "pass"
	refuseUnregistered = "refuse"
)

func (c config) keys() auth.Config {
	return auth.Config{KeysFile: c.Auth.KeysFile, PepperFile: c.Auth.PepperFile}
}

func (c config) tls() cert.Config {
	t := c.HTTP.TLS
	return cert.Config{CertFile: t.CertFile, KeyFile: t.KeyFile, ClientCAFile: t.ClientCAFile}
}

// validateAccess tells what is wrong with who may send what.
func (c config) validateAccess() error {
	switch {
	case c.Schemas.Unregistered != passUnregistered && c.Schemas.Unregistered != refuseUnregistered:
		return fmt.Errorf("schemas.unregistered is %q, want pass or refuse", c.Schemas.Unregistered)
	case c.Schemas.Unregistered == refuseUnregistered && c.Schemas.Dir == "":
		return errors.New("schemas.unregistered is refuse, and schemas.dir is not set: every event would be refused")
	case c.Insecure && c.Auth.KeysFile != "":
		return errors.New("insecure asks for no keys, auth.keys_file for some: set one of them")
	case c.Auth.PepperFile != "" && c.Auth.KeysFile == "":
		return errors.New("auth.pepper_file without auth.keys_file")
	case c.HTTP.MaxPerAddress < 0:
		return errors.New("http.max_connections_per_address must not be negative")
	}
	for _, o := range c.HTTP.CORSOrigins {
		if !strings.HasPrefix(o, "https://") && !strings.HasPrefix(o, "http://") || strings.Contains(o, "*") {
			return fmt.Errorf("http.cors_origins: %q: want origins such as https://shop.example, each in full", o)
		}
	}
	if err := c.tls().Validate(); err != nil {
		return fmt.Errorf("http.tls: %w", err)
	}
	if c.Insecure || c.Auth.KeysFile != "" || c.HTTP.TLS.ClientCAFile != "" || loopback(c.HTTP.Address) {
		return nil
	}
	return fmt.Errorf("http.address %s can be reached from other machines, and no keys are asked for: "+
		"make some with \"ingest keys add\" and set auth.keys_file, or require client certificates with "+
		"http.tls.client_ca_file, or listen on 127.0.0.1; --insecure lets everyone in", c.HTTP.Address)
}

// loopback tells whether only this machine can reach address.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// access is who may send what, and what is read again when its files change.
type access struct {
	guard   *guard.Guard
	keys    *auth.Store      // nil: no keys are asked for
	schemas *schema.Registry // with no directory: everything passes
	cert    *cert.Store      // nil: no TLS
	watch   *reload.Watcher
}

// openAccess reads keys, schemas and certificates. It fails if any of them is
// wrong: an edge does not start with less than it was told. What it returns must be
// closed.
func openAccess(cfg config, log *slog.Logger, reg prometheus.Registerer) (*access, error) {
	a := new(access)
	var err error
	if a.watch, err = reload.New(log); err != nil {
		return nil, err
	}
	if err := a.open(cfg, log, reg); err != nil {
		a.close()
		return nil, err
	}
	a.guard = guard.New(a.keys, a.schemas, time.Now, log, reg)
	return a, nil
}

func (a *access) close() { a.watch.Close() }

func (a *access) open(cfg config, log *slog.Logger, reg prometheus.Registerer) (err error) {
	if dir := cfg.Schemas.Dir; dir != "" {
		a.watch.Add(reload.Source{Name: "schemas", Paths: []string{dir}, Reload: func() error { return a.schemas.Reload() }})
	}
	a.schemas, err = schema.Open(schema.Config{
		Dir: cfg.Schemas.Dir, RefuseUnregistered: cfg.Schemas.Unregistered == refuseUnregistered,
	}, log, reg)
	if err != nil {
		return err
	}
	if file := cfg.Auth.KeysFile; file != "" {
		a.watch.Add(reload.Source{Name: "keys", Paths: []string{file}, Reload: func() error { return a.keys.Reload() }})
		if a.keys, err = auth.Open(cfg.keys(), log, reg); err != nil {
			return err
		}
	}
	if t := cfg.tls(); t.On() {
		a.watch.Add(reload.Source{Name: "certificates", Paths: t.Files(), Reload: func() error { return a.cert.Reload() }})
		a.cert, err = cert.Open(t, log, reg)
	}
	return err
}

// checks are what /health says of it.
func (a *access) checks() []health.Check {
	var out []health.Check
	add := func(name string, state func() string) {
		out = append(out, health.Check{Name: name, Probe: func(context.Context) error {
			if s := state(); s != "" {
				return errors.New("what was read before is in force: " + s)
			}
			return nil
		}})
	}
	if a.schemas.Watched() != "" {
		add("schemas", func() string { return a.schemas.State().Error })
	}
	if a.keys != nil {
		add("keys", a.keys.Error)
	}
	if a.cert != nil {
		add("certificates", a.cert.Error)
	}
	return out
}

// run reads again what changes, and everything after a SIGHUP, until ctx ends.
func (a *access) run(ctx context.Context) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.watch.Run(ctx)
	}()
	for {
		select {
		case <-hup:
			a.watch.Now()
		case <-done:
			return
		}
	}
}

// reloadSchemas serves POST /schemas/reload of the admin port: 200 and the set in
// force, or 409 and why what the directory holds is not.
func (a *access) reloadSchemas(w http.ResponseWriter, _ *http.Request) {
	status := http.StatusOK
	err := a.schemas.Reload()
	state := a.schemas.State()
	if err != nil {
		status, state.Error = http.StatusConflict, err.Error()
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(state) // the client has left
}

// secured puts TLS around l, if it is configured. Nothing may be put around what
// it returns: HTTP/2 needs to see it as it is.
func (a *access) secured(l net.Listener) net.Listener {
	if a.cert == nil {
		return l
	}
	return tls.NewListener(l, a.cert.Config())
}

// crossOrigin lets pages of the configured origins post from a browser. Without
// any, a browser's preflight is answered as any other method that a path does not
// take, and the browser posts nothing.
func crossOrigin(origins []string, h http.Handler) http.Handler {
	origins = slices.DeleteFunc(slices.Clone(origins), func(o string) bool { return o == "" })
	if len(origins) == 0 {
		return h
	}
	return cors.New(cors.Options{
		AllowedOrigins: origins,
		AllowedMethods: []string{http.MethodPost},
		AllowedHeaders: []string{
			"Authorization", "X-Api-Key", "Content-Type", "Content-Encoding", "Prefer",
			"X-Event-Id", "X-Request-Id", "Traceparent",
			"Ce-Id", "Ce-Source", "Ce-Specversion", "Ce-Type", "Ce-Subject", "Ce-Time", "Ce-Dataschema",
		},
		ExposedHeaders: []string{"X-Request-Id", "Retry-After", "RateLimit", "RateLimit-Policy", "Preference-Applied"},
		MaxAge:         600,
	}).Handler(h)
}
