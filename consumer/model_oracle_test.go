package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/consumer/internal/dedup"
	"sluice/schemas/event"
	"sluice/schemas/topic"
)

// glance checks what must hold at every moment, whatever is under way: no event
// and no record has two rows (merges are stopped, so none is hidden), and no
// record is both a row and something else.
func (w *world) glance() {
	w.t.Helper()
	require.Zero(w.t, w.scalar("SELECT count() - uniqExact(event_id) FROM event_log"), "an event is there twice")
	require.Zero(w.t, w.scalar("SELECT count() - uniqExact(topic_id, partition, offset) FROM event_log"), "a record is there twice")
	require.Zero(w.t, w.scalar(`SELECT count() FROM event_log WHERE (topic_id, partition, offset) IN
		(SELECT topic_id, partition, offset FROM journal WHERE entry = 'fate' AND fate != 'lost')`), "a record is a row and has a fate")
}

type storedRow struct {
	origin topic.Origin
	id     uuid.UUID
	hash   string
}

type storedFate struct {
	origin topic.Origin
	last   int64
	fate   dedup.Fate
	n      uint64
}

// check compares ClickHouse with the log when all is decided. The log alone
// says what must be there, with these allowances, each for what protocol.md
// grants:
//
//   - a record may be decided by any partition count that was ever in force
//     ("Partitions are added"): in place where it was at home, else forwarded;
//   - records that retention took before they were decided are lost, or, before
//     the journal's first entry, never were;
//   - what was decided stands: where rows were deleted, a later record of the
//     key may have become the row before the earlier one was read again; and
//     what retention has taken can't be made again.
func (w *world) check() {
	w.t.Helper()
	w.glance()
	w.read()
	rows, byKey := w.rows()
	fates := w.fates()
	letters, copies := w.deadLetters(), w.copies()
	conflicts := map[string]int{}
	missing := make([]int64, len(w.records)) // by how much the sheet may be uneven
	for p := range w.records {
		self := topic.Origin{TopicID: w.id, Partition: int32(p)}
		seen, err := w.store.Seen(w.ctx, self)
		require.NoError(w.t, err)
		require.Empty(w.t, seen.Islands, "the journal of partition %d has gaps", p)
		begin := w.scalar("SELECT min(if(entry = 'batch', offset, toInt64(9e18))) FROM journal WHERE topic_id = ? AND partition = ?", w.id, int32(p))
		for i := range w.records[p] {
			r := &w.records[p][i]
			origin := topic.Origin{TopicID: w.id, Partition: int32(p), Offset: r.Offset}
			where := fmt.Sprintf("partition %d offset %d", p, r.Offset)
			row, isRow := rows[origin]
			delete(rows, origin)
			fate, hasFate := fates[origin]
			retained := r.Offset >= w.start[p]
			if early := !retained && r.Offset < begin; early && (isRow || hasFate) {
				missing[p]-- // of an emptied journal
			} else if early {
				continue
			}
			switch {
			case isRow:
				require.Empty(w.t, r.Reason, "%s can't be a row", where)
				require.Equal(w.t, r.ID, row.id, "%s: the row has another key", where)
				require.Equal(w.t, string(r.Hash[:]), row.hash, "%s: the row has another payload", where)
				w.atHome(r, p, where)
			case hasFate && fate.fate == dedup.Lost:
				require.False(w.t, retained, "%s is in the log and said to be lost", where)
			case hasFate:
				w.fate(r, origin, fate.fate, byKey, letters, copies, conflicts)
			case !retained && w.gone[origin]:
				missing[p]++
			default:
				require.Fail(w.t, "neither row nor fate", "%s, journaled up to %d, log begins at %d", where, seen.End, w.start[p])
			}
		}
	}
	require.Empty(w.t, rows, "rows of no record")
	w.sheet(missing)
	w.conflicts(conflicts)
	w.rollups()
	if len(w.counts) == 1 && len(w.disturbed) == 0 && slices.Max(w.start) == 0 {
		w.verified() // it knows neither of the allowances above
	}
}

// atHome: a record is decided in place only where some count put its key.
func (w *world) atHome(r *seenRecord, p int, where string) {
	w.t.Helper()
	require.True(w.t, slices.ContainsFunc(w.counts, func(n int32) bool { return r.home(n) == int32(p) }), "%s is decided here and belongs elsewhere", where)
}

// fate checks one that isn't a row.
func (w *world) fate(r *seenRecord, origin topic.Origin, fate dedup.Fate, byKey map[uuid.UUID]storedRow, letters, copies map[string]int32, conflicts map[string]int) {
	w.t.Helper()
	p, where := int(origin.Partition), fmt.Sprintf("partition %d offset %d, a %s", origin.Partition, origin.Offset, fate)
	if fate == dedup.DeadLetter || r.Reason != "" {
		require.Equal(w.t, dedup.DeadLetter, fate, where)
		require.NotEmpty(w.t, r.Reason, where)
		require.Contains(w.t, letters, origin.String(), "%s: no dead letter", where)
		return
	}
	if fate == dedup.Forwarded {
		require.True(w.t, slices.ContainsFunc(w.counts, func(n int32) bool { return r.home(n) != int32(p) }), "%s was at home", where)
		to, ok := copies[origin.String()]
		require.True(w.t, ok, "%s: no copy in the log", where)
		require.True(w.t, slices.ContainsFunc(w.counts, func(n int32) bool { return r.home(n) == to }), "%s: forwarded to %d", where, to)
		return
	}
	w.atHome(r, p, where)
	require.Contains(w.t, []dedup.Fate{dedup.Duplicate, dedup.Conflict}, fate, where)
	row, ok := byKey[r.ID]
	if fate == dedup.Conflict {
		conflicts[r.ID.String()+string(r.Hash[:])]++
	}
	if w.disturbed[r.ID] {
		return
	}
	require.True(w.t, ok, "%s of no row", where)
	require.Equal(w.t, row.hash == string(r.Hash[:]), fate == dedup.Duplicate, where)
	if row.origin.Partition == origin.Partition {
		require.Less(w.t, row.origin.Offset, origin.Offset, "%s of a later record", where)
		return
	}
	// Its key moved: the row was written where it was at home before.
	before := slices.IndexFunc(w.counts, func(n int32) bool { return r.home(n) == row.origin.Partition })
	after := len(w.counts) - 1
	for after > 0 && r.home(w.counts[after]) != origin.Partition {
		after--
	}
	require.True(w.t, before >= 0 && before < after, "%s of a row in partition %d", where, row.origin.Partition)
}

func (w *world) rows() (map[topic.Origin]storedRow, map[uuid.UUID]storedRow) {
	w.t.Helper()
	out, byKey := map[topic.Origin]storedRow{}, map[uuid.UUID]storedRow{}
	rows, err := w.store.Conn().Query(w.ctx, "SELECT topic_id, partition, offset, event_id, payload_hash FROM event_log")
	require.NoError(w.t, err)
	defer rows.Close() //nolint:errcheck // Err below tells
	for rows.Next() {
		var r storedRow
		require.NoError(w.t, rows.Scan(&r.origin.TopicID, &r.origin.Partition, &r.origin.Offset, &r.id, &r.hash))
		out[r.origin], byKey[r.id] = r, r
	}
	require.NoError(w.t, rows.Err())
	return out, byKey
}

// fates are the journal's by origin, ranges spread out over their offsets.
func (w *world) fates() map[topic.Origin]storedFate {
	w.t.Helper()
	out := map[topic.Origin]storedFate{}
	rows, err := w.store.Conn().Query(w.ctx, "SELECT topic_id, partition, offset, last_offset, toString(fate), records FROM journal FINAL WHERE entry = 'fate' ORDER BY fate = 'lost' DESC")
	require.NoError(w.t, err)
	defer rows.Close() //nolint:errcheck // Err below tells
	for rows.Next() {
		var f storedFate
		var name string
		require.NoError(w.t, rows.Scan(&f.origin.TopicID, &f.origin.Partition, &f.origin.Offset, &f.last, &name, &f.n))
		f.fate = dedup.Fate(name)
		for o := f.origin; o.Offset <= f.last; o.Offset++ {
			out[o] = f
		}
	}
	require.NoError(w.t, rows.Err())
	return out
}

// deadLetters are the keys of the dead-letter topic: origins.
func (w *world) deadLetters() map[string]int32 {
	w.t.Helper()
	out := map[string]int32{}
	ends, err := w.rig.admin.ListEndOffsets(w.ctx, w.cfg.Kafka.DeadLetters)
	require.NoError(w.t, err)
	left, from := int64(0), map[int32]kgo.Offset{}
	for p, o := range ends[w.cfg.Kafka.DeadLetters] {
		left += o.Offset
		from[p] = kgo.NewOffset().At(0)
	}
	if left == 0 {
		return out
	}
	c := w.client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{w.cfg.Kafka.DeadLetters: from}), kgo.ConsumeResetOffset(kgo.NoResetOffset()))
	defer c.Close()
	ctx, cancel := context.WithTimeout(w.ctx, 30*time.Second)
	defer cancel()
	for left > 0 {
		fetches := c.PollFetches(ctx)
		require.NoError(w.t, fetches.Err(), "reading the dead letters")
		fetches.EachRecord(func(r *kgo.Record) { left--; out[string(r.Key)] = r.Partition })
	}
	return out
}

// copies are what was forwarded, by the origin it came from, and where it is.
func (w *world) copies() map[string]int32 {
	out := map[string]int32{}
	for p, records := range w.records {
		for _, r := range records {
			if r.forwarded != "" {
				out[r.forwarded] = int32(p)
			}
		}
	}
	return out
}

// sheet: the balance is even but for what retention took after it was deleted.
func (w *world) sheet(missing []int64) {
	w.t.Helper()
	rows, err := w.store.Conn().Query(w.ctx, "SELECT partition, difference, gaps, overlaps, repeats, twice FROM balance WHERE topic_id = ? ORDER BY partition", w.id)
	require.NoError(w.t, err)
	defer rows.Close() //nolint:errcheck // Err below tells
	for rows.Next() {
		var p int32
		var difference int64
		var gaps, overlaps, repeats, twice uint64
		require.NoError(w.t, rows.Scan(&p, &difference, &gaps, &overlaps, &repeats, &twice))
		require.Equal(w.t, [5]int64{missing[p]}, [5]int64{difference, int64(gaps), int64(overlaps), int64(repeats), int64(twice)},
			"balance of partition %d: difference, gaps, overlaps, repeats, twice", p)
	}
	require.NoError(w.t, rows.Err())
}

// conflicts: the view has one line for each key and differing payload.
func (w *world) conflicts(want map[string]int) {
	w.t.Helper()
	got := map[string]int{}
	rows, err := w.store.Conn().Query(w.ctx, "SELECT event_id, payload_text, times_seen FROM event_conflicts")
	require.NoError(w.t, err)
	defer rows.Close() //nolint:errcheck // Err below tells
	for rows.Next() {
		var id uuid.UUID
		var text string
		var n uint64
		require.NoError(w.t, rows.Scan(&id, &text, &n))
		hash := event.PayloadHash([]byte(text))
		got[id.String()+string(hash[:])] = int(n)
	}
	require.NoError(w.t, rows.Err())
	require.Equal(w.t, want, got, "event_conflicts")
}

func (w *world) rollups() {
	w.t.Helper()
	n := w.scalar("SELECT count() FROM event_log")
	for _, view := range []string{"events_per_minute", "events_per_hour"} {
		require.Equal(w.t, n, w.scalar("SELECT sum(events) FROM "+view), view)
	}
	require.Equal(w.t, n, w.scalar("SELECT count() FROM events"), "events")
}

// verified: `consumer verify` says the same.
func (w *world) verified() {
	w.t.Helper()
	said := &lockedBuffer{}
	r, err := (&tools{cfg: w.cfg, log: w.log, kafka: w.kafka, store: w.store, err: said}).verify(w.ctx, 0)
	require.NoError(w.t, err)
	require.True(w.t, r.OK, "verify: %+v\n%s", r, said)
}
