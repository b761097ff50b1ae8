package index

import (
	"unsafe"

	"github.com/google/uuid"

	"sluice/consumer/internal/dedup"
)

// recent holds the rows of the keys seen last, exactly: a retry soon after its
// original is decided without a query. They lie one after the other, the newest over
// the oldest; a table of sets of four, the newest first in each, says where. So of as
// many keys as there are entries the last half is found almost certainly and older
// ones by luck.
type recent struct {
	entries []entry // a power of two of them, or none
	places  []place // as many
	next    int     // which entry is the oldest
	since   int     // put since it grew
}

type entry struct {
	id    uuid.UUID
	first dedup.First
}

// place is an entry's number, and in the upper half what is left of its key's hash: a
// key is compared where that agrees. 0: none.
type place uint32

const (
	ways = 4
	// recentMost entries are some four megabytes; a place can number no more.
	recentMost = 1 << 16
	// recentLeast is what it begins with.
	recentLeast = 1 << 10
	entryBytes  = int(unsafe.Sizeof(entry{}) + unsafe.Sizeof(place(0)))
)

// placeOf keeps hash bits that choose no set.
func placeOf(hash uint64, at int) place { return place(hash>>48|1)<<16 | place(at) }

func (p place) at() int             { return int(p & 0xffff) }
func (p place) like(of uint64) bool { return p>>16 == place(of>>48|1) }

func (r *recent) bytes() int { return len(r.entries) * entryBytes }

func (r *recent) set(hash uint64) []place {
	i := int(hash) & (len(r.places)/ways - 1) * ways
	return r.places[i : i+ways]
}

func (r *recent) get(hash uint64, id uuid.UUID) (dedup.First, bool) {
	if len(r.entries) == 0 {
		return dedup.First{}, false
	}
	for _, p := range r.set(hash) {
		if p.like(hash) && r.entries[p.at()].id == id {
			return r.entries[p.at()].first, true
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
	for i, p := range set {
		if p.like(hash) && r.entries[p.at()].id == id {
			last = i
			break
		}
	}
	copy(set[1:last+1], set[:last])
	set[0] = placeOf(hash, r.next)
	r.entries[r.next] = entry{id: id, first: first}
	r.next = (r.next + 1) & (len(r.entries) - 1)
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
	old, oldest := r.entries, r.next
	*r = recent{entries: make([]entry, size), places: make([]place, size)}
	for i := range old { // the oldest first
		if e := &old[(oldest+i)&(len(old)-1)]; e.id != uuid.Nil {
			r.put(hash(e.id), e.id, e.first)
		}
	}
	r.since = 0
}
