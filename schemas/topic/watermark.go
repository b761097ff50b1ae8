package topic

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Watermark is what an edge promises, in a record of [Control] under the key
// [WatermarkKey]: every event that it accepted and whose received_at is before
// LowWater had been acknowledged by the log when this record was sent. So a
// reader that has this record, and has read the log up to where it ended at any
// later moment, has every such event.
//
// An edge sends one about every second while the log takes it. The promise of
// the last one stands for as long as the edge is away: it may have accepted
// events that are on its disk.
type Watermark struct {
	// Edge names the edge. The name goes where its spool goes.
	Edge string `json:"edge"`
	// Instance is a process of it: another after every start.
	Instance string `json:"instance"`
	// LowWater is a whole number of milliseconds, as received_at is. It never
	// falls within one instance.
	LowWater time.Time `json:"low_water"`
	// At is when this was said, by the edge's clock.
	At time.Time `json:"at"`
	// Spooled are the records on its disk.
	Spooled int `json:"spooled"`
	// Retired: the edge has stopped in order with nothing on its disk. It holds
	// nothing back until it speaks again.
	Retired bool `json:"retired"`
}

const watermarkPrefix = "watermark/"

// WatermarkKey is the key of an edge's watermarks.
func WatermarkKey(edge string) string { return watermarkPrefix + edge }

// Record returns the key and the value.
func (w Watermark) Record() (key, value []byte, err error) {
	value, err = json.Marshal(w)
	return []byte(WatermarkKey(w.Edge)), value, err
}

// ParseWatermark reads a record of [Control]. ok is false for one that is about
// something else, and for a deleted watermark (a tombstone).
func ParseWatermark(key, value []byte) (w Watermark, ok bool, err error) {
	edge, ours := strings.CutPrefix(string(key), watermarkPrefix)
	if !ours || len(value) == 0 {
		return w, false, nil
	}
	if err = json.Unmarshal(value, &w); err == nil && w.Edge != edge {
		err = errors.New("the value names another edge")
	}
	if err != nil {
		return Watermark{}, false, fmt.Errorf("control record %q: %w", key, err)
	}
	return w, true, nil
}
