package store

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"sluice/schemas/topic"
)

// Counted is how many records that retention has counted lie in no journaled range.
// Retention counts the rows it drops by the month, as one entry at the offset of the
// first: where ranges of the journal are lost, which of the records there it counted
// can't be told any more, but how many can, by what the sheet lacks.
//
// The sheet lacks what was lost of event_log too: n is so much too small, negative even.
// Who has the log can tell how much that is. counted is false, and n 0, where retention has
// counted nothing of the partition.
func (s *Store) Counted(ctx context.Context, self topic.Origin) (n int, counted bool, err error) {
	rows, err := s.conn.Query(ctx, "SELECT DISTINCT offset, records FROM journal WHERE topic_id = ? AND partition = ? AND entry = 'fate' AND fate = 'expired' AND records > 1",
		self.TopicID, self.Partition)
	if err != nil {
		return 0, false, fmt.Errorf("what retention has counted of partition %d: %w", self.Partition, err)
	}
	defer rows.Close() //nolint:errcheck // Err below tells
	counts := map[int64]uint64{}
	for rows.Next() {
		var offset int64
		var records uint64
		if err := rows.Scan(&offset, &records); err != nil {
			return 0, false, fmt.Errorf("what retention has counted of partition %d: %w", self.Partition, err)
		}
		counts[offset] = records
	}
	if err := rows.Err(); err != nil {
		return 0, false, fmt.Errorf("what retention has counted of partition %d: %w", self.Partition, err)
	}
	if len(counts) == 0 {
		return 0, false, nil
	}
	ranges, err := s.ranges(ctx, self)
	if err != nil {
		return 0, false, fmt.Errorf("the journal's ranges of partition %d: %w", self.Partition, err)
	}
	var difference int64
	first := int64(0)
	if len(ranges) > 0 {
		first = ranges[0].First
	}
	for offset, records := range counts {
		journaled := offset < first
		for _, r := range ranges {
			journaled = journaled || offset >= r.First && offset < r.End
		}
		if !journaled { // the sheet leaves it out; the record where it stands has its fate
			n += int(records) - 1
		}
	}
	// While a retention is under way, or where one was cut short, rows that it has
	// counted are still there. They are asked for first: they may be gone then.
	var dropping uint64
	err = s.conn.QueryRow(ctx, "SELECT count() FROM event_log WHERE topic_id = ? AND partition = ? AND occurred_at < (SELECT max(upto) FROM tombstones WHERE kind = 'before')",
		self.TopicID, self.Partition).Scan(&dropping)
	if err != nil {
		return 0, false, fmt.Errorf("what retention has not dropped of partition %d: %w", self.Partition, err)
	}
	n -= int(dropping)
	var sheets uint64
	// Without what has both a row and a fate: that is another fault.
	err = s.conn.QueryRow(ctx, "SELECT count(), sum(if(difference > 0, difference, difference + toInt64(twice))) FROM balance WHERE topic_id = ? AND partition = ?", self.TopicID, self.Partition).Scan(&sheets, &difference)
	if err != nil {
		return 0, false, fmt.Errorf("the sheet of partition %d: %w", self.Partition, err)
	}
	if first > 0 { // the sheet has what lies before the first range, and stands there by itself
		rows, err := s.RowsIn(ctx, self, 0, first-1)
		if err != nil {
			return 0, false, err
		}
		fates, err := s.FatesIn(ctx, self, 0, first-1)
		if err != nil {
			return 0, false, err
		}
		for offset := range fates {
			rows[offset] = uuid.Nil
		}
		n -= len(rows)
	}
	return n - int(difference), true, nil
}
