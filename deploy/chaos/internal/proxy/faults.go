package proxy

import (
	"sync"
	"time"
)

// Direction says which of a connection's two ways a fault befalls.
type Direction int

// The directions. Both is for stalls and delays.
const (
	Up   Direction = 1 // from client to server
	Down Direction = 2 // from server to client
	Both           = Up | Down
)

func (d Direction) String() string {
	return map[Direction]string{Up: "requests", Down: "answers", Both: "both ways"}[d]
}

// faults is what befalls the connections of one client.
type faults struct {
	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every change
	stall   map[Direction]time.Time
	delay   map[Direction]delay
	lose    map[string]int // answers to be lost, by kind
	tear    map[string]tear
}

type delay struct {
	each  time.Duration
	until time.Time
}

// tear cuts a request short.
type tear struct {
	times int
	after int // bytes of the request that still arrive
}

func newFaults() *faults {
	f := &faults{changed: make(chan struct{})}
	f.reset()
	return f
}

func (f *faults) reset() {
	f.stall, f.delay = map[Direction]time.Time{}, map[Direction]delay{}
	f.lose, f.tear = map[string]int{}, map[string]tear{}
}

func (f *faults) change(how func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	how()
	close(f.changed)
	f.changed = make(chan struct{})
}

// hold waits as long as the way d is stalled or slow. It returns false when
// done is closed first.
func (f *faults) hold(d Direction, done <-chan struct{}) bool {
	f.mu.Lock()
	wait := time.Duration(0)
	if s := f.delay[d]; time.Now().Before(s.until) {
		wait = s.each
	}
	f.mu.Unlock()
	if wait > 0 && !sleep(wait, done) {
		return false
	}
	for {
		f.mu.Lock()
		wait, changed := time.Until(f.stall[d]), f.changed
		f.mu.Unlock()
		if wait <= 0 {
			return true
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-changed:
		case <-done:
			timer.Stop()
			return false
		}
		timer.Stop()
	}
}

func sleep(d time.Duration, done <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-done:
		return false
	}
}

// loses tells whether the answer to a request of kind is to be lost, and counts
// it.
func (f *faults) loses(kind string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, k := range []string{kind, Any} {
		if f.lose[k] > 0 {
			f.lose[k]--
			return true
		}
	}
	return false
}

// tears tells whether a request of kind is to be cut short, and after how many
// bytes; it counts it.
func (f *faults) tears(kind string) (after int, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, k := range []string{kind, Any} {
		if t := f.tear[k]; t.times > 0 {
			t.times--
			f.tear[k] = t
			return t.after, true
		}
	}
	return 0, false
}
