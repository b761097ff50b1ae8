package known

import (
	"encoding/binary"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/google/uuid"

	"sluice/ingest/internal/delivery"
	"sluice/schemas/event"
)

// place is where the log holds a key's first record that this edge knows of.
type place struct {
	hash      event.Hash // of its payload
	offset    int64
	partition int32
}

// entry is one remembered key: 48 bytes and no pointer, so that the collector has
// nothing to look for in the memory.
type entry struct {
	id    uuid.UUID // the zero id: nothing here
	place place
	since uint32 // seconds, on the memory's clock
}

// ways is how many keys share a row. A row forgets its oldest first, so that
// the whole forgets about its oldest first; ids are hashes and spread evenly.
const ways = 8

// row holds the keys whose ids fall on it. A new key, of which there are most,
// is seen to be none of them by the tags: one line of the processor's cache instead
// of six.
type row struct {
	tags    [ways / perWord]atomic.Uint64 // of each entry; stored with the shard locked, loaded by everyone
	next    uint32                        // the entry to overwrite
	entries [ways]entry
}

const (
	tagBits = 16
	perWord = 64 / tagBits
)

// tag is a part of the id that does not say where it falls.
func tag(id uuid.UUID) uint16 { return binary.LittleEndian.Uint16(id[0:2]) }

func (r *row) setTag(i int, t uint16) {
	word, by := &r.tags[i/perWord], i%perWord*tagBits
	word.Store(word.Load()&^(0xffff<<by) | uint64(t)<<by)
}

// at returns where id is among the entries, however old; -1 when it is not.
func (r *row) at(id uuid.UUID) int {
	want := tag(id)
	for w := range r.tags {
		tags := r.tags[w].Load()
		for i := w * perWord; i < (w+1)*perWord; i, tags = i+1, tags>>tagBits {
			if uint16(tags) == want && r.entries[i].id == id {
				return i
			}
		}
	}
	return -1
}

const rowBytes = int64(unsafe.Sizeof(row{}))

const shards = 64

// shard is a part of the memory, with what is on its way to the log beside it,
// so that one lock covers the step from the one to the other.
type shard struct {
	mu     sync.Mutex
	rows   []row
	flying map[uuid.UUID]*call // keys whose first record is on its way
	_      [64]byte            // the next shard's lock is on another cache line
}

// memory is what has been acknowledged lately: fixed in size, made once. Its
// clock is monotonic: the wall clock may jump.
type memory struct {
	shards [shards]shard
	age    time.Duration
	begun  time.Time
}

func newMemory(bytes int64, age time.Duration) *memory {
	m := &memory{age: age, begun: time.Now()}
	rows := max(1, int(bytes/rowBytes/shards))
	all, free := newRows(rows * shards)
	if free != nil {
		runtime.AddCleanup(m, func(free func()) { free() }, free)
	}
	for i := range m.shards {
		m.shards[i].rows = all[i*rows : (i+1)*rows : (i+1)*rows]
		m.shards[i].flying = map[uuid.UUID]*call{}
	}
	return m
}

func (m *memory) now() uint32 { return uint32(time.Since(m.begun) / time.Second) }

// shard returns the shard of id, and the row of it. Bytes 8 and 6 hold the
// UUID's variant and version and are not looked at.
func (m *memory) shard(id uuid.UUID) *shard { return &m.shards[id[9]%shards] }

func (s *shard) row(id uuid.UUID) *row {
	return &s.rows[uint64(binary.LittleEndian.Uint32(id[10:14]))*uint64(len(s.rows))>>32]
}

// warm has the processor fetch what the search for each of ds will look at first.
// The searches themselves each take a lock, behind which nothing is fetched ahead;
// here many lines come at a time.
func (m *memory) warm(ds []*delivery.Delivery) {
	for _, d := range ds {
		m.shard(d.ID).row(d.ID).tags[0].Load()
	}
}

// find returns where the log holds id, if that is known. The shard is locked.
func (m *memory) find(s *shard, id uuid.UUID) (place, bool) {
	r := s.row(id)
	i := r.at(id)
	if i < 0 {
		return place{}, false
	}
	e := &r.entries[i]
	return e.place, !m.old(e, m.now())
}

// old tells whether e is too old to be known. It may be a moment younger than now.
func (m *memory) old(e *entry, now uint32) bool {
	return int32(now-e.since) > int32(m.age/time.Second)
}

// remember notes where the log holds id. What is known of it already and not too
// old stands: the first payload is what others are compared with. The shard is
// locked.
func (m *memory) remember(s *shard, id uuid.UUID, p place, now uint32) {
	r := s.row(id)
	at := r.at(id)
	switch {
	case at < 0:
		at = int(r.next % ways)
		r.next++
	case !m.old(&r.entries[at], now):
		return
	}
	r.setTag(at, tag(id))
	r.entries[at] = entry{id: id, place: p, since: now}
}

// forget forgets everything that was acknowledged.
func (m *memory) forget() {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		for j := range s.rows {
			r := &s.rows[j]
			for w := range r.tags {
				r.tags[w].Store(0)
			}
			r.next = 0
			clear(r.entries[:])
		}
		s.mu.Unlock()
	}
}
