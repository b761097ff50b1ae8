package partition

import (
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/google/uuid"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/intent"
	"sluice/consumer/internal/store"
)

// A log is cut when records that were decided are gone from it and others come,
// or will come, at their offsets: after an unclean leader election, or a broker's
// loss of its last pages. It goes on as a log of another id, in which no offset
// has been decided.

// segment is a stretch of the partition that has one log id, from an offset on.
type segment struct {
	id   uuid.UUID
	from int64
}

// follow finds the log's present id: the last of those that followed the topic's.
func (o *Owner) follow(ctx context.Context) error {
	o.segments = []segment{{id: o.self.TopicID}}
	cuts, err := o.store.Cuts(ctx, o.self)
	if err != nil {
		return err
	}
	for _, c := range cuts {
		for len(o.segments) > 1 && o.segments[len(o.segments)-1].from >= c.At { // cut before it again
			o.segments = o.segments[:len(o.segments)-1]
		}
		o.segments = append(o.segments, segment{id: c.Next, from: c.At})
		o.self.TopicID = c.Next
	}
	return nil
}

// from is the first offset that belongs to the log's present id.
func (o *Owner) from() int64 { return o.segments[len(o.segments)-1].from }

// uncut tells whether all that was decided is still in the log; at is where it
// was cut if not. The end of the last batch's leader epoch tells it for certain
// (KIP-320), where the broker knows; else the log's end does.
func (o *Owner) uncut(ctx context.Context, end, journaled int64) (at int64, ok bool, err error) {
	self := o.self
	last, found, err := o.store.LastBatch(ctx, self)
	for i := len(o.segments) - 2; err == nil && !found && i >= 0; i-- { // nothing yet since the log was cut
		self.TopicID = o.segments[i].id
		if last, found, err = o.store.LastBatch(ctx, self); found {
			last.End = min(last.End, o.segments[i+1].from)
		}
	}
	if err != nil {
		return 0, false, err
	}
	o.epoch = -1
	if found {
		o.epoch, o.upTo = last.Epoch, last.End
	}
	if found && last.Epoch >= 0 {
		epochEnd, known, err := o.log.EpochEnd(ctx, last.Epoch)
		switch {
		case err != nil:
			return 0, false, err
		case known && epochEnd < last.End:
			return epochEnd, false, nil
		case known && end < journaled:
			return 0, false, fmt.Errorf("the broker says that the log ends at offset %d, and the journal at %d: waiting for it to catch up", end, journaled)
		case known:
			return 0, true, nil
		case end < journaled: // a leader that was deposed and does not know it
			return 0, false, fmt.Errorf("the broker does not know epoch %d, and its log ends at offset %d, the journal at %d: waiting for it to catch up", last.Epoch, end, journaled)
		}
	}
	return end, end >= journaled, nil
}

// passed tells, before a batch of a later leader epoch is begun, that the epoch
// before it ended where it was read to. A reader that waits at the log's end does
// not notice that it was cut below and filled again past it.
func (o *Owner) passed(ctx context.Context, b *batch.Batch) error {
	if o.epoch < 0 || b.Records[0].Epoch <= o.epoch {
		return nil
	}
	end, known, err := o.log.EpochEnd(ctx, o.epoch)
	if err != nil || !known || end >= o.upTo {
		return err
	}
	if err := o.cut(ctx, end, o.next, o.compareTo+1); err != nil {
		return err
	}
	return fmt.Errorf("%w: the log was cut at offset %d, where epoch %d ended", errAnew, end, o.epoch)
}

// cut ends the log at the offset at; what the journal and the table have of it
// goes up to beyond (exclusive).
func (o *Owner) cut(ctx context.Context, at, journaled, beyond int64) error {
	beyond = max(beyond, journaled, at+1)
	rows, err := o.store.RowsIn(ctx, o.self, at, beyond-1)
	if err != nil {
		return err
	}
	fates, err := o.store.FatesIn(ctx, o.self, at, beyond-1)
	if err != nil {
		return err
	}
	gone := len(rows)
	for offset := range fates {
		if _, row := rows[offset]; !row {
			gone++
		}
	}
	var entries []store.Entry
	if beyond > journaled { // rows that stand and that no batch speaks of
		n := uint64(0)
		for offset := range rows {
			if offset >= journaled {
				n++
			}
		}
		for offset := range fates {
			if _, row := rows[offset]; !row && offset >= journaled {
				n++
			}
		}
		entries = append(entries, store.Entry{Kind: store.Batch, Offset: journaled, Last: beyond - 1, Records: n, Rows: n, Epoch: -1})
	}
	next := successor(o.self.TopicID, o.cfg.Partition, at, beyond)
	entries = append(entries, store.Entry{
		Kind: store.CutAt, Offset: at, Last: beyond - 1, Fate: dedup.Cut, Records: uint64(gone), Epoch: -1,
		Detail: "gone from the log after it was decided; the log goes on under another id",
	})
	entries[len(entries)-1].First.TopicID = next
	entries[len(entries)-1].First.Partition = o.cfg.Partition
	entries[len(entries)-1].First.Offset = at
	o.logger.Error("the log was cut: records that were decided are gone from it (an unclean leader election, or a broker that lost what it had acknowledged)",
		"from", at, "to", beyond-1, "records", gone, "log_id", o.self.TopicID, "goes_on_as", next)
	token := intent.Token(o.self.TopicID, o.cfg.Partition, at, beyond-1, "cut")
	return o.note(ctx, token, o.self, entries)
}

// successor is the id of the log that follows a cut: a version-8 UUID (RFC 9562)
// of what it follows and where.
func successor(log uuid.UUID, partition int32, at, beyond int64) uuid.UUID {
	sum := sha256.Sum256(fmt.Appendf(nil, "sluice cut %s %d %d %d", log, partition, at, beyond))
	id := uuid.UUID(sum[:16])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id
}
