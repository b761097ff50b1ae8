package topic

import (
	"encoding/json"
	"fmt"
	"time"
)

// CompleteKey is the key in [Control] under which a [Completeness] stands.
const CompleteKey = "complete_through"

// Completeness is what the consumer has proved last: every event that an edge
// accepted with received_at before CompleteThrough can be queried. It is said for
// those that can't ask ClickHouse; the table completeness is what holds.
type Completeness struct {
	// CompleteThrough never falls from one record to the next.
	CompleteThrough time.Time `json:"complete_through"`
	// HeldBy is the edge whose low-water mark it is.
	HeldBy string `json:"held_by"`
	// Edges are those that were not retired.
	Edges int `json:"edges"`
	// At is when it was said, by the consumer's clock.
	At time.Time `json:"at"`
}

// Record returns the key and the value.
func (c Completeness) Record() (key, value []byte, err error) {
	value, err = json.Marshal(c)
	return []byte(CompleteKey), value, err
}

// ParseCompleteness reads a record of [Control]. ok is false for one that is about
// something else, and for a deleted one (a tombstone).
func ParseCompleteness(key, value []byte) (c Completeness, ok bool, err error) {
	if string(key) != CompleteKey || len(value) == 0 {
		return c, false, nil
	}
	if err := json.Unmarshal(value, &c); err != nil {
		return Completeness{}, false, fmt.Errorf("control record %q: %w", key, err)
	}
	return c, true, nil
}
