// Package intent is what a commit of ours says in its metadata: the batch that
// is about to be written, or that nothing is.
package intent

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/failure"
	"sluice/schemas/commit"
	"sluice/schemas/event"
)

// The contract says how metadata of ours are known, since the edge knows them,
// too.
const (
	name   = commit.Name
	prefix = commit.Prefix
)

// ErrNewer: the metadata are of a format that this version does not know.
var ErrNewer = fmt.Errorf("%w: the commit was written by a newer version of sluice, whose batch may be under way: run that version, or a newer one", failure.ErrMend)

// Intent is committed to the group before a batch is written, at the batch's
// first offset. Brokers allow 4,096 bytes by default (offset.metadata.max.bytes);
// it takes about 150.
type Intent struct {
	// Last is the batch's last offset. The first is the commit's own.
	Last int64 `json:"last"`
	// TopicID tells a topic from another of the same name.
	TopicID uuid.UUID `json:"topic_id"`
	// Topic is the topic's own id, past a cut, when TopicID is another.
	Topic uuid.UUID `json:"topic,omitzero"`
	// Epoch is the leader epoch of the last record.
	Epoch int32 `json:"epoch"`
	// Hash is the batch's, in hexadecimal, by the rule version Rules.
	Hash string `json:"hash"`
	// Rules is the rule version the batch is decided by.
	Rules int `json:"rules"`
	// Partitions is the topic's partition count the batch is decided by.
	Partitions int32 `json:"partitions"`
	// CompareTo, if it is past Last, is the last offset up to which something may
	// have been written before that neither journal nor table show: whoever goes
	// on compares what it writes up to there.
	CompareTo int64 `json:"compare_to,omitempty"`
	// Reread is set while a journaled range is read again: its end, exclusive.
	// An owner that finds it goes on from the commit's offset to there.
	Reread int64 `json:"reread,omitempty"`
	// Closed: nothing is being written; all before the commit is journaled.
	Closed bool `json:"closed,omitempty"`
}

// Of is the intent to write b.
func Of(b *batch.Batch, topicID uuid.UUID, partitions int32) Intent {
	h := b.Hash()
	return Intent{
		Last: b.Last(), TopicID: topicID, Epoch: b.Records[len(b.Records)-1].Epoch,
		Hash: hex.EncodeToString(h[:]), Rules: event.RuleVersion, Partitions: partitions,
	}
}

// Begun tells whether b may be the batch that was begun: it ends where that did, and its
// hash is the same. By rules that this version does not know no hash can be made;
// what was written is compared by key all the same.
func (i Intent) Begun(b *batch.Batch) bool {
	var h event.Hash
	switch i.Rules {
	case event.RuleVersion:
		h = b.Hash()
	case 1:
		h = b.RawHash()
	default:
		return i.Last == b.Last()
	}
	return i.Last == b.Last() && i.Hash == hex.EncodeToString(h[:])
}

// ClosedAt says that all before next is journaled and nothing is being written.
func ClosedAt(next int64, topicID uuid.UUID, partitions int32) Intent {
	return Intent{Last: next - 1, TopicID: topicID, Epoch: -1, Rules: event.RuleVersion, Partitions: partitions, Closed: true}
}

// Metadata is the intent as a commit's metadata.
func (i Intent) Metadata() string {
	b, _ := json.Marshal(i) // a struct of plain fields: it cannot fail
	return prefix + string(b)
}

// Parse reads a commit's metadata. ok is false when it isn't ours. The error is
// [ErrNewer] for another format of ours, or says that ours can't be read.
func Parse(metadata string) (i Intent, ok bool, err error) {
	text, ours := strings.CutPrefix(metadata, prefix)
	if !ours {
		number, of, _ := strings.Cut(strings.TrimPrefix(metadata, name), " ")
		if n, err := strconv.Atoi(number); strings.HasPrefix(metadata, name) && of != "" && err == nil && n > 1 {
			return Intent{}, false, ErrNewer
		}
		return Intent{}, false, nil
	}
	if err := json.Unmarshal([]byte(text), &i); err != nil {
		return Intent{}, false, fmt.Errorf("the commit's metadata %q begins as ours and cannot be read: %w", metadata, err)
	}
	return i, true, nil
}

// Token names the INSERT of a batch by what its block holds, as far as the batch's hash
// tells it, since ClickHouse takes the token's word for it.
func Token(topicID uuid.UUID, partition int32, first, last int64, hash string) string {
	return fmt.Sprintf("%s%d/%d/%s", TokenPrefix(topicID, partition), first, last, hash)
}

// TokenPrefix is how every token of one log begins.
func TokenPrefix(logID uuid.UUID, partition int32) string {
	return fmt.Sprintf("%s%s/%d/", name, logID, partition)
}
