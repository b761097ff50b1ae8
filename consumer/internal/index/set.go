package index

import "math/bits"

// A fingerprint stands for a key in 64 bits: of the 16 lowest, which minute of
// its block the key lies in (so that a page can be divided by time without its
// keys being known), the others a keyed hash of the event id. It is never 0.
type fingerprint uint64

const (
	blockBits = 16
	// blockMinutes is the minutes of a block: 45 days and a half.
	blockMinutes = 1 << blockBits
)

func fingerprintOf(hash uint64, minute int32) fingerprint {
	hash &^= blockMinutes - 1
	if hash == 0 {
		hash = blockMinutes
	}
	return fingerprint(hash | uint64(minute)&(blockMinutes-1))
}

// minuteIn is the minute of a fingerprint that lies in a block.
func (f fingerprint) minuteIn(block int32) int32 {
	return block<<blockBits | int32(f&(blockMinutes-1))
}

// set is a set of fingerprints, 11 to 16 bytes each. It grows by linear hashing:
// its segments are divided one at a time, each some hundred kilobytes, so that
// no growth holds the owner up or needs the memory of the whole twice.
type set struct {
	segments []segment
	n        int
	bytes    int // of the segments' slots
}

// segmentKeys is the mean number of keys of a segment past which one is divided.
const segmentKeys = 1 << 15

// setOf takes fps in; the room is made for them at once.
func setOf(fps []fingerprint) set {
	var s set
	if len(fps) == 0 {
		return s
	}
	s.segments = make([]segment, (len(fps)+segmentKeys-1)/segmentKeys)
	each := len(fps)/len(s.segments)*3/2 + 8
	for i := range s.segments {
		s.segments[i].slots = make([]fingerprint, each)
	}
	s.bytes = 8 * each * len(s.segments)
	for _, fp := range fps {
		s.add(fp)
	}
	return s
}

func (s *set) has(fp fingerprint) bool {
	return len(s.segments) > 0 && s.segments[s.of(fp)].has(fp)
}

// slot is where a fingerprint is looked for first; nil where there is none.
func (s *set) slot(fp fingerprint) *fingerprint {
	if len(s.segments) == 0 {
		return nil
	}
	if slots := s.segments[s.of(fp)].slots; len(slots) > 0 {
		return &slots[slotOf(fp, len(slots))]
	}
	return nil
}

// add tells whether fp is new.
func (s *set) add(fp fingerprint) bool {
	if len(s.segments) == 0 {
		s.segments = make([]segment, 1)
	}
	g := &s.segments[s.of(fp)]
	before := len(g.slots)
	if !g.add(fp) {
		return false
	}
	s.n++
	s.bytes += 8 * (len(g.slots) - before)
	if s.n > segmentKeys*len(s.segments) {
		s.divide()
	}
	return true
}

// of is the segment of a fingerprint: by as many of the hash's low bits as
// number the segments, by one less where that one is not there yet.
func (s *set) of(fp fingerprint) int {
	n := len(s.segments)
	level := bits.Len(uint(n - 1))
	i := int(fp>>blockBits) & (1<<level - 1)
	if i >= n {
		i &= 1<<(level-1) - 1
	}
	return i
}

// divide appends a segment and moves into it what belongs there, which is all
// in one other.
func (s *set) divide() {
	n := len(s.segments)
	from := n - 1<<(bits.Len(uint(n))-1)
	old := s.segments[from]
	half := make([]fingerprint, old.n*3/4+8)
	s.segments = append(s.segments, segment{slots: make([]fingerprint, len(half))})
	s.segments[from] = segment{slots: half}
	for _, fp := range old.slots {
		if fp != 0 {
			s.segments[s.of(fp)].add(fp)
		}
	}
	s.bytes += 8 * (len(s.segments[from].slots) + len(s.segments[n].slots) - len(old.slots))
}

// appendTo appends all fingerprints to dst.
func (s *set) appendTo(dst []fingerprint) []fingerprint {
	for _, g := range s.segments {
		for _, fp := range g.slots {
			if fp != 0 {
				dst = append(dst, fp)
			}
		}
	}
	return dst
}

// segment is an open addressing table with linear probing, 0 for an empty slot.
// A slot is found by multiplication, so a table may have any length and grow by
// half; in slot order its entries ascend, so growing it is one pass. It is three
// quarters full at most: a new key is then told by some five slots, nine tenths full
// by fifty.
type segment struct {
	slots []fingerprint
	n     int
}

func (g *segment) has(fp fingerprint) bool {
	if g.n == 0 {
		return false
	}
	slots := g.slots
	for i := slotOf(fp, len(slots)); ; {
		switch slots[i] {
		case fp:
			return true
		case 0:
			return false
		}
		if i++; i == len(slots) {
			i = 0
		}
	}
}

// add tells whether fp is new.
func (g *segment) add(fp fingerprint) bool {
	if 4*(g.n+1) > 3*len(g.slots) {
		if g.has(fp) {
			return false
		}
		old := g.slots
		g.slots = make([]fingerprint, len(old)+max(8, len(old)/2))
		for _, fp := range old {
			if fp != 0 {
				g.place(fp)
			}
		}
	}
	if !g.place(fp) {
		return false
	}
	g.n++
	return true
}

func (g *segment) place(fp fingerprint) bool {
	for i := slotOf(fp, len(g.slots)); ; {
		switch g.slots[i] {
		case fp:
			return false
		case 0:
			g.slots[i] = fp
			return true
		}
		if i++; i == len(g.slots) {
			i = 0
		}
	}
}

func slotOf(fp fingerprint, slots int) int {
	hi, _ := bits.Mul64(uint64(fp), uint64(slots))
	return int(hi)
}
