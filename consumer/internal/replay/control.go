// Package replay is how a command asks the partitions' owners to read a range
// again, and hears how far they are: through the compacted control topic, so
// that no one but the owner ever writes a partition's rows.
package replay

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Request asks for one partition's range to be read again. It is the value of
// the key [RequestKey], which is deleted (a tombstone) when the run is over.
type Request struct {
	Run uuid.UUID `json:"run"`
	// Operation is the command's run, of which this may be one range of many.
	Operation uuid.UUID `json:"operation"`
	TopicID   uuid.UUID `json:"topic_id"`
	Partition int32     `json:"partition"`
	From      int64     `json:"from"`
	To        int64     `json:"to"`
	// Filter says which records are meant.
	Filter
	// Rate is the most records a second of this partition; 0: as fast as live
	// batches allow.
	Rate float64   `json:"rate,omitempty"`
	By   string    `json:"by"`
	At   time.Time `json:"at"`
}

// Progress is an owner's answer, under the key [ProgressKey].
type Progress struct {
	Run       uuid.UUID `json:"run"`
	Partition int32     `json:"partition"`
	// Next is the first offset not compared yet, To the range's end.
	Next int64 `json:"next"`
	To   int64 `json:"to"`
	// Records were compared; Written rows and Journaled fates were missing.
	Records   int    `json:"records"`
	Written   int    `json:"written"`
	Journaled int    `json:"journaled"`
	Done      bool   `json:"done"`
	Error     string `json:"error,omitempty"`
}

const prefix = "replay/"

// RequestKey and ProgressKey name a run's partition in the control topic.
func RequestKey(run uuid.UUID, partition int32) string {
	return prefix + run.String() + "/" + strconv.Itoa(int(partition)) + "/request"
}

// ProgressKey is where the owner's answers to [RequestKey] stand.
func ProgressKey(run uuid.UUID, partition int32) string {
	return prefix + run.String() + "/" + strconv.Itoa(int(partition)) + "/progress"
}

// message is one record of the control topic that concerns replays.
type message struct {
	run       uuid.UUID
	partition int32
	request   *Request
	progress  *Progress
	deleted   bool
}

// parse reads a record of the control topic. ok is false for records that are
// about something else; an error is one of ours that can't be read.
func parse(key, value []byte) (m message, ok bool, err error) {
	rest, ours := strings.CutPrefix(string(key), prefix)
	if !ours {
		return m, false, nil
	}
	parts := strings.Split(rest, "/")
	if len(parts) != 3 {
		return m, false, fmt.Errorf("control record %q: want replay/run/partition/what", key)
	}
	if m.run, err = uuid.Parse(parts[0]); err != nil {
		return m, false, fmt.Errorf("control record %q: %w", key, err)
	}
	p, err := strconv.ParseInt(parts[1], 10, 32)
	if err != nil {
		return m, false, fmt.Errorf("control record %q: %w", key, err)
	}
	m.partition, m.deleted = int32(p), len(value) == 0
	if m.deleted {
		return m, parts[2] == "request", nil
	}
	switch parts[2] {
	case "request":
		m.request = &Request{}
		err = json.Unmarshal(value, m.request)
	case "progress":
		m.progress = &Progress{}
		err = json.Unmarshal(value, m.progress)
	default:
		return m, false, nil
	}
	if err != nil {
		return m, false, fmt.Errorf("control record %q: %w", key, err)
	}
	return m, true, nil
}
