package dedup_test

import (
	"fmt"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/schemas/event"
	"sluice/schemas/topic"
)

var self = topic.Origin{TopicID: uuid.MustParse("11111111-1111-4111-8111-111111111111"), Partition: 2}

func rec(offset int64, key, payload byte) batch.Record {
	return batch.Record{Raw: batch.Raw{Offset: offset}, ID: uuid.UUID{key}, Hash: event.Hash{payload}, Home: self.Partition}
}

func nothing(*batch.Record) (dedup.First, bool) { return dedup.First{}, false }

func TestDecide(t *testing.T) {
	dead := rec(10, 0, 0)
	dead.Reason = topic.ReasonMalformed
	away := rec(10, 'a', 1)
	away.Home = 0
	elsewhere := dedup.First{Origin: topic.Origin{TopicID: uuid.UUID{9}, Partition: 2, Offset: 3}, Hash: event.Hash{1}}
	itself := dedup.First{Origin: topic.Origin{TopicID: self.TopicID, Partition: 2, Offset: 10}, Hash: event.Hash{1}}
	stored := func(f dedup.First) func(*batch.Record) (dedup.First, bool) {
		return func(*batch.Record) (dedup.First, bool) { return f, true }
	}
	for _, c := range []struct {
		name   string
		record batch.Record
		known  dedup.Known
		fate   dedup.Fate
		stands bool
	}{
		{"a new key becomes a row", rec(10, 'a', 1), dedup.Known{First: nothing}, dedup.Row, false},
		{"a stored key with the same payload", rec(10, 'a', 1), dedup.Known{First: stored(elsewhere)}, dedup.Duplicate, false},
		{"a stored key with another payload", rec(10, 'a', 2), dedup.Known{First: stored(elsewhere)}, dedup.Conflict, false},
		{"a record is no duplicate of itself", rec(10, 'a', 1), dedup.Known{First: stored(itself)}, dedup.Row, false},
		{"its own row is stored", rec(10, 'a', 1), dedup.Known{First: stored(itself), Rows: map[int64]uuid.UUID{10: {'a'}}}, dedup.Row, true},
		{"a row of its origin with another key is not its row", rec(10, 'a', 1), dedup.Known{First: nothing, Rows: map[int64]uuid.UUID{10: {'b'}}}, dedup.Row, false},
		{"a journaled fate stands, whatever the rule would say now", rec(10, 'a', 1), dedup.Known{First: nothing, Fates: map[int64]dedup.Fate{10: dedup.Conflict}}, dedup.Conflict, true},
		{"its row goes before its fate", rec(10, 'a', 1), dedup.Known{First: nothing, Rows: map[int64]uuid.UUID{10: {'a'}}, Fates: map[int64]dedup.Fate{10: dedup.Duplicate}}, dedup.Row, true},
		{"what can't be a row", dead, dedup.Known{First: nothing}, dedup.DeadLetter, false},
		{"another partition's key is not decided here", away, dedup.Known{First: stored(elsewhere)}, dedup.Forwarded, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := dedup.Decide(nil, []*batch.Record{&c.record}, self, c.known)
			require.Equal(t, c.fate, got[0].Fate)
			require.Equal(t, c.stands, got[0].Stands)
		})
	}
}

// However a log is cut into batches, and whatever of it was decided before, the
// fates are those of reading it in one piece.
func TestBatchingChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(t, "records")
		var log []*batch.Record
		for i := range n {
			r := rec(int64(i), rapid.ByteRange('a', 'e').Draw(t, "key"), rapid.ByteRange(1, 2).Draw(t, "payload"))
			log = append(log, &r)
		}
		want := dedup.Decide(nil, log, self, dedup.Known{First: nothing})

		rows := map[uuid.UUID]dedup.First{}
		known := dedup.Known{Rows: map[int64]uuid.UUID{}, Fates: map[int64]dedup.Fate{}, First: func(r *batch.Record) (dedup.First, bool) {
			f, ok := rows[r.ID]
			return f, ok
		}}
		for from := 0; from < n; {
			to := rapid.IntRange(from+1, n).Draw(t, "end")
			for i, d := range dedup.Decide(nil, log[from:to], self, known) {
				require.Equal(t, want[from+i].Fate, d.Fate, fmt.Sprint("offset ", from+i))
				if d.Fate == dedup.Row {
					rows[log[from+i].ID] = dedup.First{Origin: topic.Origin{TopicID: self.TopicID, Partition: self.Partition, Offset: int64(from + i)}, Hash: log[from+i].Hash}
					known.Rows[int64(from+i)] = log[from+i].ID
				} else {
					known.Fates[int64(from+i)] = d.Fate
				}
			}
			if rapid.Bool().Draw(t, "crashed before it was known to be done") {
				continue // reads the same range again
			}
			from = to
		}
	})
}

// What was taken on purpose is neither a row nor anything else again; what is
// stored or decided already stands all the same.
func TestWhatIsGoneStaysGone(t *testing.T) {
	records := []*batch.Record{{Raw: batch.Raw{Offset: 1}, ID: uuid.New()}, {Raw: batch.Raw{Offset: 2}, ID: uuid.New()}, {Raw: batch.Raw{Offset: 3}, ID: uuid.New()}}
	for _, counted := range []bool{false, true} {
		for _, fate := range []dedup.Fate{dedup.Expired, dedup.Erased} {
			got := dedup.Decide(nil, records, topic.Origin{}, dedup.Known{
				Rows: map[int64]uuid.UUID{1: records[0].ID}, Fates: map[int64]dedup.Fate{2: dedup.Duplicate}, Counted: counted,
				Gone:  func(*batch.Record) (dedup.Fate, bool) { return fate, true },
				First: func(*batch.Record) (dedup.First, bool) { return dedup.First{}, true },
			})
			require.Equal(t, dedup.Decision{Fate: dedup.Row, Stands: true}, got[0])
			require.Equal(t, dedup.Decision{Fate: dedup.Duplicate, Stands: true}, got[1])
			require.Equal(t, dedup.Decision{Fate: fate, Stands: fate == dedup.Expired && counted}, got[2])
		}
	}
}

// Rows of the batch are found by id, by its first record, and nothing else is,
// however full the table.
func TestOwnRows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records := make([]*batch.Record, rapid.IntRange(0, 300).Draw(t, "records"))
		for i := range records {
			r := rec(int64(i), rapid.Byte().Draw(t, "key"), 1)
			records[i] = &r
		}
		rows := map[uuid.UUID]int64{}
		for i, d := range dedup.Decide(nil, records, self, dedup.Known{First: nothing}) {
			first, known := rows[records[i].ID]
			require.Equal(t, known, d.Fate != dedup.Row)
			if known {
				require.Equal(t, first, d.First.Origin.Offset)
				continue
			}
			rows[records[i].ID] = records[i].Offset
		}
	})
}

// What is known to come once need not be looked for: with the repeats noted, the rule
// decides as it does without.
func TestRepeats(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records := make([]*batch.Record, rapid.IntRange(0, 300).Draw(t, "records"))
		seen, repeats := map[uuid.UUID]bool{}, &dedup.Repeats{}
		for i := range records {
			r := rec(int64(i), rapid.Byte().Draw(t, "key"), rapid.ByteRange(1, 2).Draw(t, "payload"))
			if records[i] = &r; seen[r.ID] {
				repeats.Note(r.ID)
			}
			seen[r.ID] = true
		}
		require.Equal(t,
			dedup.Decide(nil, records, self, dedup.Known{First: nothing}),
			dedup.Decide(nil, records, self, dedup.Known{First: nothing, Repeats: repeats}))
	})
	var none *dedup.Repeats
	require.True(t, none.May(uuid.UUID{1}))
	require.False(t, new(dedup.Repeats).May(uuid.UUID{1}))
}
