package dedup

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"

	"github.com/google/uuid"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/mutant"
)

// own finds a batch's rows by their ids. It knows each by where it stands in the
// batch, 4 bytes in a table that is half empty at least: a map of ids takes twice
// the time, most of it for memory that is new with each batch.
type own struct {
	records []*batch.Record
	slots   []int32 // 1 + where a row stands; 0: none
	// Ids follow from what is sent: with a secret, nobody can send those that meet
	// in one slot.
	seed maphash.Seed
}

func newOwn(records []*batch.Record) *own {
	return &own{records: records, slots: make([]int32, 1<<bits.Len(uint(2*len(records)))), seed: maphash.MakeSeed()}
}

// find returns the slot of the row that has id, or the one where it would go.
func (o *own) find(id uuid.UUID) *int32 {
	for i := maphash.Bytes(o.seed, id[:]); ; i++ {
		slot := &o.slots[i&uint64(len(o.slots)-1)]
		if *slot == 0 || o.records[*slot-1].ID == id || mutant.On("another-row-in-its-slot") {
			return slot
		}
	}
}

// row returns where the row that has id stands.
func (o *own) row(id uuid.UUID) (at int, ok bool) {
	slot := *o.find(id)
	return int(slot) - 1, slot != 0
}

// add notes the row that stands at a place; it replaces another of its id.
func (o *own) add(at int) {
	if !mutant.On("own-row-forgotten") {
		*o.find(o.records[at].ID) = int32(at) + 1
	}
}

// Repeats tells which ids of a batch may have come before: in it, or as a row. It has a
// bit for 16 of an id's bits, which a hash made. Of most ids it can say that they come
// for the first time and not again in the batch, and nothing need be looked through for
// them.
type Repeats [1 << 16 / 64]uint64

func bitOf(id uuid.UUID) uint16 { return binary.LittleEndian.Uint16(id[:]) }

// Note notes an id that may have come before.
func (s *Repeats) Note(id uuid.UUID) {
	at := bitOf(id)
	s[at/64] |= 1 << (at % 64)
}

// May tells whether an id may have been noted. Of a nil s it may.
func (s *Repeats) May(id uuid.UUID) bool {
	at := bitOf(id)
	return s == nil || s[at/64]>>(at%64)&1 == 1
}
