package admission

import (
	"runtime"
	"sync"
	"time"
)

// A refusal is work, too: the reading of a request and the writing of an answer. At
// several times the capacity the refusals alone would take the machine from those
// that were let in. So they may take part of it, and wait for their turn beyond.
const (
	// refusalBytes is what a refusal costs, in bytes as the rest is counted, and
	// refusalBodyPart the part of its body that counts as one that is taken does: it
	// comes through the kernel and is read, and not looked at.
	refusalBytes    = 1 << 10
	refusalBodyPart = 8
	// refusalsPart is the part of what is got through that may be spent on
	// refusals, and refusalsFree how many a second of each processor are never held
	// up: about a fiftieth of it.
	refusalsPart = 0.08
	refusalsFree = 1000
	// turnBurst is how far refusals may run ahead.
	turnBurst = 5 * time.Millisecond
	// turnMost is the longest that one waits.
	turnMost = time.Second
)

// turns spaces refusals.
type turns struct {
	free float64 // bytes a second, whatever is got through
	mu   sync.Mutex
	next time.Time // when all that have a turn have had it
}

func newTurns() turns {
	return turns{free: float64(refusalBytes * refusalsFree * runtime.GOMAXPROCS(0))}
}

// Turn returns how long a refusal has to wait for its turn, with a body of so many
// bytes: 0 while refusals take no more than their part, a second at the most. It is
// for clients that ask again at once: were they answered at once, they would leave
// nothing for the others.
func (l *Limiter) Turn(bytes int64) time.Duration {
	if l == nil {
		return 0
	}
	cost := refusalBytes + max(0, bytes)/refusalBodyPart
	rate := max(refusalsPart*float64(l.rate.Load()), l.turns.free)
	now := time.Now()
	t := &l.turns
	t.mu.Lock()
	defer t.mu.Unlock()
	if earliest := now.Add(-turnBurst); t.next.Before(earliest) {
		t.next = earliest
	}
	next := t.next.Add(time.Duration(float64(cost) / rate * float64(time.Second)))
	wait := next.Sub(now)
	if wait >= turnMost {
		return turnMost // these have no turn
	}
	t.next = next
	return max(0, wait)
}
