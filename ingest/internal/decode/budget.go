package decode

import "sync/atomic"

// Budget bounds the bytes that all requests in flight hold together: their
// bodies and what is made of them. It is safe for concurrent use.
type Budget struct {
	limit int64
	used  atomic.Int64
}

// NewBudget returns a budget of limit bytes.
func NewBudget(limit int64) *Budget { return &Budget{limit: limit} }

// Used is how many bytes are taken now.
func (b *Budget) Used() int64 { return b.used.Load() }

// Limit is how many bytes there are in all.
func (b *Budget) Limit() int64 { return b.limit }

// Take takes n bytes, or none at all when fewer are left.
func (b *Budget) Take(n int64) bool {
	if b.used.Add(n) > b.limit {
		b.used.Add(-n)
		return false
	}
	return true
}

// Give gives n taken bytes back.
func (b *Budget) Give(n int64) { b.used.Add(-n) }
