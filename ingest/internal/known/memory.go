package known

import (
	"encoding/binary"
	"sync"
	"time"
	"unsafe"

	"github.com/google/uuid"

	"sluice/schemas/event"
)

// place is where the log holds a key's first record that this edge knows of.
type place struct {
	hash      event.Hash // of its payload
	offset    int64
	partition int32
}

// entry is one remembered key: 48 bytes and no pointer, so that the collector
// never looks into the memory.
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
	tags    [ways]uint16 // of each entry
	next    uint32       // the entry to overwrite
	entries [ways]entry
}

// tag is a part of the id that does not say where it falls.
func tag(id uuid.UUID) uint16 { return binary.LittleEndian.Uint16(id[0:2]) }

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
	rows := max(1, bytes/rowBytes/shards)
	for i := range m.shards {
		m.shards[i].rows = make([]row, rows)
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

// find returns where the log holds id, if that is known. The shard is locked.
func (m *memory) find(s *shard, id uuid.UUID) (place, bool) {
	r := s.row(id)
	for i, t := range r.tags {
		if t != tag(id) {
			continue
		}
		if e := &r.entries[i]; e.id == id {
			return e.place, m.now()-e.since <= uint32(m.age/time.Second)
		}
	}
	return place{}, false
}

// remember notes where the log holds id. What is known of it already and not too
// old stands: the first payload is what others are compared with. The shard is
// locked.
func (m *memory) remember(s *shard, id uuid.UUID, p place) {
	if _, ok := m.find(s, id); ok {
		return
	}
	r := s.row(id)
	at := -1
	for i, t := range r.tags { // one too old is renewed where it stands
		if t == tag(id) && r.entries[i].id == id {
			at = i
		}
	}
	if at < 0 {
		at = int(r.next % ways)
		r.next++
	}
	r.tags[at] = tag(id)
	r.entries[at] = entry{id: id, place: p, since: m.now()}
}

// forget forgets everything that was acknowledged.
func (m *memory) forget() {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		clear(s.rows)
		s.mu.Unlock()
	}
}
