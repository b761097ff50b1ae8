package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/ingest/internal/decode"
	"sluice/ingest/internal/problem"
	"sluice/ingest/internal/produce"
	"sluice/schemas/event"
)

// itemOverheadBytes is what an item of a batch is reckoned to need beyond its
// texts: its record and headers, its place in the lists, its part of the answer.
const itemOverheadBytes = 768

const (
	slabRecords = 256      // records made at a time
	textBytes   = 64 << 10 // bytes of text made at a time
)

// batch is one batch on its way from the body to the answer.
type batch struct {
	cfg     Config
	budget  *decode.Budget
	taken   int64 // of the budget
	full    bool  // the budget was used up
	decoder *event.Decoder
	stamp   stamp
	now     time.Time

	items   []item
	records []*kgo.Record // of the items that are valid, in their order
	free    []kgo.Record  // made and not used yet
	headers []kgo.RecordHeader
	text    []byte
}

// item is what became of one item: rejected when it has faults, else the
// record of that index, whose fate is errs[record] after sending.
type item struct {
	id     uuid.UUID
	faults []event.Fault
	record int
}

// postBatch takes many events: POST /api/events/batch.
func (a *API) postBatch(w http.ResponseWriter, r *http.Request) *problem.Error {
	media, perr := decode.MediaType(r.Header, batchTypes...)
	if perr != nil {
		return perr
	}
	body, perr := a.reader.Read(r, a.cfg.BodyBytes, problem.BodyTooLarge)
	if perr != nil {
		return perr
	}
	defer body.Release()
	received := a.now()
	a.bodyRead(w, r)

	b := &batch{cfg: a.cfg, budget: a.budget, stamp: newStamp(r.Header, received), now: received}
	defer func() { b.budget.Give(b.taken) }()
	if perr := a.split(b, media, body.Bytes()); perr != nil {
		return perr
	}
	var err error
	if len(b.records) > 0 {
		err = a.log.Send(r.Context(), b.records)
	}
	result := b.result(err)
	result.count(a.metrics)
	result.write(w, returnMinimal(r.Header))
	return nil
}

// split takes the body apart and decodes every item.
func (a *API) split(b *batch, media string, body []byte) *problem.Error {
	m := a.decoders.get(a.cfg.Event)
	defer a.decoders.put(m)
	b.decoder = m.events
	var err error
	if media == decode.TypeNDJSON {
		err = decode.Lines(body, a.cfg.BatchItems, b.add)
	} else {
		err = m.arrays.Array(body, a.cfg.BatchItems, b.add)
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

// add decodes the next item.
func (b *batch) add(text []byte) {
	if b.full || !b.take(itemOverheadBytes) {
		b.full = true
		return
	}
	if int64(len(text)) > b.cfg.EventBytes {
		b.reject(event.Fault{
			Kind: event.FaultTooLarge, Detail: "has " + strconv.Itoa(len(text)) + " bytes",
			Allowed: "at most " + strconv.FormatInt(b.cfg.EventBytes, 10),
		})
		return
	}
	e, faults := b.decoder.Decode(text, b.now)
	if faults != nil {
		b.reject(faults...)
		return
	}
	if !b.room(textBound(&e)) {
		b.full = true
		return
	}
	r := &b.free[0]
	b.free = b.free[1:]
	it := item{record: len(b.records)}
	it.id, b.text, b.headers = b.stamp.fill(r, &e, b.text, b.headers)
	b.items = append(b.items, it)
	b.records = append(b.records, r)
}

func (b *batch) reject(faults ...event.Fault) {
	b.items = append(b.items, item{faults: faults})
}

// room sees to it that a record, its headers and n bytes of text can be made
// without moving what was made before.
func (b *batch) room(n int) bool {
	if len(b.free) == 0 {
		b.free = make([]kgo.Record, slabRecords)
		b.headers = make([]kgo.RecordHeader, 0, slabRecords*maxHeaders)
	}
	if cap(b.text)-len(b.text) < n {
		size := max(n, textBytes)
		if !b.take(int64(size)) {
			return false
		}
		b.text = make([]byte, 0, size)
	}
	return true
}

func (b *batch) take(n int64) bool {
	if !b.budget.Take(n) {
		return false
	}
	b.taken += n
	return true
}

// result puts together what became of each item, given what Send returned.
func (b *batch) result(err error) *result {
	res := &result{items: b.items, whole: err}
	var f *produce.Failure
	if errors.As(err, &f) {
		res.errs, res.whole = f.Errs, nil
	}
	for i := range res.items {
		it := &res.items[i]
		if it.faults != nil {
			res.rejected++
			continue
		}
		switch err := res.err(it); {
		case err == nil:
			res.accepted++
		case produce.Permanent(err):
			it.faults = []event.Fault{logTooLarge()}
			res.rejected++
		default:
			if res.failed++; res.failed == 1 {
				res.failedBy = failedKind(err)
			}
		}
	}
	return res
}
