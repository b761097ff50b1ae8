package index

import "sluice/consumer/internal/batch"

// together is how many keys are probed at once.
const together = 32

// probe is where a key is looked for.
type probe struct {
	hash   uint64
	fp     fingerprint
	minute int32
	page   *page // nil: it is not in memory
}

// probe sets probes, one a record, and reads what stands where each key would be.
// Among millions of keys nearly each of them is a miss of the processor's caches.
// Reads that need nothing of one another are waited for together, so that many keys
// take little longer than one.
func (x *Index) probe(probes *[together]probe, records []*batch.Record) {
	var slots [together]*fingerprint
	n := 0
	for i, r := range records {
		p := &probes[i]
		p.hash, p.minute, p.page = x.hash(r.ID), minuteOf(r.Event.OccurredAt), nil
		p.fp = fingerprintOf(p.hash, p.minute)
		if i := x.pages.find(p.minute); i >= 0 {
			p.page = x.pages.page[i]
			if slot := p.page.keys.slot(p.fp); slot != nil {
				slots[n] = slot
				n++
			}
		}
	}
	for _, slot := range slots[:n] {
		x.probed ^= *slot // kept, or the compiler would leave the reading out
	}
}
