package event

import (
	"crypto/sha256"
	"time"
)

// DecodeInto is Decode into e, which holds nothing when there are faults, and
// returns the [PayloadHash] of its payload besides, for which it mostly need not
// read the payload again.
func (d *Decoder) DecodeInto(e *Event, body []byte, now time.Time) (Hash, []Fault) {
	*e = Event{}
	if d.fastEvent(e, body, now) {
		sum, ok := d.canonicalHash(e.Payload)
		d.scan.src = nil
		if ok {
			return Hash(sum[:16]), nil
		}
		return PayloadHash(e.Payload), nil
	}
	d.scan.src = nil
	var faults []Fault
	if *e, faults = d.general(body, now); len(faults) > 0 {
		return Hash{}, faults
	}
	return PayloadHash(e.Payload), nil
}

// canonicalHash hashes the canonical form of the payload that d.scan has just taken,
// if what was noted of it suffices: at most its members must be put in order.
func (d *Decoder) canonicalHash(payload []byte) (sum [sha256.Size]byte, ok bool) {
	switch {
	case d.noted.other:
		return sum, false
	case !d.noted.unordered:
		return sha256.Sum256(payload), true
	}
	members := d.scan.names[:d.noted.members]
	for i := 1; i < len(members); i++ { // they are few
		for j := i; j > 0 && d.scan.before(&members[j], &members[j-1]); j-- {
			members[j], members[j-1] = members[j-1], members[j]
		}
	}
	text := d.text[:0]
	for i := range members {
		text = append(text, ',')
		text = append(text, d.scan.src[members[i].from-1:members[i].end]...)
	}
	text[0] = '{'
	text = append(text, '}')
	sum = sha256.Sum256(text)
	if d.text = text; cap(text) > keepBytes {
		d.text = nil
	}
	return sum, true
}
