package index

import (
	"unsafe"

	"github.com/google/uuid"

	"sluice/consumer/internal/dedup"
)

// recent holds the rows of the keys seen last, exactly: a retry soon after its
// original is decided without a query. It is a cache in sets of four, the
// newest first in each, so of as many keys as it has entries the last half is
// there almost certainly and older ones by luck.
type recent struct {
	entries []entry // a power of two of them, or none
	since   int     // put since it grew
}

type entry struct {
	id    uuid.UUID // nil: none; an event id never is
	first dedup.First
}

const (
	ways = 4
	// recentMost entries are four megabytes.
	recentMost = 1 << 16
	// recentLeast is what it begins with.
	recentLeast = 1 << 10
	entryBytes  = int(unsafe.Sizeof(entry{}))
)

func (r *recent) bytes() int { return len(r.entries) * entryBytes }

func (r *recent) set(hash uint64) []entry {
	i := int(hash) & (len(r.entries)/ways - 1) * ways
	return r.entries[i : i+ways]
}

func (r *recent) get(hash uint64, id uuid.UUID) (dedup.First, bool) {
	if len(r.entries) == 0 {
		return dedup.First{}, false
	}
	for i, e := range r.set(hash) {
		if e.id == id {
			return r.set(hash)[i].first, true
		}
	}
	return dedup.First{}, false
}

func (r *recent) put(hash uint64, id uuid.UUID, first dedup.First) {
	if len(r.entries) == 0 {
		return
	}
	r.since++
	set := r.set(hash)
	last := ways - 1
	for i := range set {
		if set[i].id == id {
			last = i
			break
		}
	}
	copy(set[1:last+1], set[:last])
	set[0] = entry{id: id, first: first}
}

// fit gives it at most so many bytes, and more than it has when it is in use.
func (r *recent) fit(bytes int64, hash func(uuid.UUID) uint64) {
	most := recentMost
	for most > ways && int64(most)*int64(entryBytes) > bytes {
		most /= 2
	}
	size := max(len(r.entries), min(recentLeast, most))
	for size < most && r.since > size/2 {
		size *= 2
	}
	size = min(size, most)
	if size == len(r.entries) {
		return
	}
	old := r.entries
	r.entries = make([]entry, size)
	for i := len(old) - 1; i >= 0; i-- { // in each set the oldest first
		if old[i].id != uuid.Nil {
			r.put(hash(old[i].id), old[i].id, old[i].first)
		}
	}
	r.since = 0
}
