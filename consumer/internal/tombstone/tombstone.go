// Package tombstone knows what was taken on purpose, by erasure or retention, so
// that it never returns: neither by a late duplicate nor by a replay.
package tombstone

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"sluice/consumer/internal/dedup"
	"sluice/schemas/event"
)

// MaxAge is how old what is known may be when something is decided by it. Who
// writes a tombstone and waits this long knows that whatever is read from the log
// afterwards is decided by it. It is the same for owners and commands, so it can't be
// configured; tests, in which both are one program, make it shorter before they begin.
var MaxAge = 2 * time.Second

// Set is what was taken. The zero value is nothing. It is not changed once made.
type Set struct {
	// Before: what occurred before it is expired; the zero time means nothing is.
	Before time.Time
	actors map[actor]time.Time
}

type actor struct {
	source string // "": any
	hash   [sha256.Size]byte
}

// HashOf is how a tombstone names an actor.
func HashOf(actorID string) [sha256.Size]byte { return sha256.Sum256([]byte(actorID)) }

// Erase adds to s while it is made: the actor's events up to a moment, of one
// source or, with source empty, of all.
func (s *Set) Erase(hash [sha256.Size]byte, source string, upto time.Time) {
	if s.actors == nil {
		s.actors = map[actor]time.Time{}
	}
	at := actor{source, hash}
	if upto.After(s.actors[at]) {
		s.actors[at] = upto
	}
}

// Expired tells whether retention has taken what occurred then.
func (s *Set) Expired(at time.Time) bool { return !s.Before.IsZero() && at.Before(s.Before) }

// Fate is [dedup.Expired] or [dedup.Erased] for an event that was taken; taken is
// false for all others.
func (s *Set) Fate(e *event.Event) (fate dedup.Fate, taken bool) {
	if s.Expired(e.OccurredAt) {
		return dedup.Expired, true
	}
	if len(s.actors) == 0 {
		return "", false
	}
	hash := HashOf(e.ActorID)
	for _, source := range [...]string{"", e.Source} {
		if upto, ok := s.actors[actor{source, hash}]; ok && !e.OccurredAt.After(upto) {
			return dedup.Erased, true
		}
	}
	return "", false
}

// Read reads all that was taken.
func Read(ctx context.Context, conn driver.Conn) (*Set, error) {
	rows, err := conn.Query(ctx, "SELECT toString(kind), source, actor, upto FROM tombstones FINAL")
	if err != nil {
		return nil, fmt.Errorf("what was erased or expired: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err below tells
	s := &Set{}
	for rows.Next() {
		var kind, source, name string
		var upto time.Time
		if err := rows.Scan(&kind, &source, &name, &upto); err != nil {
			return nil, fmt.Errorf("what was erased or expired: %w", err)
		}
		if kind == "before" {
			s.Before = upto
			continue
		}
		s.Erase([sha256.Size]byte([]byte(name)), source, upto)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("what was erased or expired: %w", err)
	}
	return s, nil
}

// Cache is a [Set] that is never older than [MaxAge]. It is for concurrent use.
type Cache struct {
	conn driver.Conn

	mu    sync.Mutex
	set   *Set
	asked time.Time
	sum   uint64 // over all lines
}

// NewCache asks conn when it is asked.
func NewCache(conn driver.Conn) *Cache { return &Cache{conn: conn} }

// Get returns what is known, which it asks ClickHouse for when it is too old. An
// error means that nothing may be decided.
func (c *Cache) Get(ctx context.Context) (*Set, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	// The wall clock too: the monotonic one stops in some suspends.
	if c.set != nil && max(now.Sub(c.asked), now.Round(0).Sub(c.asked.Round(0))) < MaxAge {
		return c.set, nil
	}
	// Of what they say, and not of when they were written: clocks go back, and
	// merges take lines away.
	var sum uint64
	if err := c.conn.QueryRow(ctx, "SELECT sum(cityHash64(kind, source, actor, upto)) FROM tombstones").Scan(&sum); err != nil {
		return nil, fmt.Errorf("whether anything was erased or expired: %w", err)
	}
	if c.set == nil || sum != c.sum {
		set, err := Read(ctx, c.conn)
		if err != nil {
			return nil, err
		}
		c.set, c.sum = set, sum
	}
	c.asked = now
	return c.set, nil
}
