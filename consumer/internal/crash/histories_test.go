package crash

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/intent"
	"sluice/consumer/internal/partition"
	"sluice/schemas/event"
	"sluice/schemas/topic"
)

// An intent was sent of what there was, its answer was lost, and more records
// came. Another intent in its place could be overtaken by the first, and the
// batch under way be unknown to the next owner.
func TestAnIntentIsNotChanged(t *testing.T) {
	var cases []given
	for _, lost := range []fault{
		{partition.PointIntend, 1, unheard, ""},
		{partition.PointIntend, 1, inVain, ""},
		{partition.PointIntend, 1, delayed, string(partition.PointRecovered)},
		{partition.PointIntend, 1, delayed, string(partition.PointInsert)},
		{partition.PointIntend, 1, delayed, string(partition.PointInserted)},
	} {
		cases = append(cases, given{[]fault{lost, {partition.PointInsert, 1, deadLate, finished}}, time.Minute, 7},
			given{[]fault{lost, {partition.PointInsert, 1, deadLate, string(partition.PointJournal)}}, time.Minute, 7})
	}
	tryInMemory(t, cases)
}

// An intent that a build of the first rule version left open was replaced by one with the
// hash of today, while the batch's INSERT went under the token of the first: whoever found
// the second sealed a token that nothing was sent under, and a late INSERT was stored, too.
func TestAnIntentOfVersion1KeepsItsHash(t *testing.T) {
	for _, first := range []fault{
		{partition.PointInsert, 1, crashes, ""}, {partition.PointIntended, 1, crashes, ""},
		{partition.PointInsert, 2, crashes, ""}, {partition.PointInsert, 1, partly, ""},
	} {
		for _, second := range []fault{
			{partition.PointInsert, 1, deadLate, finished}, {partition.PointInsert, 1, delayed, finished},
			{partition.PointInsert, 1, freezes, finished}, {partition.PointInserted, 1, crashes, ""}, {partition.PointInsert, 1, partly, ""},
		} {
			t.Run(first.String()+"; "+second.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := given{fresh: time.Minute, hidden: -1}.world(newMemory())
					w.before = func(owner int) {
						if owner == 1 {
							w.asOfVersion1(t)
						}
					}
					require.True(t, w.compared(t, w.run(t.Context(), first, second)))
				})
			})
		}
	}
}

// asOfVersion1 makes the open intent one of the first rule version.
func (w *world) asOfVersion1(t *testing.T) {
	t.Helper()
	in, ours, err := intent.Parse(w.metadata)
	require.NoError(t, err)
	require.True(t, ours && !in.Closed)
	b, d := batch.New(w.committed), batch.NewDecoder(partitions)
	for _, raw := range w.records {
		if raw.Offset >= w.committed && raw.Offset <= in.Last {
			r := d.Decode(raw)
			b.Add(&r)
		}
	}
	h := b.RawHash()
	in.Hash, in.Rules = hex.EncodeToString(h[:]), 1
	w.metadata = in.Metadata()
}

// The head of an open intent's range is deleted from the log. Who wrote the rest had put an
// intent of the rest in its place, while its INSERT went under the token of the whole: if
// it crashed too, the next sealed a token that nothing was sent under, and a late INSERT
// was stored beside its own rows.
func TestAnIntentWhoseHeadIsGoneIsKept(t *testing.T) {
	const first, head = 13, 20
	for _, begun := range []fault{
		{partition.PointInsert, 2, deadLate, finished}, {partition.PointIntended, 2, freezes, finished}, {partition.PointInsert, 2, crashes, ""},
	} {
		for _, second := range []fault{
			{partition.PointIntended, 1, crashes, ""}, {partition.PointInsert, 1, crashes, ""}, {partition.PointInsert, 1, deadLate, finished},
			{partition.PointInsert, 1, delayed, finished}, {partition.PointInserted, 1, crashes, ""}, {partition.PointIntended, 1, freezes, finished},
		} {
			t.Run(begun.String()+"; "+second.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := given{fresh: time.Minute, hidden: -1}.world(newMemory())
					w.before = func(owner int) {
						if owner == 1 {
							w.deleteHead(head)
						}
					}
					_ = w.run(t.Context(), begun, second)
					all, err := w.store.read(t.Context())
					require.NoError(t, err)
					for offset, rows := range all[w.id].rows {
						require.LessOrEqual(t, len(rows), 1, "offset %d, of %d to %d of which the head is gone", offset, first, head)
					}
				})
			})
		}
	}
}

// hooked calls rowsIn, once, before ClickHouse is asked what stands in a range.
type hooked struct {
	*memory
	rowsIn func()
}

func (h *hooked) RowsIn(ctx context.Context, self topic.Origin, first, last int64) (map[int64]uuid.UUID, error) {
	if f := h.rowsIn; f != nil {
		h.rowsIn = nil
		f()
	}
	return h.memory.RowsIn(ctx, self, first, last)
}

// An owner dies in a re-read, and its INSERT comes after the next has loaded its index and
// before it reads the range again: nothing is missing then. The index was not told, and a
// repeat of what had come was a second row.
func TestWhatARereadFindsWholeIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &hooked{memory: newMemory()}
		w := newWorld("a late mend", m, []line{
			{offset: 0, key: "a", payload: `{"n":1}`}, {offset: 1, key: "b", payload: `{"n":1}`},
			{offset: 2, key: "c", payload: `{"n":1}`}, {offset: 3, key: "a", payload: `{"n":1}`},
		})
		w.hidden = 3
		first := w.begin(t.Context(), 0, nil)
		time.Sleep(10 * time.Second)
		first.finish()
		<-first.done
		require.Len(t, m.rows, 3)
		m.rows = m.rows[1:] // lost, with its token
		clear(m.tokens)
		w.committed, w.metadata = 0, "" // an operator sets the offset back
		second := w.begin(t.Context(), 1, []fault{{partition.PointInsert, 1, deadLate, "by hand"}})
		<-second.done
		require.Len(t, m.rows, 2)
		m.rowsIn = func() {
			synctest.Wait() // the index is loaded
			w.moment("by hand", 2)
		}
		third := w.begin(t.Context(), 2, nil)
		time.Sleep(10 * time.Second)
		w.reveal()
		time.Sleep(10 * time.Second)
		third.finish()
		<-third.done
		require.True(t, w.compared(t, nil))
	})
}

// The head of the log is deleted under an open intent, while its INSERT runs or
// its owner is frozen. What is said to be lost must not become rows afterwards:
// nothing is written under its token that would keep a late INSERT out. And it is
// lost, whether or not anything was journaled before it.
func TestWhatIsLostDoesNotComeLate(t *testing.T) {
	for _, tt := range []struct {
		name        string
		fresh       time.Duration
		failure     fault
		first, head int64 // of what is lost
	}{
		{"its INSERT runs", time.Minute, fault{partition.PointInsert, 1, deadLate, running}, 0, 15},
		{"its INSERT runs, the second", time.Minute, fault{partition.PointInsert, 2, deadLate, running}, 13, 27},
		{"its owner is frozen", stale, fault{partition.PointIntended, 1, freezes, finished}, 0, 15},
		{"its owner is frozen, the second", stale, fault{partition.PointIntended, 2, freezes, finished}, 13, 27},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := given{fresh: tt.fresh, hidden: -1}.world(newMemory())
				w.before = func(owner int) {
					if owner == 1 {
						w.deleteHead(tt.head)
					}
				}
				err := w.run(t.Context(), tt.failure)
				// All that stood before decides what comes after; in the range
				// that was open nothing stands.
				w.lines = slices.DeleteFunc(w.lines, func(l line) bool { return l.offset >= tt.first && l.offset < tt.head })
				w.want = expect(w.lines)
				for o := tt.first; o < tt.head; o++ {
					w.lines = append(w.lines, line{offset: o})
					w.want.fates[o] = dedup.Lost
				}
				w.start = 0 // where the journal begins
				require.True(t, w.compared(t, err))
			})
		})
	}
}

// Records that were begun are gone from the log, and others stand at their
// offsets: a cut, though nothing of it was journaled. What had been written stays,
// under the old log's id.
func TestOtherRecordsWhereABatchWasBegun(t *testing.T) {
	for name, f := range map[string]fault{
		"nothing was written": {partition.PointInsert, 1, crashes, ""},
		"the INSERT runs":     {partition.PointInsert, 1, deadLate, running},
		"rows were written":   {partition.PointInserted, 1, crashes, ""},
		"one month was":       {partition.PointInsert, 1, partly, ""},
		"it is the second":    {partition.PointInserted, 2, crashes, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := given{fresh: time.Minute, hidden: -1}.world(newMemory())
				old := map[int64][]stored{}
				w.before = func(owner int) {
					if owner != 1 {
						return
					}
					all, err := w.store.read(t.Context())
					require.NoError(t, err)
					if all[w.id] != nil {
						old = all[w.id].rows
					}
					from := int64(0)
					if f.nth == 2 {
						from = 13
					}
					lines, raws := history("others", time.Now(), script)
					at := slices.IndexFunc(w.lines, func(l line) bool { return l.offset >= from })
					w.records, w.lines = append(w.records[:at:at], raws[at:]...), lines[at:]
					w.want, w.start = expect(w.lines), from
				}
				require.NoError(t, w.run(t.Context(), f))
				all, err := w.store.read(t.Context())
				require.NoError(t, err)
				require.Len(t, all, 2)
				require.Equal(t, old, all[w.id].rows, "what stood, stands")
				for id, has := range all {
					if id != w.id {
						require.Empty(t, w.faults(has), w.log.String())
					}
				}
			})
		})
	}
}

// A partition is added while the owner of the old one is about to write a row. The
// key belongs to the new partition now, and a repeat of it is there: its owner
// must wait until no one decides by the old count.
func TestAnAddedPartitionWaitsForTheOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		var old *world
		for n := 0; ; n++ { // a key that moves
			old = newWorld("the old partition", m, []line{{offset: 0, key: fmt.Sprint("k", n), payload: `{}`}})
			if event.Partition(old.records[0].Key, 2) == 1 {
				break
			}
		}
		old.grow(1)
		added := newWorld("the added partition", m, script)
		added.cluster, added.number = newCluster(old.id, old.records, 1), 1
		added.grow(2)

		before := old.begin(t.Context(), 0, []fault{{partition.PointInsert, 1, freezes, finished}})
		<-before.frozen
		old.grow(2)
		second := added.begin(t.Context(), 0, nil)
		time.Sleep(time.Minute)
		close(before.thaw)
		<-before.over
		before.finish()
		<-before.done
		after := old.begin(t.Context(), 1, nil)
		for _, o := range []*own{after, second} {
			<-o.over
			o.finish()
			<-o.done
		}
		require.Len(t, m.rows, 1)
		require.Equal(t, topic.Origin{TopicID: old.id}, m.rows[0].self)
	})
}

// Offsets set forward by an operator's tool, past all that was read: nothing is
// passed over.
func TestOffsetsSetForwardSkipNothing(t *testing.T) {
	for _, at := range []int64{13, 27, 41, 1000} {
		synctest.Test(t, func(t *testing.T) {
			w := given{fresh: time.Minute, hidden: -1}.world(newMemory())
			w.before = func(owner int) {
				if owner == 0 {
					w.committed, w.metadata = at, ""
				}
			}
			require.True(t, w.compared(t, w.run(t.Context())))
		})
	}
}

// Rows and journal are deleted; their tokens stay, as DELETE leaves them, and an
// operator's tool has set the offsets to somewhere in the log. Every block is
// dropped and reported as written, whichever owner writes it.
func TestWhatWasDeletedComesBackThoughItsTokensStayed(t *testing.T) {
	for _, failures := range [][]fault{
		nil,
		{{partition.PointIntended, 1, crashes, ""}},
		{{partition.PointJournaled, 1, crashes, ""}},
		{{partition.PointIntended, 2, crashes, ""}, {partition.PointFetched, 1, crashes, ""}},
	} {
		for _, at := range []int64{-1, 0, 13, 27, 41} {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory()
				w := given{fresh: time.Minute, hidden: -1}.world(m)
				require.True(t, w.compared(t, w.run(t.Context())))
				m.deleteAll()
				w.committed, w.metadata = at, ""
				clear(w.letters)
				clear(w.forwards)
				w.limits = []int{batchRows}
				require.True(t, w.compared(t, w.run(t.Context(), failures...)))
			})
		}
	}
}

// What the enumeration has found, each kept as a case of its own.
func TestWhatWasFoundBefore(t *testing.T) {
	for _, tt := range []struct {
		name     string
		failures []fault
	}{
		// Rows that were found stored when a batch was decided again, since
		// ClickHouse had refused one of them, were not added to the index: it
		// said later that their keys were free, and a repeat became a row.
		{"rows found stored are known", nil},
		// A refused record was a dead letter in memory alone until its batch was
		// journaled. The next owner found a later record of the key stored and
		// took the refused one for a conflict with it.
		{"refused stays refused, 3", []fault{{partition.PointJournal, 3, crashes, ""}}},
		{"refused stays refused, 4", []fault{{partition.PointJournal, 4, crashes, ""}}},
		// The halves of a refused INSERT were halves of what was absent, so two
		// owners could cut differently, and a late half met no used token.
		{"halves are the same for everyone, 4", []fault{{partition.PointInsert, 4, deadLate, finished}}},
		{"halves are the same for everyone, 5", []fault{{partition.PointInsert, 5, deadLate, finished}}},
		{"halves are the same for everyone, 6", []fault{{partition.PointInsert, 6, deadLate, finished}}},
		{"halves are the same for everyone, 7", []fault{{partition.PointInsert, 7, deadLate, finished}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := given{fresh: time.Minute, hidden: -1}.world(newMemory())
				require.True(t, w.compared(t, w.run(t.Context(), tt.failures...)))
			})
		})
	}
}
