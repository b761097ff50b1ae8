package verify

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/schemas/topic"
)

// compared is what verify finds of a log in a store, a text an offset.
func compared(t require.TestingT, v Verifier, r Range) (Counts, map[int64]string) {
	out := map[int64]string{}
	before := int64(-1)
	counts, err := v.Partition(context.Background(), r, func(f Finding) {
		require.GreaterOrEqual(t, f.Origin.Offset, before, "findings come in offset order")
		before = f.Origin.Offset
		if earlier, ok := out[f.Origin.Offset]; ok {
			f.What = earlier + " | " + f.What
		}
		out[f.Origin.Offset] = f.What
	}, func(int64) {})
	require.NoError(t, err)
	return counts, out
}

// randomLog is a log of repeats, conflicts, garbage, misplaced keys and gaps.
func randomLog(t *rapid.T) (raws []batch.Raw, end int64) {
	offset := rapid.Int64Range(0, 5).Draw(t, "start")
	keys := rapid.IntRange(1, 12).Draw(t, "keys")
	for range rapid.IntRange(0, 80).Draw(t, "records") {
		if rapid.IntRange(0, 19).Draw(t, "garbage") == 0 {
			raws = append(raws, garbage(offset))
		} else {
			payload := rapid.SampledFrom([]string{`{"n":1}`, `{ "n" : 1 }`, `{"n":2}`, `{"n":3}`}).Draw(t, "payload")
			raws = append(raws, raw(offset, rapid.IntRange(0, keys).Draw(t, "key"), payload))
		}
		offset += 1 + rapid.Int64Range(0, 2).Draw(t, "gap")
	}
	return raws, offset
}

// What verify expects, key by key from splits of a few records each, is what the
// rule decides in one go with all in memory: of a ClickHouse that holds the
// rule's decisions it finds nothing, of an empty one that each is missing, and of
// one from which some are gone, that those are.
func TestExpectsWhatTheRuleDecides(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		raws, end := randomLog(rt)
		r := Range{Self: topic.Origin{TopicID: topicA}, Partitions: rapid.SampledFrom([]int32{1, 2}).Draw(rt, "partitions"), To: end}
		v := Verifier{Log: memoryLog{raws, end, rapid.IntRange(1, 30).Draw(rt, "at a time")}, Memory: rapid.SampledFrom([]int64{600, 3000, 1 << 20}).Draw(rt, "memory"), TempDir: t.TempDir()}
		whole := newMemoryStore()
		decisions := whole.write(r.Self, r.Partitions, raws)
		want := map[int64]string{}
		tally := map[dedup.Fate]int{}
		for i, d := range decisions {
			want[raws[i].Offset] = fmt.Sprintf("should be a %s; ClickHouse has neither row nor fate", stateName(d.Fate))
			tally[d.Fate]++
		}
		counts := Counts{Records: len(raws), Rows: tally[dedup.Row], Duplicates: tally[dedup.Duplicate], Conflicts: tally[dedup.Conflict], DeadLettered: tally[dedup.DeadLetter], Forwarded: tally[dedup.Forwarded]}

		v.Store = whole
		got, found := compared(rt, v, r)
		require.Empty(rt, found)
		require.Equal(rt, counts, got)

		v.Store = newMemoryStore()
		got, found = compared(rt, v, r)
		require.Equal(rt, want, found)
		require.Equal(rt, len(raws), got.Missing)
		require.Equal(rt, counts.Conflicts, got.Conflicts)

		part := newMemoryStore()
		part.write(r.Self, r.Partitions, raws)
		missing := map[int64]string{}
		for i := range decisions {
			if rapid.Bool().Draw(rt, "gone") {
				o := origin(raws[i].Offset)
				delete(part.rows, o)
				delete(part.fates, o)
				missing[raws[i].Offset] = want[raws[i].Offset]
			}
		}
		v.Store = part
		_, found = compared(rt, v, r)
		require.Equal(rt, missing, found)
	})
}

func stateName(f dedup.Fate) string {
	if f == dedup.Row {
		return row.String()
	}
	return stateOf(Fate{Fate: f}).String()
}

// One change to what the rule decided is found, wherever it is made.
func TestEveryChangeIsFound(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		raws, end := randomLog(rt)
		if len(raws) == 0 {
			return
		}
		r := Range{Self: topic.Origin{TopicID: topicA}, Partitions: 2, To: end}
		st := newMemoryStore()
		decisions := st.write(r.Self, 2, raws)
		i := rapid.IntRange(0, len(raws)-1).Draw(rt, "changed")
		o, record := origin(raws[i].Offset), decode(2, raws[i])
		f, isFate := st.fates[o]
		delete(st.rows, o)
		delete(st.fates, o)
		switch to := rapid.SampledFrom([]dedup.Fate{"", dedup.Row, dedup.Duplicate, dedup.Conflict, dedup.DeadLetter, dedup.Forwarded, dedup.Lost, "other"}).Draw(rt, "to"); to {
		case decisions[i].Fate:
			return
		case "":
		case dedup.Row:
			st.row(o, record)
		default:
			f.Offset, f.Last, f.Fate, f.ID = o.Offset, o.Offset, to, record.ID
			if isFate && rapid.Bool().Draw(rt, "forget the first") {
				f.First = topic.Origin{}
			}
			st.fates[o] = f
		}
		v := Verifier{Log: memoryLog{raws, end, 7}, Store: st, Memory: 1000, TempDir: t.TempDir()}
		counts, found := compared(rt, v, r)
		require.Contains(rt, found, o.Offset)
		require.Positive(rt, counts.Missing+counts.Different)
	})
}

// Each fault by itself: what is said of it, and nothing else.
func TestFindings(t *testing.T) {
	log := []batch.Raw{
		raw(0, 1, `{"n":1}`), raw(1, 1, `{"n": 1}`), raw(2, 1, `{"n":2}`), // row, duplicate, conflict
		garbage(3),
		raw(5, 2, `{}`), raw(6, 2, `{}`),
		raw(7, 3, `{}`),
	}
	old := topic.Origin{TopicID: topicB, Partition: 4, Offset: 9}
	for _, tt := range []struct {
		name string
		do   func(s *memoryStore)
		want map[int64]string
	}{
		{"nothing", func(*memoryStore) {}, nil},
		{"a row is missing", func(s *memoryStore) { delete(s.rows, origin(7)) },
			map[int64]string{7: "should be a row; ClickHouse has neither row nor fate"}},
		{"a row with duplicates is missing", func(s *memoryStore) { delete(s.rows, origin(0)) },
			map[int64]string{0: "should be a row; ClickHouse has neither row nor fate"}},
		{"a duplicate is missing", func(s *memoryStore) { delete(s.fates, origin(1)) },
			map[int64]string{1: "should be a duplicate; ClickHouse has neither row nor fate"}},
		{"a conflict is missing", func(s *memoryStore) { delete(s.fates, origin(2)) },
			map[int64]string{2: "should be a conflict; ClickHouse has neither row nor fate"}},
		{"a dead letter is missing", func(s *memoryStore) { delete(s.fates, origin(3)) },
			map[int64]string{3: "should be a dead letter; ClickHouse has neither row nor fate"}},
		{"a row too many", func(s *memoryStore) { s.row(origin(4), decode(1, log[0])) },
			map[int64]string{4: "a row, and the log has no such record"}},
		{"a fate too many", func(s *memoryStore) { s.fate(origin(4), decode(1, log[0]), dedup.Duplicate, origin(0)) },
			map[int64]string{4: "in the journal a duplicate, and the log has no such record"}},
		{"two rows of a key", func(s *memoryStore) { delete(s.fates, origin(1)); s.row(origin(1), decode(1, log[1])) },
			map[int64]string{1: "should be a duplicate and is a row"}},
		{"a row and a fate", func(s *memoryStore) { s.fate(origin(7), decode(1, log[6]), dedup.Duplicate, origin(0)) },
			map[int64]string{7: "is a row and in the journal a duplicate too"}},
		{"another key", func(s *memoryStore) { s.rows[origin(7)][0].ID = uuid.New() }, map[int64]string{7: "the row has another key"}},
		{"another payload", func(s *memoryStore) { s.rows[origin(7)][0].Hash[3]++ }, map[int64]string{7: "the row has another payload"}},
		{"another column", func(s *memoryStore) { s.rows[origin(7)][0].Content++ }, map[int64]string{7: "the row's columns are not what the record says"}},
		{"a duplicate of another key's row", func(s *memoryStore) { s.fate(origin(1), decode(1, log[1]), dedup.Duplicate, origin(5)) },
			map[int64]string{1: "is a duplicate, and the record that the journal names as its first has another key"}},
		{"a duplicate of itself", func(s *memoryStore) {
			delete(s.rows, origin(7))
			s.fate(origin(7), decode(1, log[6]), dedup.Duplicate, origin(7))
		}, map[int64]string{7: "is a duplicate of nothing: the row that it was told against is not stored"}},
		{"duplicates in a circle", func(s *memoryStore) {
			delete(s.rows, origin(5))
			s.fate(origin(5), decode(1, log[4]), dedup.Duplicate, origin(6))
		}, map[int64]string{
			5: "is a duplicate of nothing: the row that it was told against is not stored",
			6: "is a duplicate of nothing: the row that it was told against is not stored",
		}},
		{"a conflict told as a duplicate", func(s *memoryStore) { s.fate(origin(2), decode(1, log[2]), dedup.Duplicate, origin(0)) },
			map[int64]string{2: "should be a conflict and is a duplicate"}},
		{"a duplicate told as a conflict", func(s *memoryStore) { s.fate(origin(1), decode(1, log[1]), dedup.Conflict, origin(0)) },
			map[int64]string{1: "should be a duplicate and is a conflict"}},
		{"a conflict's payload", func(s *memoryStore) { f := s.fates[origin(2)]; f.Text++; s.fates[origin(2)] = f },
			map[int64]string{2: "is a conflict, and the journal has another payload for it"}},
		{"a duplicate's payload hash", func(s *memoryStore) { f := s.fates[origin(1)]; f.Hash[0]++; s.fates[origin(1)] = f },
			map[int64]string{1: "is a duplicate, and the journal has another payload for it"}},
		{"a duplicate's key", func(s *memoryStore) { f := s.fates[origin(1)]; f.ID = uuid.New(); s.fates[origin(1)] = f },
			map[int64]string{1: "is a duplicate, and the journal has another key for it"}},
		{"a good record as a dead letter", func(s *memoryStore) {
			delete(s.rows, origin(7))
			s.fate(origin(7), decode(1, log[6]), dedup.DeadLetter, topic.Origin{})
		}, map[int64]string{7: "should be a row and is a dead letter"}},
		{"a dead letter that ClickHouse refused", func(s *memoryStore) {
			delete(s.rows, origin(7))
			r := decode(1, log[6])
			r.Reason = topic.ReasonRefused
			s.fate(origin(7), r, dedup.DeadLetter, topic.Origin{})
		}, nil},
		{"garbage as a row", func(s *memoryStore) { delete(s.fates, origin(3)); s.row(origin(3), decode(1, log[0])) },
			map[int64]string{3: "should be a dead letter and is a row"}},
		{"a record that is here, forwarded", func(s *memoryStore) {
			delete(s.rows, origin(7))
			s.fate(origin(7), decode(1, log[6]), dedup.Forwarded, topic.Origin{})
		}, map[int64]string{7: "should be a row and is a forwarded record"}},
		{"lost though it is there", func(s *memoryStore) {
			delete(s.rows, origin(7))
			s.fates[origin(7)] = Fate{Offset: 7, Last: 100, Fate: dedup.Lost}
		}, map[int64]string{7: "should be a row and is a lost record"}},
		{"skipped as a range from before", func(s *memoryStore) {
			delete(s.rows, origin(0))
			delete(s.fates, origin(1))
			delete(s.fates, origin(2))
			s.fates[origin(-5)] = Fate{Offset: -5, Last: 2, Fate: "skipped"}
		}, nil},
		// The row was removed and another record of the key had become the row
		// by the time it was decided anew.
		{"decided in another order", func(s *memoryStore) {
			delete(s.rows, origin(5))
			s.fate(origin(5), decode(1, log[4]), dedup.Duplicate, origin(6))
			delete(s.fates, origin(6))
			s.row(origin(6), decode(1, log[5]))
		}, nil},
		{"decided in another order, with one told against the first", func(s *memoryStore) {
			delete(s.rows, origin(0))
			s.fate(origin(0), decode(1, log[0]), dedup.Conflict, origin(2))
			delete(s.fates, origin(2))
			s.row(origin(2), decode(1, log[2]))
		}, nil},
		{"a duplicate of an older topic's row", func(s *memoryStore) {
			delete(s.rows, origin(7))
			s.row(old, decode(1, log[6]))
			s.fate(origin(7), decode(1, log[6]), dedup.Duplicate, old)
		}, nil},
		{"a conflict with an older topic's row, told as a duplicate", func(s *memoryStore) {
			delete(s.rows, origin(7))
			s.row(old, decode(1, raw(9, 3, `{"other":1}`)))
			s.fate(origin(7), decode(1, log[6]), dedup.Duplicate, old)
		}, map[int64]string{7: "should be a conflict and is a duplicate"}},
		{"a duplicate of an older topic's row of another key", func(s *memoryStore) {
			delete(s.rows, origin(7))
			s.row(old, decode(1, log[0]))
			s.fate(origin(7), decode(1, log[6]), dedup.Duplicate, old)
		}, map[int64]string{7: "is a duplicate, and the record that the journal names as its first has another key"}},
		{"an older topic's row may have been removed", func(s *memoryStore) {
			delete(s.rows, origin(7))
			s.fate(origin(7), decode(1, log[6]), dedup.Duplicate, old)
		}, nil},
		{"a row beyond the end must be there", func(s *memoryStore) {
			delete(s.rows, origin(7))
			s.fate(origin(7), decode(1, log[6]), dedup.Duplicate, origin(99))
		}, map[int64]string{7: "is a duplicate of nothing: the row that it was told against is not stored"}},
		{"rows beyond the end are not looked at", func(s *memoryStore) { s.row(origin(8), decode(1, log[0])) }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			st := newMemoryStore()
			st.write(topic.Origin{TopicID: topicA}, 1, log)
			tt.do(st)
			v := Verifier{Log: memoryLog{log, 8, 3}, Store: st, Memory: 600, TempDir: t.TempDir()}
			counts, found := compared(t, v, Range{Self: topic.Origin{TopicID: topicA}, Partitions: 1, To: 8})
			if tt.want == nil {
				tt.want = map[int64]string{}
			}
			require.Equal(t, tt.want, found)
			require.Equal(t, len(tt.want), counts.Missing+counts.Different+counts.Extra)
			require.Equal(t, len(log), counts.Records)
		})
	}
}

// Findings bear the key, whatever else lies between.
func TestFindingsNameTheKey(t *testing.T) {
	var log []batch.Raw
	for i := range 500 {
		log = append(log, raw(int64(2*i), i%250, `{}`))
	}
	st := newMemoryStore()
	st.write(topic.Origin{TopicID: topicA}, 1, log)
	want := map[int64]string{}
	for _, o := range []int64{0, 100, 498, 998} {
		delete(st.rows, origin(o))
		delete(st.fates, origin(o))
		e := eventOf(int(o/2)%250, `{}`)
		want[o] = e.Key()
	}
	got := map[int64]string{}
	v := Verifier{Log: memoryLog{log, 1000, 20}, Store: st, Memory: 600, TempDir: t.TempDir()}
	_, err := v.Partition(t.Context(), Range{Self: topic.Origin{TopicID: topicA}, Partitions: 1, To: 1000}, func(f Finding) { got[f.Origin.Offset] = f.Key }, func(int64) {})
	require.NoError(t, err)
	require.Equal(t, want, got)
}

// A topic that grew: a record was decided where its key lay then.
func TestPartitionsThatWereAdded(t *testing.T) {
	const before, now = 2, 5
	var log []batch.Raw
	for i := range 200 {
		log = append(log, raw(int64(i), i%100, `{}`))
	}
	self := topic.Origin{TopicID: topicA, Partition: 1}
	st := newMemoryStore()
	st.write(self, before, log[:100])
	st.write(self, now, log[100:]) // and the repeats by today's count
	v := Verifier{Log: memoryLog{log, 200, 9}, Store: st, Memory: 600, TempDir: t.TempDir()}
	r := Range{Self: self, Partitions: now, Counts: []int32{before, now}, To: 200}
	_, found := compared(t, v, r)
	for o, what := range found { // those that stayed home and were decided as if nothing had been
		require.Equal(t, "should be a duplicate and is a row", what, o)
	}
	r.Counts = nil
	_, blind := compared(t, v, r)
	require.Greater(t, len(blind), len(found), "without the barriers much is misplaced")
}

// The log took records back and goes on under another id: what was decided of
// them is not of this log any more.
func TestSegments(t *testing.T) {
	gone := []batch.Raw{raw(0, 0, `{}`), raw(1, 1, `{}`), raw(2, 2, `{}`), raw(3, 3, `{"old":1}`)}
	log := []batch.Raw{gone[0], gone[1], raw(2, 7, `{}`), raw(3, 3, `{"old":2}`), raw(4, 1, `{}`), raw(5, 2, `{}`)}
	st := newMemoryStore()
	st.write(topic.Origin{TopicID: topicA}, 1, gone)
	derived := func(o int64) topic.Origin { return topic.Origin{TopicID: topicB, Offset: o} }
	st.row(derived(2), decode(1, log[2]))
	st.fate(derived(3), decode(1, log[3]), dedup.Conflict, origin(3)) // against a row of what is gone
	st.fate(derived(4), decode(1, log[4]), dedup.Duplicate, origin(1))
	st.fate(derived(5), decode(1, log[5]), dedup.Duplicate, origin(2))
	v := Verifier{Log: memoryLog{log, 6, 2}, Store: st, Memory: 600, TempDir: t.TempDir()}
	r := Range{Self: topic.Origin{TopicID: topicA}, Partitions: 1, Segments: []Segment{{topicA, 0}, {topicB, 2}}, To: 6}
	counts, found := compared(t, v, r)
	require.Empty(t, found)
	require.Equal(t, Counts{Records: 6, Rows: 3, Duplicates: 2, Conflicts: 1}, counts)

	delete(st.rows, derived(2))
	_, found = compared(t, v, r)
	require.Equal(t, map[int64]string{2: "should be a row; ClickHouse has neither row nor fate"}, found)
}

// Nothing is left in the directory, not even while verify is at work.
func TestTemporaryFilesHaveNoNames(t *testing.T) {
	dir := t.TempDir()
	var log []batch.Raw
	for i := range 100 {
		log = append(log, raw(int64(i), i, `{}`))
	}
	ctx, cancel := context.WithCancel(t.Context())
	v := Verifier{Log: memoryLog{log, 100, 10}, Store: newMemoryStore(), Memory: 600, TempDir: dir}
	_, err := v.Partition(ctx, Range{Self: topic.Origin{TopicID: topicA}, Partitions: 1, To: 100}, func(Finding) {}, func(next int64) {
		left, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Empty(t, left)
		if next >= 50 {
			cancel()
		}
	})
	require.ErrorIs(t, err, context.Canceled)

	v.TempDir = dir + "/none"
	_, err = v.Partition(t.Context(), Range{Self: topic.Origin{TopicID: topicA}, Partitions: 1, To: 100}, func(Finding) {}, func(int64) {})
	require.ErrorContains(t, err, "--temp-dir")
}
