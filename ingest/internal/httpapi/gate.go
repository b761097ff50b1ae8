package httpapi

import "runtime"

// gate lets as many batches be taken apart at a time as there are processors. Others
// wait for it in their order, and not for a processor: the scheduler, which asks all
// in turn, would else have whoever is only to be refused wait behind all the batches
// that were let in. nil lets everyone through.
type gate chan struct{}

func newGate() gate { return make(gate, runtime.GOMAXPROCS(0)) }

func (g gate) enter() {
	if g == nil {
		return
	}
	select {
	case g <- struct{}{}:
	default:
		g <- struct{}{}
		// Who is woken goes before all that wait for a processor. It shall not.
		runtime.Gosched()
	}
}

func (g gate) leave() {
	if g != nil {
		<-g
	}
}

// again lets others through that wait, if any.
func (g gate) again() {
	if len(g) == cap(g) && g != nil {
		g.leave()
		g.enter()
	}
}

// gateItems is how many items are taken apart between two looks at who else waits: so
// a small batch does not wait for all of a large one.
const gateItems = 256
