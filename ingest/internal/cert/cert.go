// Package cert holds the edge's certificate, read again when its files change.
package cert

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config says where the certificate is.
type Config struct {
	// CertFile and KeyFile are PEM: the chain, and its private key. Default "": no
	// TLS.
	CertFile, KeyFile string
	// ClientCAFile holds, as PEM, the authorities one of which must have signed
	// each client's certificate. Default "": clients need none.
	ClientCAFile string
}

// On tells whether there is TLS at all.
func (c Config) On() bool { return c.CertFile != "" }

// Files are those that Config names.
func (c Config) Files() []string {
	files := []string{c.CertFile, c.KeyFile}
	if c.ClientCAFile != "" {
		files = append(files, c.ClientCAFile)
	}
	return files
}

// Validate tells what is missing.
func (c Config) Validate() error {
	if (c.CertFile == "") != (c.KeyFile == "") {
		return errors.New("set both cert_file and key_file")
	}
	if c.ClientCAFile != "" && !c.On() {
		return errors.New("client_ca_file needs cert_file and key_file")
	}
	return nil
}

// Store is the certificate that was last read without an error. It is safe for
// concurrent use.
type Store struct {
	cfg     Config
	log     *slog.Logger
	current atomic.Pointer[tls.Config]
	broken  atomic.Pointer[string]
	expires prometheus.Gauge
}

// Open reads the certificate.
func Open(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Store, error) {
	s := &Store{cfg: cfg, log: log, expires: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "sluice_ingest_certificate_expires_timestamp_seconds",
		Help: "When the certificate in use ends, Unix time.",
	})}
	s.broken.Store(new(string))
	if reg != nil {
		reg.MustRegister(s.expires)
	}
	return s, s.Reload()
}

// Reload reads the files anew. If anything is wrong with them, what was read
// before stays in use. Connections that stand are not touched.
func (s *Store) Reload() error {
	next, end, err := read(s.cfg)
	if err != nil {
		err = fmt.Errorf("certificate: %w", err)
		text := err.Error()
		s.broken.Store(&text)
		if s.current.Load() != nil {
			s.log.Error("certificate not reloaded: the one read before stays in use", "error", err)
		}
		return err
	}
	s.current.Store(next)
	s.broken.Store(new(string))
	s.expires.Set(float64(end.Unix()))
	s.log.Info("certificate loaded", "file", s.cfg.CertFile, "expires", end)
	return nil
}

// Error is why the files as they are now are not in use; "" when they are.
func (s *Store) Error() string { return *s.broken.Load() }

// Config is for a listener; every handshake asks for what is current.
func (s *Store) Config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return s.current.Load(), nil
		},
	}
}

func read(cfg Config) (*tls.Config, time.Time, error) {
	pair, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
	if err != nil {
		return nil, time.Time{}, err
	}
	c := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"h2", "http/1.1"},
		Certificates: []tls.Certificate{pair},
	}
	if cfg.ClientCAFile != "" {
		pem, err := os.ReadFile(cfg.ClientCAFile)
		if err != nil {
			return nil, time.Time{}, err
		}
		c.ClientCAs = x509.NewCertPool()
		if !c.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, time.Time{}, fmt.Errorf("%s holds no certificate", cfg.ClientCAFile)
		}
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return c, pair.Leaf.NotAfter, nil
}
