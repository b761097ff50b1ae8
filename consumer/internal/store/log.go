package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"sluice/consumer/internal/intent"
	"sluice/schemas/topic"
)

// Stop ends every statement of a log that still runs, whoever began it, and
// waits until it is gone, so that it can't write after the comparison that
// follows. A statement is known by its token, which stands in log_comment. (The
// embedded engine knows no query ids.)
func (s *Store) Stop(ctx context.Context, self topic.Origin) error {
	const where = "WHERE position(Settings['log_comment'], ?) > 0 AND NOT is_cancelled"
	prefix := intent.TokenPrefix(self.TopicID, self.Partition)
	for {
		var n uint64
		if err := s.conn.QueryRow(ctx, "SELECT count() FROM system.processes WHERE position(Settings['log_comment'], ?) > 0", prefix).Scan(&n); err != nil {
			return fmt.Errorf("looking for statements of partition %d: %w", self.Partition, err)
		}
		if n == 0 {
			return nil
		}
		if err := s.conn.Exec(ctx, "KILL QUERY "+where+" ASYNC", prefix); err != nil {
			return fmt.Errorf("stopping statements of partition %d: %w", self.Partition, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Barriers are, by partition, the highest partition count that the journal says
// it decides by.
func (s *Store) Barriers(ctx context.Context, topicID uuid.UUID) (map[int32]int32, error) {
	rows, err := s.conn.Query(ctx, "SELECT partition, toInt32(max(offset)) FROM journal WHERE topic_id = ? AND entry = 'barrier' GROUP BY partition", topicID)
	if err != nil {
		return nil, fmt.Errorf("the journal's barriers: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err below tells
	out := map[int32]int32{}
	for rows.Next() {
		var p, n int32
		if err := rows.Scan(&p, &n); err != nil {
			return nil, fmt.Errorf("the journal's barriers: %w", err)
		}
		out[p] = n
	}
	return out, rows.Err()
}

// Cut says that a log ended at the offset At and goes on as Next from there.
type Cut struct {
	At   int64
	Next uuid.UUID
}

// Cuts are those of the log self and of the logs that followed it, in order.
func (s *Store) Cuts(ctx context.Context, self topic.Origin) ([]Cut, error) {
	var out []Cut
	for id := self.TopicID; ; {
		var n uint64
		var c Cut
		// The first written stands, as everywhere in the journal.
		err := s.conn.QueryRow(ctx, "SELECT count(), argMax(offset, version), argMax(first_topic_id, version) FROM journal WHERE topic_id = ? AND partition = ? AND entry = 'cut'",
			id, self.Partition).Scan(&n, &c.At, &c.Next)
		if err != nil {
			return nil, fmt.Errorf("the cuts of partition %d: %w", self.Partition, err)
		}
		if n == 0 {
			return out, nil
		}
		out = append(out, c)
		id = c.Next
	}
}

// LastBatch is a journaled batch's end (exclusive) and its last leader epoch.
type LastBatch struct {
	End   int64
	Epoch int32
}

// LastBatch finds the batch of records that ends highest; ok is false when there
// is none.
func (s *Store) LastBatch(ctx context.Context, self topic.Origin) (last LastBatch, ok bool, err error) {
	var n uint64
	err = s.conn.QueryRow(ctx, `
		SELECT count(), max(last_offset) + 1, argMax(leader_epoch, last_offset) FROM journal
		WHERE topic_id = ? AND partition = ? AND entry = 'batch' AND batch_hash != toFixedString('', 16)`,
		self.TopicID, self.Partition).Scan(&n, &last.End, &last.Epoch)
	if err != nil {
		return last, false, fmt.Errorf("the last batch of partition %d: %w", self.Partition, err)
	}
	return last, n > 0, nil
}
