package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/ingest/internal/cloudevents"
	"sluice/ingest/internal/decode"
	"sluice/ingest/internal/delivery"
	"sluice/ingest/internal/guard"
	"sluice/ingest/internal/problem"
	"sluice/schemas/event"
)

// itemOverheadBytes is what an item of a batch is reckoned to need beyond its
// texts: its record and headers, its place in the lists, its part of the answer.
const itemOverheadBytes = 768

const (
	slabRecords = 256      // records made at a time
	textBytes   = 64 << 10 // bytes of text made at a time
)

// slab is memory for the records of a batch, their texts apart.
type slab struct {
	deliveries [slabRecords]delivery.Delivery
	headers    [slabRecords * maxHeaders]kgo.RecordHeader
}

// lists are of the items of a batch, and its answer.
type lists struct {
	items  []item
	valid  []*delivery.Delivery
	answer []byte
}

const (
	mostKept        = 4096      // items that lists may have had to be kept
	mostAnswerBytes = 512 << 10 // and their answer
)

// memory keeps what a batch was made of for the next.
type memory struct {
	slabs sync.Pool // *slab
	texts sync.Pool // *[textBytes]byte
	lists sync.Pool // *lists
}

func (m *memory) slab() *slab {
	if s, ok := m.slabs.Get().(*slab); ok {
		return s
	}
	return new(slab)
}

func (m *memory) list() *lists {
	if l, ok := m.lists.Get().(*lists); ok {
		return l
	}
	return new(lists)
}

func (m *memory) text() []byte {
	if t, ok := m.texts.Get().(*[textBytes]byte); ok {
		return t[:0]
	}
	return make([]byte, 0, textBytes)
}

// batch is one batch on its way from the body to the answer: its items, and of those
// that are valid, in their order, the deliveries.
type batch struct {
	cfg    Config
	budget *decode.Budget
	taken  int64 // of the budget
	full   bool  // the budget was used up
	gate   gate
	seen   int // items
	visit  *guard.Visit
	reader reader
	form   form
	stamp  stamp
	now    time.Time

	*lists

	memory *memory
	slabs  []*slab
	used   int // records of the last slab
	texts  [][]byte
	text   []byte // the last of texts, as far as it is used
}

// faultOverheadBytes is a fault's size without its texts.
const faultOverheadBytes = 64

// item is what became of one item: rejected when it has faults, else what its
// delivery says.
type item struct {
	faults   []event.Fault
	delivery *delivery.Delivery
}

// postBatch takes many events: POST /api/events/batch.
func (a *API) postBatch(w http.ResponseWriter, r *http.Request) *problem.Error {
	media, perr := decode.MediaType(r.Header, batchTypes...)
	if perr != nil {
		return perr
	}
	var p posting
	if perr := a.enter(&p, w, r, a.cfg.BodyBytes, problem.BodyTooLarge); perr != nil {
		return perr
	}
	defer a.leave(&p)
	b := &batch{cfg: a.cfg, budget: a.budget, gate: a.gate, memory: &a.memory, lists: a.memory.list(), stamp: a.newStamp(r.Header, p.received), now: p.received, visit: &p.visit}
	defer func() { b.budget.Give(b.taken) }()
	if perr := a.split(b, media, p.body.Bytes()); perr != nil {
		return perr
	}
	if perr := p.visit.Spend(w, len(b.items)); perr != nil {
		b.release()
		return perr
	}
	p.body.Release() // all of it is in the records
	if len(b.valid) == 0 || a.parts.Log.Send(r.Context(), b.valid) {
		defer b.release()
	}
	a.cfg.Limiter.Leave(&p.ticket, slices.ContainsFunc(b.valid, taken))
	prefer := preferencesOf(r.Header)
	a.await(r, prefer, p.begun, b.valid)
	result := b.result()
	result.count(a.metrics)
	a.applied(w.Header(), prefer, true)
	if !keepsAnswer(r) {
		result.write(w, prefer.minimal, nil)
		return nil
	}
	b.answer = result.write(w, prefer.minimal, b.answer[:0])
	return nil
}

// split takes the body apart and decodes every item.
func (a *API) split(b *batch, media string, body []byte) *problem.Error {
	a.gate.enter()
	defer a.gate.leave()
	b.reader.events = a.decoder()
	defer a.decoders.Put(b.reader.events)
	if media == cloudevents.TypeBatch {
		b.form = structured
	}
	var err error
	if media == decode.TypeNDJSON {
		err = decode.Lines(body, a.cfg.BatchItems, b.add)
	} else {
		err = decode.Array(body, a.cfg.BatchItems, b.add)
	}
	var not *decode.NotBatch
	switch {
	case b.full:
		return problem.New(problem.Overloaded, "the requests in flight fill the memory set aside for them; send it again later, or in smaller batches")
	case errors.Is(err, decode.ErrTooMany):
		return problem.New(problem.TooManyItems, fmt.Sprintf("a batch may have %d events; send the rest in another", a.cfg.BatchItems))
	case errors.As(err, &not):
		return problem.New(problem.InvalidBatch, not.Fault.String(), not.Fault)
	case err != nil:
		return problem.New(problem.InvalidBatch, err.Error())
	}
	return nil
}

// add decodes the next item, and tells whether it is a valid event. When the
// budget is used up the rest of the items count for nothing.
func (b *batch) add(text []byte) bool {
	if b.full || !b.take(itemOverheadBytes) {
		b.full = true
		return true
	}
	if b.seen++; b.seen%gateItems == 0 {
		b.gate.again()
	}
	if int64(len(text)) > b.cfg.EventBytes {
		b.reject(event.Fault{
			Kind: event.FaultTooLarge, Detail: "has " + strconv.Itoa(len(text)) + " bytes",
			Allowed: "at most " + strconv.FormatInt(b.cfg.EventBytes, 10),
		})
		return false
	}
	e, extra, faults := b.reader.read(b.form, nil, text, b.now)
	var schema string
	if faults == nil {
		schema, faults = b.visit.Check(&e)
		faults = b.reader.cloud.Translate(faults)
	}
	if faults != nil {
		b.reject(faults...)
		return false
	}
	if !b.room(textBound(&e, schema)) {
		b.full = true
		return true
	}
	last := b.slabs[len(b.slabs)-1]
	d, headers := &last.deliveries[b.used], last.headers[b.used*maxHeaders:b.used*maxHeaders:(b.used+1)*maxHeaders]
	b.used++
	b.text = b.stamp.fill(d, &e, schema, b.text, headers)
	along(d, extra, b.stamp)
	b.items = append(b.items, item{delivery: d})
	b.valid = append(b.valid, d)
	return true
}

// reject notes why the next item is refused. The texts are charged to the budget:
// a batch of 100,000 small items can have more to be told than it says.
func (b *batch) reject(faults ...event.Fault) {
	n := 0
	for i := range faults {
		n += faultOverheadBytes + len(faults[i].Pointer) + len(faults[i].Detail) + len(faults[i].Allowed)
	}
	if !b.take(int64(n)) {
		b.full = true
		return
	}
	b.items = append(b.items, item{faults: faults})
}

// room sees to it that a record with n bytes of text can be made without moving
// what was made before.
func (b *batch) room(n int) bool {
	if len(b.slabs) == 0 || b.used == slabRecords {
		b.slabs, b.used = append(b.slabs, b.memory.slab()), 0
	}
	if cap(b.text)-len(b.text) >= n {
		return true
	}
	if !b.take(int64(max(n, textBytes))) {
		return false
	}
	if n > textBytes {
		b.text = make([]byte, 0, n)
	} else {
		b.text = b.memory.text()
	}
	b.texts = append(b.texts, b.text)
	return true
}

// release keeps the batch's memory for others. Nothing may refer to its records and
// its answer any more.
func (b *batch) release() {
	for _, s := range b.slabs {
		b.memory.slabs.Put(s)
	}
	for _, t := range b.texts {
		if cap(t) == textBytes {
			b.memory.texts.Put((*[textBytes]byte)(t[:textBytes]))
		}
	}
	b.slabs, b.texts, b.text = nil, nil, nil
	if l := b.lists; cap(l.items) <= mostKept {
		clear(l.items)
		clear(l.valid)
		if cap(l.answer) > mostAnswerBytes {
			l.answer = nil
		}
		l.items, l.valid = l.items[:0], l.valid[:0]
		b.memory.lists.Put(l)
	}
	b.lists = nil
}

func (b *batch) take(n int64) bool {
	if !b.budget.Take(n) {
		return false
	}
	b.taken += n
	return true
}

// result puts together what became of each item.
func (b *batch) result() *result {
	res := &result{items: b.items}
	for i := range res.items {
		it := &res.items[i]
		if it.faults != nil {
			res.rejected++
			continue
		}
		d := it.delivery
		switch {
		case d.Err == nil:
			res.accepted++
			if d.Status == delivery.Stored {
				res.stored++
			}
			if d.Repeat {
				res.deduplicated++
			}
		case delivery.Permanent(d.Err):
			it.faults = []event.Fault{logTooLarge()}
			res.rejected++
		default:
			if res.failed++; res.failed == 1 {
				res.failedBy = d.Err
			}
		}
	}
	return res
}
