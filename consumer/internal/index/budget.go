package index

import "sync/atomic"

// Budget bounds the memory of all indexes of a process and how many loads they
// run at a time. It is for concurrent use.
type Budget struct {
	bytes int64
	live  atomic.Int64
	used  atomic.Int64
	loads chan struct{}
}

// NewBudget gives the indexes that share it this many bytes, in equal parts to
// those that are open, and lets at most so many loads run at a time: each is a
// query that keeps ClickHouse busy. Values below 1 count as 1.
//
// An index comes back under its share at its next [Index.Take], so after
// another has been opened, and while a batch is added, the sum may be more.
func NewBudget(bytes int64, loads int) *Budget {
	return &Budget{bytes: max(bytes, 1), loads: make(chan struct{}, max(loads, 1))}
}

// Share is what an index may use, in bytes.
func (b *Budget) Share() int64 { return b.bytes / max(b.live.Load(), 1) }

// Used is what the open indexes use, in bytes, as of each one's last
// [Index.Take].
func (b *Budget) Used() int64 { return b.used.Load() }
