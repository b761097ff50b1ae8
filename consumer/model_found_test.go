package main

import (
	"testing"

	"sluice/consumer/internal/partition"
	"sluice/schemas/event"
)

// What the model found, as histories of its actions.
func TestModelFound(t *testing.T) {
	r := newRig(t)
	batches := settings{rows: 2, months: 60, indexBytes: 8 << 20, indexLive: usual.indexLive, fresh: freshness}
	// journaled is a world of which partition 0 has some small batches.
	journaled := func(t *testing.T) *world {
		w := newWorld(t, t.Context(), r)
		w.staff(batches)
		for n := range 6 {
			w.produce(sending{key: n}, sending{key: n}, sending{key: n + 6, payload: 1}, sending{key: n, payload: 2})
		}
		w.run(nil)
		return w
	}

	// The journal's first range was taken for its beginning wherever it began:
	// fates that were lost before it were never decided again.
	t.Run("the journal's beginning is lost", func(t *testing.T) {
		w := journaled(t)
		defer w.close()
		w.loseRanges(0, 0, 4)
		w.settle()
	})

	// What the log no longer has was journaled as lost up to the log's start, over
	// ranges that were journaled already.
	t.Run("ranges before the log's start are lost from the journal", func(t *testing.T) {
		w := journaled(t)
		defer w.close()
		w.loseRanges(0, 2, 4)
		w.cutHead(0, 8)
		w.settle()
	})

	// The rows of an open intent were decided by the count of partitions that came
	// since, and all of them forwarded: nothing was written under the intent's
	// token, and the late copy of its INSERT was stored.
	t.Run("a late INSERT across added partitions", func(t *testing.T) {
		w := newWorld(t, t.Context(), r)
		defer w.close()
		w.staff(batches)
		before := w.count()
		var moving []sending
		for key := 0; len(moving) < 6; key++ {
			record := w.record(sending{key: key})
			if event.Partition(record.Key, before) == 0 && event.Partition(record.Key, before+1) != 0 {
				moving = append(moving, sending{key: key})
			}
		}
		w.produce(moving...)
		w.run(map[int32]*fault{0: {point: partition.PointInsert, late: true, then: crashes}})
		w.grow(1, false)
		w.settle()
		w.release(0)
		w.glance()
		w.settle()
	})
}
