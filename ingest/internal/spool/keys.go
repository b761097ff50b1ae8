package spool

// keys remembers which keys have records in the spool, in a fixed amount of
// memory: a counter for each value of a part of the key's hash. Keys that share
// a counter with a spooled one go behind it for nothing, which costs them time
// and breaks no order. A counter that is full stays so until the spool is empty.
type keys struct{ counters []uint16 }

// keyCounters times two bytes is held while the spool is not empty, 4 MiB.
const keyCounters = 2 << 20

func (k *keys) add(hash uint32) {
	if k.counters == nil {
		k.counters = make([]uint16, keyCounters)
	}
	if c := &k.counters[hash%keyCounters]; *c < ^uint16(0) {
		*c++
	}
}

func (k *keys) remove(hash uint32) {
	if k.counters == nil {
		return
	}
	if c := &k.counters[hash%keyCounters]; *c > 0 && *c < ^uint16(0) {
		*c--
	}
}

func (k *keys) has(hash uint32) bool {
	return k.counters != nil && k.counters[hash%keyCounters] > 0
}

// reset forgets all; the spool is empty.
func (k *keys) reset() { k.counters = nil }
