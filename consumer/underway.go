package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/failure"
	"sluice/consumer/internal/intent"
	"sluice/consumer/internal/mutant"
	"sluice/consumer/internal/partition"
	"sluice/consumer/internal/tombstone"
	"sluice/consumer/internal/verify"
	"sluice/schemas/topic"
)

// underWay is a batch whose intent stands in the group.
type underWay struct {
	partition int32
	first     int64
	metadata  string
	in        intent.Intent
	journaled bool // its owner was about to close it, or was killed then
}

// underWay are the batches whose intents stand. An owner asks for tombstones when its
// intent does, so what was decided without the latest is among these. The journal's
// end tells of live batches when they are done, but not of ranges that are read again.
func (t *tools) underWay(ctx context.Context, ranges []verify.Range) ([]underWay, error) {
	var out []underWay
	for _, r := range ranges {
		w, err := t.kafka.Where(ctx, r.Self.Partition)
		if err != nil {
			return nil, err
		}
		in, ours, err := intent.Parse(w.Metadata)
		if err != nil {
			return nil, fmt.Errorf("partition %d: %w", r.Self.Partition, err)
		}
		if !ours || in.Closed {
			continue
		}
		u := underWay{partition: r.Self.Partition, first: w.Committed, metadata: w.Metadata, in: in}
		if in.Reread == 0 {
			seen, err := t.store.Seen(ctx, u.self())
			if err != nil {
				return nil, err
			}
			u.journaled = seen.End > in.Last
		}
		out = append(out, u)
	}
	return out, nil
}

func (u underWay) self() topic.Origin {
	return topic.Origin{TopicID: u.in.TopicID, Partition: u.partition}
}

// ended returns when a batch is done: when another commit stands in its place.
func (t *tools) ended(ctx context.Context, u underWay, deadline time.Time) error {
	for !u.journaled {
		now, err := t.kafka.Where(ctx, u.partition)
		if err != nil {
			return err
		}
		if now.Committed != u.first || now.Metadata != u.metadata {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("partition %d has a batch under way since before, from offset %d on: start a consumer, or wait until the one that has it goes on, and run this again", u.partition, u.first)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil
}

// seal writes what is taken of batches under their own tokens, unless it stands, so
// that it can be deleted; it returns how many rows it wrote. Another owner may have
// finished a batch and, since all of it was taken, written nothing: a late INSERT of
// the first would be stored.
func (t *tools) seal(ctx context.Context, under []underWay, taken *tombstone.Set) (sealed int, err error) {
	for _, u := range under {
		if mutant.On("taken-not-sealed") {
			break
		}
		start, _, err := t.kafka.Bounds(ctx, u.partition)
		if err != nil {
			return sealed, err
		}
		rows, err := t.takenOf(ctx, u, max(u.first, start), taken)
		if err != nil {
			return sealed, fmt.Errorf("reading the batch of partition %d from offset %d on: %w", u.partition, u.first, err)
		}
		n, err := t.sealed(ctx, u, rows)
		if sealed += n; err != nil {
			return sealed, err
		}
	}
	return sealed, nil
}

// sealed walks the tokens of a batch's mends until rows stand.
func (t *tools) sealed(ctx context.Context, u underWay, rows []*batch.Record) (written int, err error) {
	token := intent.Token(u.in.TopicID, u.partition, u.first, u.in.Last, u.in.Hash)
	for attempt := 0; ; attempt++ {
		if len(rows) == 0 {
			return written, nil
		}
		have, err := t.store.RowsIn(ctx, u.self(), u.first, u.in.Last)
		if err != nil {
			return written, err
		}
		rows = slices.DeleteFunc(rows, func(r *batch.Record) bool { return have[r.Offset] == r.ID })
		switch {
		case len(rows) == 0:
			return written, nil
		case attempt > partition.Mends:
			return written, fmt.Errorf("%d rows of partition %d are not in event_log although ClickHouse took them", len(rows), u.partition)
		}
		err = t.store.Rows(ctx, partition.MendToken(token, attempt), u.self(), rows)
		if err != nil && failure.Of(err) == failure.Refused {
			return written, nil // as it would be if it came late
		}
		if err != nil {
			return written, err
		}
		written = len(rows)
	}
}

// takenOf are the records of a batch that could be rows and are taken.
func (t *tools) takenOf(ctx context.Context, u underWay, from int64, taken *tombstone.Set) ([]*batch.Record, error) {
	if from > u.in.Last {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	reader, err := t.kafka.OpenSmall(u.partition, from)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	decoder := batch.NewDecoder(u.in.Partitions)
	var out []*batch.Record
	for reader.Position() <= u.in.Last {
		raws, err := reader.Next(ctx)
		if err != nil {
			return nil, err
		}
		for _, raw := range raws {
			if raw.Offset > u.in.Last {
				break
			}
			r := decoder.Decode(raw)
			if r.Reason != "" || r.Home != u.partition {
				continue
			}
			if _, ok := taken.Fate(&r.Event); ok {
				out = append(out, &r)
			}
		}
	}
	return out, nil
}
