package index

// demand is which absent minutes were asked for, by block, and what has been
// learnt of how much can be loaded at a time.
type demand struct {
	// live..now is to be loaded first, with all that follows.
	opening   bool
	live, now int32
	blocks    map[int32]want
	// width is the minutes that a load may span, a power of two: it shrinks to
	// what fitted when a load held too many keys, and grows again.
	width int64
	// After failures in a row, no load begins before a batch.
	failures int
	notUntil uint64
}

// want is what was asked of a block since its last load.
type want struct {
	keys, batches int
	batch         uint64
	minute        int32 // of the last key
}

const (
	// A block is loaded when so many of its keys had to be asked for, or keys
	// in so many batches. To ask for a few keys costs 10 to 30 ms, to load a
	// block of ten thousands of rows little more; a lone late event is not worth
	// a load, a trickle of them is.
	dueKeys    = 256
	dueBatches = 4
	// goneKeys is how many keys of a block ClickHouse may have lost before it is
	// loaded anew. To ask for so many costs no more than that.
	goneKeys = 4096
	// widest is the most that one load spans: 64 blocks, eight years.
	widest = 64 * blockMinutes
)

func (d *demand) open(live, now int32) {
	d.opening, d.live, d.now = true, live, now
	d.blocks = map[int32]want{}
	d.width = widest
}

func (d *demand) note(minute int32, batch uint64) {
	block := blockOf(minute)
	w := d.blocks[block]
	w.keys++
	if w.batch != batch {
		w.batches++
		w.batch = batch
	}
	w.minute = minute
	d.blocks[block] = w
}

// wanted has the block of a minute loaded as if enough of its keys had been asked for.
func (d *demand) wanted(minute int32, batch uint64) {
	d.blocks[blockOf(minute)] = want{keys: dueKeys, batches: 1, batch: batch, minute: minute}
}

// most is the block wanted most, the newest of several.
func (d *demand) most() (w want, ok bool) {
	for _, c := range d.blocks {
		if c.keys < dueKeys && c.batches < dueBatches {
			continue
		}
		if !ok || c.keys > w.keys || c.keys == w.keys && c.minute > w.minute {
			w, ok = c, true
		}
	}
	return w, ok
}

// span is what to load for a minute: its block and those beside it that are
// wanted too, or a part of the block if that is all that fits.
func (d *demand) span(minute int32) (from, to int32) {
	if d.width < blockMinutes {
		from = minute &^ int32(d.width-1)
		return from, int32(min(int64(from)+d.width, endMinute))
	}
	first := blockOf(minute)
	last := first
	for grown := true; grown; {
		grown = false
		for _, next := range []int32{first - 1, last + 1} {
			if _, ok := d.blocks[next]; ok && (int64(last)-int64(first)+2)*blockMinutes <= d.width {
				first, last, grown = min(first, next), max(last, next), true
			}
		}
	}
	return first << blockBits, int32(min((int64(last)+1)<<blockBits, endMinute))
}

// served forgets what was asked of from..to.
func (d *demand) served(from, to int32) {
	for block := range d.blocks {
		if block >= blockOf(from) && block <= blockOf(to-1) {
			delete(d.blocks, block)
		}
	}
}

// learn sets the width by what a load of this span kept.
func (d *demand) learn(asked, kept int64, full bool) {
	switch {
	case kept < asked:
		d.width = 1
		for d.width*2 <= kept {
			d.width *= 2
		}
	case !full:
		d.width = min(2*d.width, widest)
	}
}

// failed puts the next load off, 16 batches at first and 1024 in the end.
func (d *demand) failed(batch uint64) {
	d.notUntil = batch + 16<<min(d.failures, 6)
	d.failures++
}
