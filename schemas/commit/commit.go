// Package commit is the contract for the metadata of the consumer group's
// commits: how a commit of ours is known, and what others may read from it. What
// else stands there is the consumer's own.
package commit

import (
	"encoding/json"
	"strings"

	"github.com/google/uuid"
)

// Name begins the metadata of every commit of ours; the format's number and a
// space follow, then JSON.
const Name = "sluice/"

// Prefix begins the metadata of the format described here.
const Prefix = Name + "1 "

// Mark is what anyone may read from a commit of ours. Such a commit at offset n
// says that every record before n is decided, and that what became of it stands
// in ClickHouse, whether a batch from n on is under way or not.
type Mark struct {
	// Log is the id of the log that n counts in: the topic's id, or another one
	// past a cut.
	Log uuid.UUID
	// Topic is the topic's id.
	Topic uuid.UUID
	// Partitions is the topic's partition count that records are decided by: one
	// whose key belongs to another partition was not made a row here but
	// forwarded.
	Partitions int32
}

// Parse reads a commit's metadata; false when they are not of this format, so
// that the commit's offset says nothing.
func Parse(metadata string) (Mark, bool) {
	text, ours := strings.CutPrefix(metadata, Prefix)
	if !ours {
		return Mark{}, false
	}
	var m struct {
		Log        uuid.UUID `json:"topic_id"`
		Topic      uuid.UUID `json:"topic"`
		Partitions int32     `json:"partitions"`
	}
	if err := json.Unmarshal([]byte(text), &m); err != nil || m.Log == uuid.Nil || m.Partitions < 1 {
		return Mark{}, false
	}
	if m.Topic == uuid.Nil {
		m.Topic = m.Log
	}
	return Mark{Log: m.Log, Topic: m.Topic, Partitions: m.Partitions}, true
}
