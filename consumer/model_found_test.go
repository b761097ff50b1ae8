package main

import "testing"

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
}
