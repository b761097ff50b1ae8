package main

import (
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"sluice/schemas/topic"
)

// What an operator or a disaster does to ClickHouse while no consumer runs.

// mutate runs statements that merges stopped would keep from ending.
func (w *world) mutate(queries ...string) {
	w.t.Helper()
	w.exec("SYSTEM START MERGES")
	for _, q := range queries {
		w.exec(q)
	}
	w.exec("SYSTEM STOP MERGES")
}

// remember keeps for the oracle which rows and fates a condition takes.
func (w *world) remember(table, condition string) {
	w.t.Helper()
	rows, err := w.store.Conn().Query(w.ctx, "SELECT topic_id, partition, offset, event_id FROM "+table+" WHERE "+condition)
	require.NoError(w.t, err)
	defer rows.Close() //nolint:errcheck // Err below tells
	for rows.Next() {
		var o topic.Origin
		var id uuid.UUID
		require.NoError(w.t, rows.Scan(&o.TopicID, &o.Partition, &o.Offset, &id))
		w.gone[o] = true
		if table == "event_log" {
			w.disturbed[id] = true
		}
	}
	require.NoError(w.t, rows.Err())
}

// owe sets the offsets back, so that what is deleted then is brought back.
func (w *world) owe() {
	w.t.Helper()
	w.setOffsets(0, "")
	w.owed = true
}

// deleteRows deletes those of some keys; their tokens stay. The offsets are set
// back, so that the records are read again.
func (w *world) deleteRows(modulus, rest int) {
	w.t.Helper()
	w.owe()
	condition := fmt.Sprintf("toUInt32(splitByChar('-', actor_id)[2]) %% %d = %d", modulus, rest)
	w.note("DELETE FROM event_log WHERE %s", condition)
	w.remember("event_log", condition)
	w.mutate("DELETE FROM event_log WHERE " + condition)
}

// dropMonth drops a table partition, with its tokens, and sets the offsets back.
func (w *world) dropMonth(year int) {
	w.t.Helper()
	w.owe()
	w.note("the month of %d dropped from event_log", year)
	w.remember("event_log", fmt.Sprintf("toYear(occurred_at) = %d", year))
	w.exec(fmt.Sprintf("ALTER TABLE event_log DROP PARTITION %d11", year))
}

// loseFates deletes a part of the journal's fates; the offsets are set back,
// since nothing else would tell.
func (w *world) loseFates(from, to int64) {
	w.t.Helper()
	w.owe()
	condition := fmt.Sprintf("entry = 'fate' AND fate != 'lost' AND offset BETWEEN %d AND %d", from, to)
	w.note("DELETE FROM journal WHERE %s", condition)
	w.remember("journal", condition)
	w.mutate("DELETE FROM journal WHERE " + condition)
}

// loseRanges deletes whole batches from the journal, with the fates in them:
// owners find the gap by themselves.
func (w *world) loseRanges(p int32, from, to int64) {
	w.t.Helper()
	w.endAll()
	w.note("partition %d: the batches that lie in %d to %d deleted from the journal", p, from, to)
	var n uint64
	var first, last int64
	require.NoError(w.t, w.store.Conn().QueryRow(w.ctx, `SELECT count(), min(offset), max(last_offset) FROM journal FINAL
		WHERE topic_id = ? AND partition = ? AND entry = 'batch' AND offset >= ? AND last_offset <= ?`, w.id, p, from, to).Scan(&n, &first, &last))
	if n > 0 {
		w.mutate(fmt.Sprintf("DELETE FROM journal WHERE topic_id = '%s' AND partition = %d AND entry IN ('batch', 'fate') AND offset BETWEEN %d AND %d", w.id, p, first, last))
	}
}

// emptyJournal and emptyAll truncate, which clears tokens.
func (w *world) emptyJournal() {
	w.t.Helper()
	w.endAll()
	w.note("the journal emptied")
	w.exec("TRUNCATE TABLE journal")
}

func (w *world) emptyAll(tokensStay bool) {
	w.t.Helper()
	w.endAll()
	w.note("both tables emptied (their tokens stay: %v)", tokensStay)
	w.empty(tokensStay)
	for p := range w.records { // of what retention took, nothing speaks any more
		w.records[p] = slices.DeleteFunc(w.records[p], func(r seenRecord) bool { return r.Offset < w.start[p] })
	}
}

func (w *world) empty(tokensStay bool) {
	w.t.Helper()
	if tokensStay {
		w.mutate("DELETE FROM event_log WHERE 1", "DELETE FROM journal WHERE 1")
	} else {
		w.exec("TRUNCATE TABLE event_log")
		w.exec("TRUNCATE TABLE journal")
	}
}

// snapshot copies both tables, wherever the owners are at the moment.
func (w *world) snapshot() {
	w.t.Helper()
	w.note("a copy of both tables taken")
	for _, table := range []string{"event_log", "journal"} {
		w.exec("DROP TABLE IF EXISTS " + table + "_copy SYNC")
		w.exec("CREATE TABLE " + table + "_copy AS " + table)
		w.exec("ALTER TABLE " + table + "_copy ATTACH PARTITION ALL FROM " + table)
	}
	w.copied, w.copyOwed = true, w.owed
}

// restore sets both tables back to the copy.
func (w *world) restore(tokensStay bool) {
	w.t.Helper()
	w.endAll()
	if w.copyOwed {
		w.owe()
	}
	w.note("both tables set back to the copy (tokens stay: %v)", tokensStay)
	w.empty(tokensStay)
	for _, table := range []string{"event_log", "journal"} {
		w.exec("ALTER TABLE " + table + " ATTACH PARTITION ALL FROM " + table + "_copy")
	}
}
