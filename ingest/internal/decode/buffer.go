package decode

import "sync"

// buffers keeps memory for bodies, in a few sizes: a body begins in the smallest
// and moves on only as far as it arrives, so that what a client announces, or
// begins and does not go on with, costs little.
type buffers struct{ pools [len(sizes)]sync.Pool }

var sizes = [...]int{4 << 10, 16 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10}

// grown is how large a body's next buffer is when have bytes have arrived and
// filled the last. length is what the body is expected to have, or -1. Where that is
// known, sixteen times what is there spares most bodies all moves but one; where not,
// and beyond the kept sizes, the next is a step larger.
func grown(have int, length int64) int {
	next, largest := 2*have, sizes[len(sizes)-1]
	if length < 0 {
		return next
	}
	if have < largest {
		next = min(16*have, largest)
	}
	return max(min(next, int(length)+1), have+1) // one byte past the end is where EOF is found
}

// buffer is memory of one of the sizes, or of its own beyond the largest.
type buffer struct {
	bytes []byte
	class int // -1 beyond the largest
}

// get returns a buffer of at least n bytes.
func (p *buffers) get(n int) *buffer {
	for class, size := range sizes {
		if n > size {
			continue
		}
		if b, ok := p.pools[class].Get().(*buffer); ok {
			return b
		}
		return &buffer{make([]byte, size), class}
	}
	return &buffer{make([]byte, n), -1}
}

func (p *buffers) put(b *buffer) {
	if b != nil && b.class >= 0 {
		p.pools[b.class].Put(b)
	}
}
