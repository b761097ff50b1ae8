package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/ingest/internal/limit"
)

// Config says where the keys are.
type Config struct {
	// KeysFile is the file of keys.
	KeysFile string
	// PepperFile is the file of the pepper. Default: KeysFile and ".pepper".
	PepperFile string
}

// Pepper is where the pepper is.
func (c Config) Pepper() string {
	if c.PepperFile != "" {
		return c.PepperFile
	}
	return c.KeysFile + ".pepper"
}

// Why a request is not let in.
var (
	// ErrNoKey: the request has no key.
	ErrNoKey = errors.New("no key is given")
	// ErrWrongKey: the key is not one of ours, or is disabled or expired. Which
	// of these it is, is not told.
	ErrWrongKey = errors.New("the key is not valid")
	// ErrSeveralKeys: the request has more than one.
	ErrSeveralKeys = errors.New("several keys are given")
)

// Client is who sent a request that was let in.
type Client struct {
	// ID is the key's.
	ID string
	// BodyBytes narrows a request's body; 0: not at all.
	BodyBytes int64
	// Bucket is what the key may send; nil: as much as it likes.
	Bucket *limit.Bucket

	hash    [sha256.Size]byte
	refused bool // disabled
	expires time.Time
	exact   map[string]struct{}
	prefix  []string
}

// May tells whether the client may send events of that source.
func (c *Client) May(source string) bool {
	if _, ok := c.exact[source]; ok {
		return true
	}
	for _, p := range c.prefix {
		if strings.HasPrefix(source, p) {
			return true
		}
	}
	return false
}

// Store holds the keys that were last read without an error. It is safe for
// concurrent use.
type Store struct {
	cfg     Config
	log     *slog.Logger
	pepper  Pepper
	clients atomic.Pointer[map[string]*Client]
	loading sync.Mutex
	broken  atomic.Pointer[string]
	never   Client // what an unknown id is compared with

	reloads *prometheus.CounterVec
}

// Open reads the pepper and the keys. It fails if either cannot be read.
func Open(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Store, error) {
	pepper, err := ReadPepper(cfg.Pepper())
	if err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg, log: log, pepper: pepper,
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_ingest_key_reloads_total",
			Help: "Readings of the file of keys, by result.",
		}, []string{"result"}),
	}
	s.broken.Store(new(string))
	for _, result := range []string{"ok", "error"} {
		s.reloads.WithLabelValues(result)
	}
	if reg != nil {
		reg.MustRegister(s.reloads)
	}
	return s, s.Reload()
}

// Reload reads the file of keys anew. If it is wrong the keys in force stay. A
// key whose rate and burst are what they were keeps what it has used.
func (s *Store) Reload() error {
	s.loading.Lock()
	defer s.loading.Unlock()
	entries, err := ReadFile(s.cfg.KeysFile)
	if err != nil {
		s.reloads.WithLabelValues("error").Inc()
		text := err.Error()
		s.broken.Store(&text)
		if s.clients.Load() != nil {
			s.log.Error("keys not reloaded: those read before stay in force", "error", err)
		}
		return err
	}
	var old map[string]*Client
	if p := s.clients.Load(); p != nil {
		old = *p
	}
	clients := make(map[string]*Client, len(entries))
	for _, e := range entries {
		clients[e.ID] = client(e, old[e.ID])
	}
	s.clients.Store(&clients)
	s.reloads.WithLabelValues("ok").Inc()
	s.broken.Store(new(string))
	s.log.Info("keys loaded", "file", s.cfg.KeysFile, "keys", len(clients))
	return nil
}

// Error is why the file as it is now is not in force; "" when it is.
func (s *Store) Error() string { return *s.broken.Load() }

// Watched is the file of keys.
func (s *Store) Watched() string { return s.cfg.KeysFile }

func client(e Entry, old *Client) *Client {
	c := &Client{ID: e.ID, BodyBytes: e.BodyBytes, refused: e.Disabled, expires: e.Expires, exact: map[string]struct{}{}}
	sum, _ := hex.DecodeString(e.Hash) // Validate has
	copy(c.hash[:], sum)
	for _, src := range e.Sources {
		if p, ok := strings.CutSuffix(src, "*"); ok {
			c.prefix = append(c.prefix, p)
		} else {
			c.exact[src] = struct{}{}
		}
	}
	if e.Rate > 0 {
		burst := e.Burst
		if burst == 0 {
			burst = max(1, int(2*e.Rate))
		}
		if old != nil && old.Bucket != nil && old.Bucket.Is(e.Rate, burst) {
			c.Bucket = old.Bucket
		} else {
			c.Bucket = limit.NewBucket(e.Rate, burst)
		}
	}
	return c
}

// Authenticate tells who sent a request with these headers: Authorization:
// Bearer <key>, or X-Api-Key: <key>. The comparison takes the same time whether
// the id is known or not.
func (s *Store) Authenticate(h http.Header, now time.Time) (*Client, error) {
	key, err := given(h)
	if err != nil {
		return nil, err
	}
	id := idOf(key)
	c, known := (*s.clients.Load())[id]
	if !known {
		c = &s.never
	}
	sum := s.pepper.Hash(key)
	same := subtle.ConstantTimeCompare(sum[:], c.hash[:]) == 1
	switch {
	case !same || !known, c.refused, !c.expires.IsZero() && !now.Before(c.expires):
		return nil, ErrWrongKey
	}
	return c, nil
}

func given(h http.Header) (string, error) {
	bearer, plain := h["Authorization"], h["X-Api-Key"]
	switch {
	case len(bearer)+len(plain) == 0:
		return "", ErrNoKey
	case len(bearer)+len(plain) > 1:
		return "", ErrSeveralKeys
	case len(plain) == 1:
		return plain[0], nil
	}
	scheme, key, ok := strings.Cut(bearer[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return "", fmt.Errorf("%w: Authorization is not a Bearer token", ErrNoKey)
	}
	return strings.TrimLeft(key, " "), nil
}
