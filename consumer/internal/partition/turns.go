package partition

import "sync"

// Turns bounds how many steps of re-reads the owners of a process take at a time. An
// INSERT costs ClickHouse by itself as much as thousands of its rows, so owners that
// take turns with large steps are done sooner than all at once with small ones, and
// live batches have less beside them. Without Turns (nil) there is no bound.
type Turns struct {
	mu    sync.Mutex
	free  int
	freed chan struct{} // closed, and made anew, when a turn is over
	short bool          // somebody was refused since
}

// NewTurns allows n steps at a time, and one where a step takes all n.
func NewTurns(n int) *Turns { return &Turns{free: n, freed: make(chan struct{})} }

// has tells whether n turns are free; if not, freed is closed when some are.
func (t *Turns) has(n int) (ok bool, freed <-chan struct{}) {
	if t == nil {
		return true, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.short = t.short || t.free < n
	return t.free >= n, t.freed
}

// take takes n turns if they are free. They must be given back.
func (t *Turns) take(n int) bool {
	if t == nil {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.free < n {
		t.short = true
		return false
	}
	t.free -= n
	return true
}

// giveBack ends a step. others tells that somebody else waits for a turn: who ends
// one leaves the next to them.
func (t *Turns) giveBack(n int) (others bool) {
	if t == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.free += n
	others, t.short = t.short, false
	close(t.freed)
	t.freed = make(chan struct{})
	return others
}
