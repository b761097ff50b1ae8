// Package batch turns records of one partition into batches: what each record
// is, where a batch begins and ends, and what names it. It is pure: it knows no
// Kafka client and no database driver.
package batch

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"slices"
	"time"

	"github.com/google/uuid"

	"sluice/consumer/internal/mutant"
	"sluice/schemas/event"
	"sluice/schemas/topic"
)

// Raw is a record as it stands in the log.
type Raw struct {
	Offset    int64
	Epoch     int32
	Timestamp time.Time
	Key       []byte
	Value     []byte
	Headers   []Header
}

// Header is one header of a record.
type Header struct {
	Key   string
	Value []byte
}

// Received is when the event was received: the record's timestamp or, of a record
// that was written to the log again, what its header says, which can only be earlier.
func (r *Raw) Received() time.Time {
	at := r.Timestamp
	for _, h := range r.Headers {
		if h.Key != topic.HeaderReceivedAt {
			continue
		}
		if said, err := time.Parse(topic.TimeFormat, string(h.Value)); err == nil && said.Before(at) {
			at = said
		}
	}
	return at
}

// Record is a record decoded afresh, with no trust in its key or headers.
type Record struct {
	Raw
	// Reason and Detail say why the record cannot become a row; Reason is one
	// of the topic package's, or "" when it can.
	Reason, Detail string
	// Event, ID and Hash are set when Reason is "".
	Event event.Event
	ID    uuid.UUID
	Hash  event.Hash
	// Home is the partition that the event's key belongs to.
	Home int32
}

// Decoder decodes the records of one topic. It is not for concurrent use.
type Decoder struct {
	events     *event.Decoder
	partitions int32
	names      event.Namer
}

// NewDecoder decodes records of a topic that has this many partitions, by the
// rules of [event.RuleVersion].
func NewDecoder(partitions int32) *Decoder {
	return &Decoder{events: event.NewDecoder(event.Ceiling()), partitions: partitions}
}

// Decode decides whether raw can become a row, and where its key belongs.
func (d *Decoder) Decode(raw Raw) Record {
	var r Record
	d.DecodeInto(&r, &raw)
	return r
}

// DecodeInto is Decode into r, whatever it held before.
func (d *Decoder) DecodeInto(r *Record, raw *Raw) {
	r.Raw, r.Reason, r.Detail = *raw, "", ""
	r.ID, r.Hash, r.Home = uuid.Nil, event.Hash{}, 0
	d.decode(r, true)
}

// Identify sets what [Decoder.Decode] does of a record that has nothing but its Raw,
// except Hash: for who only needs that where there is one to compare it with.
func (d *Decoder) Identify(r *Record) { d.decode(r, false) }

func (d *Decoder) decode(r *Record, hashed bool) {
	if len(r.Value) == 0 {
		r.Event = event.Event{}
		r.Reason, r.Detail = topic.ReasonEmpty, "the record has no value"
		return
	}
	// No time is given: whether an event lay in the future was the edge's to
	// say, and must not depend on when a record is read.
	var faults []event.Fault
	if hashed {
		r.Hash, faults = d.events.DecodeInto(&r.Event, r.Value, time.Time{})
	} else {
		r.Event, faults = d.events.Decode(r.Value, time.Time{})
	}
	if len(faults) > 0 {
		r.Reason, r.Detail = topic.ReasonMalformed, faults[0].String()
		return
	}
	var key []byte
	r.ID, key = d.names.Name(&r.Event)
	r.Home = event.Partition(key, d.partitions)
}

// Limits close a batch. Each is reached, never passed, but for a batch of one.
type Limits struct {
	// Rows is the most records. Default 50,000.
	Rows int `mapstructure:"rows" help:"most records in a batch"`
	// Bytes is the most bytes of keys and values. Default 32 MiB.
	Bytes int `mapstructure:"bytes" help:"most bytes of keys and values in a batch"`
	// Age is how long the first record waits for others. Default 200 ms.
	Age time.Duration `mapstructure:"age" help:"longest wait of a batch's first record"`
	// TablePartitions is the most months of occurred_at, each of which is a part
	// of its own in the INSERT. ClickHouse refuses an INSERT over 100 unless told
	// otherwise, as the store does. Default 240: events of twenty years in any
	// order still make large batches.
	TablePartitions int `mapstructure:"table_partitions" help:"most months of occurred_at in a batch, each a part of its own"`
}

// MostTablePartitions bounds [Limits.TablePartitions].
const MostTablePartitions = 1000

// DefaultLimits keep an INSERT large and an event fresh.
func DefaultLimits() Limits {
	return Limits{Rows: 50_000, Bytes: 32 << 20, Age: 200 * time.Millisecond, TablePartitions: 240}
}

// Validate tells which limit can't be worked with.
func (l Limits) Validate() error {
	switch {
	case l.Rows < 1 || l.Bytes < 1:
		return fmt.Errorf("batch.rows and batch.bytes must be at least 1")
	case l.Age <= 0:
		return fmt.Errorf("batch.age must be positive")
	case l.TablePartitions < 1 || l.TablePartitions > MostTablePartitions:
		return fmt.Errorf("batch.table_partitions must be 1 to %d", MostTablePartitions)
	}
	return nil
}

// Batch is an offset range of one partition with the records found in it.
// Offsets may be missing: transaction markers and aborted records have no
// record.
type Batch struct {
	// First is where the range begins: the end of what came before, which may
	// lie before the first record's offset.
	First   int64
	Records []*Record

	bytes  int
	months map[int]struct{}
	last   span // the last record's month, which the next one's mostly is
	sum    hash.Hash
	text   []byte // what sum has not been given yet
}

// sumBytes is how much sum is given at once: small pieces would cost as much as
// hashing them.
const sumBytes = 16 << 10

// New begins a batch at first.
func New(first int64) *Batch {
	return &Batch{First: first, months: map[int]struct{}{}, sum: sha256.New()}
}

// Reset begins another batch at first in b's memory; what b held is gone.
func (b *Batch) Reset(first int64) *Batch {
	clear(b.Records) // let go of them
	b.First, b.Records, b.bytes = first, b.Records[:0], 0
	clear(b.months)
	b.last = span{}
	b.sum.Reset()
	b.text = b.text[:0]
	return b
}

// Grow makes room for n more records (none if n is not positive).
func (b *Batch) Grow(n int) { b.Records = slices.Grow(b.Records, max(n, 0)) }

// Fits tells whether r may join without breaking a limit.
func (b *Batch) Fits(r *Record, l Limits) bool {
	if len(b.Records) == 0 {
		return true
	}
	if len(b.Records) >= l.Rows || b.bytes+size(r) > l.Bytes {
		return false
	}
	if b.last.holds(r) || len(b.months) < l.TablePartitions {
		return true
	}
	_, known := b.months[monthOf(r).number]
	return known
}

// Add appends r, which must have a higher offset than the last, and must not be
// changed but for what ClickHouse says of it.
func (b *Batch) Add(r *Record) {
	b.bytes += size(r)
	if !b.last.holds(r) {
		b.last = monthOf(r)
		b.months[b.last.number] = struct{}{}
	}
	b.text = appendSum(b.text, r)
	if len(b.text) >= sumBytes {
		b.flush()
	}
	b.Records = append(b.Records, r)
}

// flush gives sum what it has not been given.
func (b *Batch) flush() {
	b.sum.Write(b.text)
	if b.text = b.text[:0]; cap(b.text) > 4*sumBytes { // a large dead letter's
		b.text = nil
	}
}

// Last is the last record's offset; First-1 of an empty batch.
func (b *Batch) Last() int64 {
	if len(b.Records) == 0 {
		return b.First - 1
	}
	return b.Records[len(b.Records)-1].Offset
}

// Hash is of what is decided of the records, so that others at the same offsets are
// known as others: an event counts by its id and its payload's hash, which decoding
// has made of all that its fate depends on, and what can't become a row by its bytes.
// It belongs to [event.RuleVersion].
func (b *Batch) Hash() event.Hash {
	b.flush()
	return event.Hash(b.sum.Sum(nil)[:16])
}

// appendSum appends what a record adds to the hash. Whatever can be of any length has
// its length before it, or one record could read as two.
func appendSum(dst []byte, r *Record) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.Offset))
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.Timestamp.UnixMilli()))
	if r.Reason == "" {
		dst = append(dst, 'e')
		dst = append(dst, r.ID[:]...)
		dst = append(dst, r.Hash[:]...)
		return binary.BigEndian.AppendUint32(dst, uint32(len(r.Value)))
	}
	dst = append(dst, 'd')
	return appendRaw(dst, r)
}

// appendRaw appends a record's key and value.
func appendRaw(dst []byte, r *Record) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(r.Key)))
	dst = append(dst, r.Key...)
	// A value without its length could end in what looks like another record.
	if !mutant.On("hash-without-lengths") {
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(r.Value)))
	}
	return append(dst, r.Value...)
}

// RawHash is what [Batch.Hash] was by the first rule version: of all that the records
// hold but for their headers. An intent may stand that was sent then.
func (b *Batch) RawHash() event.Hash {
	sum, text := sha256.New(), []byte(nil)
	for _, r := range b.Records {
		text = binary.BigEndian.AppendUint64(text[:0], uint64(r.Offset))
		text = binary.BigEndian.AppendUint64(text, uint64(r.Timestamp.UnixMilli()))
		sum.Write(appendRaw(text, r))
	}
	return event.Hash(sum.Sum(nil)[:16])
}

func size(r *Record) int { return len(r.Key) + len(r.Value) }

// span is a month of occurred_at: a table partition of event_log.
type span struct {
	number   int   // as event_log's PARTITION BY has it; 0: what can't become a row
	from, to int64 // in seconds, to exclusive; none of what can't become a row
}

func monthOf(r *Record) span {
	if r.Reason != "" {
		return span{}
	}
	year, month, _ := r.Event.OccurredAt.UTC().Date()
	from := time.Date(year, month, 1, 0, 0, 0, 0, time.UTC)
	return span{year*12 + int(month), from.Unix(), from.AddDate(0, 1, 0).Unix()}
}

// holds tells, with no calendar, whether r lies in the month.
func (s span) holds(r *Record) bool {
	at := r.Event.OccurredAt.Unix()
	return r.Reason == "" && s.from <= at && at < s.to
}
