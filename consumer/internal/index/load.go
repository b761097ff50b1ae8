package index

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/google/uuid"
)

const (
	// keyLoad is what a key takes while it is loaded, in bytes: its fingerprint
	// in a list that grows, and then in a page.
	keyLoad = 24
	// idleBatches is how long a page must have been left alone to make room for
	// a load. Were it less, a backfill of more than fits would evict what it is
	// about to ask for again.
	idleBatches = 8
)

// errTooMany: a minute has more keys than there is room for.
var errTooMany = errors.New("the minute has more keys than index.bytes leaves room for")

// flight is a load under way.
type flight struct {
	from, to int32
	cancel   context.CancelFunc
	arrived  chan loaded
	added    []arrival // rows stored meanwhile
}

func (f *flight) covers(minute int32) bool { return f.from <= minute && minute < f.to }

type arrival struct {
	minute int32
	fp     fingerprint
}

// loaded is what a load brings: pages that cover from..to, or the error for
// which it brings none.
type loaded struct {
	from, to int32
	parts    []part
	keys     int
	full     bool // at least a quarter of what it might have been
	err      error
}

// load begins the load that is wanted most, if any is and there is room.
func (x *Index) load(ctx context.Context) {
	d := &x.demand
	if x.batch < d.notUntil {
		return
	}
	share := x.cfg.Budget.Share()
	room := share - int64(x.bytes()) + int64(x.pages.idle(x.batch-min(x.batch, idleBatches)))
	if room < share/64 {
		return
	}
	g := gathering{most: int(room / keyLoad), batch: x.batch}
	if d.opening {
		g.from, g.to, g.around, g.newest = d.live, endMinute, d.now, true
	} else {
		w, ok := d.most()
		if !ok {
			return
		}
		g.around = w.minute
		g.from, g.to = d.span(w.minute)
		from, to := x.pages.gap(w.minute)
		g.from, g.to = max(g.from, from), min(g.to, to)
	}
	d.opening = false
	d.served(g.from, g.to)
	ctx, cancel := context.WithCancel(ctx)
	f := &flight{from: g.from, to: g.to, cancel: cancel, arrived: make(chan loaded, 1)}
	x.flight = f
	x.stats.Loads++
	go func() {
		defer cancel()
		f.arrived <- x.run(ctx, &g)
	}()
}

// run is the load's own goroutine. Of x it reads only what never changes.
func (x *Index) run(ctx context.Context, g *gathering) loaded {
	select {
	case x.cfg.Budget.loads <- struct{}{}:
		defer func() { <-x.cfg.Budget.loads }()
	case <-ctx.Done():
		return loaded{err: ctx.Err()}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	g.blocks = map[int32]*[]fingerprint{}
	err := x.cfg.Source(ctx, timeOf(g.from), timeOf(g.to), func(minute int32, id uuid.UUID) {
		if !g.add(minute, fingerprintOf(x.hash(id), minute)) {
			cancel(errTooMany)
		}
	})
	if cause := context.Cause(ctx); errors.Is(cause, errTooMany) {
		err = cause
	}
	if err != nil {
		return loaded{err: fmt.Errorf("loading keys into the index: %w", err)}
	}
	return loaded{from: g.from, to: g.to, parts: g.parts(), keys: g.n, full: g.n > g.most/4}
}

// land takes in a load that has ended.
func (x *Index) land(l loaded) error {
	f := x.flight
	x.flight = nil
	if l.err != nil {
		x.stats.Failed++
		x.demand.failed(x.batch)
		return l.err
	}
	x.demand.failures = 0
	x.demand.learn(int64(f.to)-int64(f.from), int64(l.to)-int64(l.from), l.full)
	x.stats.LoadedKeys += l.keys
	for _, p := range l.parts {
		p.page.used = x.batch
	}
	i := x.pages.after(l.from)
	x.pages.replace(i, i, l.parts)
	x.round++
	for _, a := range f.added {
		if i := x.pages.find(a.minute); i >= 0 {
			x.pages.add(i, a.minute, a.fp)
		}
	}
	return nil
}

// gathering collects the keys of from..to. When they are more than most, it
// lets go of the times farthest from around (only of those before it, with
// newest): what is kept is complete, for fewer minutes.
type gathering struct {
	from, to, around int32
	newest           bool
	most, n          int
	blocks           map[int32]*[]fingerprint
	block            int32 // the last one added to
	fps              *[]fingerprint
	batch            uint64
}

// add returns false when even one minute is too much.
func (g *gathering) add(minute int32, fp fingerprint) bool {
	if minute < g.from || minute >= g.to {
		return true
	}
	if b := blockOf(minute); g.fps == nil || b != g.block {
		g.block, g.fps = b, g.blocks[b]
		if g.fps == nil {
			g.fps = &[]fingerprint{}
			g.blocks[b] = g.fps
		}
	}
	*g.fps = append(*g.fps, fp)
	g.n++
	return g.n <= g.most || g.shrink()
}

func (g *gathering) shrink() bool {
	low := int64(g.around) - int64(g.from)
	high := int64(g.to) - 1 - int64(g.around)
	reach := max(low, high)
	if g.newest {
		reach = low
	}
	for g.n > g.most*3/4 {
		if reach <= 0 {
			return g.n <= g.most
		}
		reach /= 2
		g.from = int32(max(int64(g.from), int64(g.around)-reach))
		if !g.newest {
			g.to = int32(min(int64(g.to), int64(g.around)+reach+1))
		}
		g.cut()
	}
	return true
}

// cut lets go of what no longer lies in from..to.
func (g *gathering) cut() {
	for block, fps := range g.blocks {
		first, end := int64(block)<<blockBits, (int64(block)+1)<<blockBits
		if first >= int64(g.from) && end <= int64(g.to) {
			continue
		}
		before := len(*fps)
		*fps = slices.DeleteFunc(*fps, func(fp fingerprint) bool {
			m := fp.minuteIn(block)
			return m < g.from || m >= g.to
		})
		g.n -= before - len(*fps)
		if len(*fps) == 0 {
			delete(g.blocks, block)
		}
	}
	g.fps = nil
}

// parts are pages of what was gathered, which is let go.
func (g *gathering) parts() []part {
	var out []part
	from := g.from
	empty := func(to int32) {
		if from < to {
			out = divided(out, from, to, nil, g.batch)
			from = to
		}
	}
	for _, block := range slices.Sorted(maps.Keys(g.blocks)) {
		empty(max(g.from, block<<blockBits))
		to := int32(min(int64(g.to), (int64(block)+1)<<blockBits))
		out = divided(out, from, to, *g.blocks[block], g.batch)
		delete(g.blocks, block)
		from = to
	}
	empty(g.to)
	return out
}
