package decode

import "sync"

// buffers keeps memory for bodies, in a few sizes: a body begins in the smallest
// and moves on only as far as it arrives, so that what a client announces, or
// begins and does not go on with, costs little.
type buffers struct{ pools [len(sizes)]sync.Pool }

var sizes = [...]int{4 << 10, 32 << 10, 512 << 10}

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
