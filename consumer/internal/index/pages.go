package index

import (
	"math"
	"slices"
	"time"
	"unsafe"
)

// A page knows every key of its minutes for certain.
type page struct {
	keys set
	used uint64 // the last batch that asked or added a key of it
}

// pageBytes is what a page takes beside its keys: itself, one segment, and its
// place among the others.
const pageBytes = int(unsafe.Sizeof(page{})+unsafe.Sizeof(segment{})) + 16

// pageKeys is the keys past which a page of several minutes is divided.
const pageKeys = 1 << 13

// Minutes are whole minutes since 1970, rounded down. What can be stored lies
// between -36,816,480 and 153,722,867.
const (
	firstMinute = math.MinInt32
	endMinute   = math.MaxInt32
)

func minuteOf(t time.Time) int32 {
	s := t.Unix()
	if s < 0 {
		s -= 59
	}
	return int32(s / 60)
}

func timeOf(minute int32) time.Time { return time.Unix(int64(minute)*60, 0).UTC() }

func blockOf(minute int32) int32 { return minute >> blockBits }

// part is a page with its minutes: from inclusive, to exclusive. One that holds
// keys lies within a block.
type part struct {
	from, to int32
	page     *page
}

// divided makes parts of a block's minutes from..to out of its fingerprints,
// halving the time until few enough are together or it is one minute. fps is
// reordered.
func divided(dst []part, from, to int32, fps []fingerprint, used uint64) []part {
	if len(fps) <= pageKeys || to-from == 1 {
		if n := len(dst); len(fps) == 0 && n > 0 && dst[n-1].to == from && dst[n-1].page.keys.n == 0 {
			dst[n-1].to = to
			return dst
		}
		return append(dst, part{from: from, to: to, page: &page{keys: setOf(fps), used: used}})
	}
	middle := from + (to-from)/2
	n, block := 0, blockOf(from)
	for i, fp := range fps {
		if fp.minuteIn(block) < middle {
			fps[i], fps[n] = fps[n], fp
			n++
		}
	}
	dst = divided(dst, from, middle, fps[:n], used)
	return divided(dst, middle, to, fps[n:], used)
}

// pages are in ascending order and don't overlap. What no page covers is
// absent. They grow with what is known, not with time: a page without keys may
// cover centuries, a minute with many keys has one of its own.
type pages struct {
	from, to []int32
	page     []*page
	keys     int
	bytes    int
	last     int // where the last find was
}

// find is the page of a minute, -1 if it is absent.
func (p *pages) find(minute int32) int {
	if i := p.last; i < len(p.from) && p.from[i] <= minute && minute < p.to[i] {
		return i
	}
	i := p.after(minute) - 1
	if i < 0 || minute >= p.to[i] {
		return -1
	}
	p.last = i
	return i
}

// after is the first page that begins after a minute.
func (p *pages) after(minute int32) int {
	lo, hi := 0, len(p.from)
	for lo < hi {
		middle := int(uint(lo+hi) / 2)
		if p.from[middle] <= minute {
			lo = middle + 1
		} else {
			hi = middle
		}
	}
	return lo
}

// gap is what is absent around an absent minute.
func (p *pages) gap(minute int32) (from, to int32) {
	from, to = firstMinute, endMinute
	i := p.after(minute)
	if i > 0 {
		from = p.to[i-1]
	}
	if i < len(p.from) {
		to = p.from[i]
	}
	return from, to
}

// add notes a key in page i, and tells whether it was not there.
func (p *pages) add(i int, minute int32, fp fingerprint) (fresh bool) {
	if p.page[i].keys.n == 0 {
		i = p.narrow(i, minute)
	}
	g := p.page[i]
	bytes := g.keys.bytes
	if !g.keys.add(fp) {
		p.bytes += g.keys.bytes - bytes
		return false
	}
	p.keys++
	p.bytes += g.keys.bytes - bytes
	if g.keys.n > pageKeys && p.to[i]-p.from[i] > 1 {
		fps := g.keys.appendTo(make([]fingerprint, 0, g.keys.n))
		p.replace(i, i+1, divided(nil, p.from[i], p.to[i], fps, g.used))
	}
	return true
}

// drop forgets the pages that lie in a block.
func (p *pages) drop(block int32) {
	first := p.after(block<<blockBits - 1)
	end := first
	for end < len(p.page) && blockOf(p.to[end]-1) == block {
		end++
	}
	p.replace(first, end, nil)
}

// narrow cuts page i, which has no keys, to the block of a minute and returns
// where it is then.
func (p *pages) narrow(i int, minute int32) int {
	from, to, used := p.from[i], p.to[i], p.page[i].used
	first := max(from, blockOf(minute)<<blockBits)
	end := to
	if blockOf(to-1) != blockOf(minute) {
		end = (blockOf(minute) + 1) << blockBits
	}
	if first == from && end == to {
		return i
	}
	var parts []part
	if from < first {
		parts = append(parts, part{from, first, &page{used: used}})
	}
	parts = append(parts, part{first, end, &page{used: used}})
	if end < to {
		parts = append(parts, part{end, to, &page{used: used}})
	}
	p.replace(i, i+1, parts)
	return p.find(minute)
}

// replace puts parts in the place of pages i to j, which they cover or which
// are none.
func (p *pages) replace(i, j int, parts []part) {
	for _, g := range p.page[i:j] {
		p.keys -= g.keys.n
		p.bytes -= pageBytes + g.keys.bytes
	}
	n := len(parts)
	from, to, page := make([]int32, n), make([]int32, n), make([]*page, n)
	for k, part := range parts {
		from[k], to[k], page[k] = part.from, part.to, part.page
		p.keys += part.page.keys.n
		p.bytes += pageBytes + part.page.keys.bytes
	}
	p.from = slices.Replace(p.from, i, j, from...)
	p.to = slices.Replace(p.to, i, j, to...)
	p.page = slices.Replace(p.page, i, j, page...)
	p.join(i + n)
	p.join(i)
}

// join makes one of pages i-1 and i if neither has keys and nothing lies
// between.
func (p *pages) join(i int) {
	if i < 1 || i >= len(p.page) || p.to[i-1] != p.from[i] || p.page[i-1].keys.n > 0 || p.page[i].keys.n > 0 {
		return
	}
	p.page[i-1].used = max(p.page[i-1].used, p.page[i].used)
	p.to[i-1] = p.to[i]
	p.from, p.to, p.page = slices.Delete(p.from, i, i+1), slices.Delete(p.to, i, i+1), slices.Delete(p.page, i, i+1)
	p.bytes -= pageBytes
}

// idle is the bytes of pages with keys that no batch since has touched.
func (p *pages) idle(since uint64) int {
	n := 0
	for _, g := range p.page {
		if g.keys.n > 0 && g.used < since {
			n += pageBytes + g.keys.bytes
		}
	}
	return n
}

// emptyMost is how many pages without keys are kept when memory is short; they
// cost little and are dear to those who ask for new keys.
const emptyMost = 1 << 12

// evict drops the pages not used for longest, of those the oldest first, until
// no more than so many bytes are held.
func (p *pages) evict(most int) {
	withEmpty := 0
	for _, g := range p.page {
		if g.keys.n == 0 {
			withEmpty++
		}
	}
	order := make([]int, 0, len(p.page))
	for i, g := range p.page {
		if g.keys.n > 0 || withEmpty > emptyMost {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch ua, ub := p.page[a].used, p.page[b].used; {
		case ua < ub:
			return -1
		case ua > ub:
			return 1
		}
		return 0
	})
	for _, i := range order {
		if p.bytes <= most {
			break
		}
		p.keys -= p.page[i].keys.n
		p.bytes -= pageBytes + p.page[i].keys.bytes
		p.page[i] = nil
	}
	n := 0
	for i, g := range p.page {
		if g != nil {
			p.from[n], p.to[n], p.page[n] = p.from[i], p.to[i], g
			n++
		}
	}
	clear(p.page[n:])
	p.from, p.to, p.page = p.from[:n], p.to[:n], p.page[:n]
}
