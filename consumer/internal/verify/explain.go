package verify

import (
	"cmp"
	"container/heap"
	"context"
	"fmt"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/partition"
)

// code says what a note is about.
type code uint8

const (
	fine code = iota
	isMissing
	isOther
	otherKey
	otherPayload
	otherColumns
	both
	journaledKey
	journaledPayload
	firstOther
	firstGone
	extraRow
	strayFate
)

// kind and what the note says.
func (n note) text() (kind, what string) {
	switch n.code {
	case isMissing:
		return Missing, fmt.Sprintf("should be a %s; ClickHouse has neither row nor fate", n.want)
	case isOther:
		return Different, fmt.Sprintf("should be a %s and is a %s", n.want, n.actual)
	case otherKey:
		return Different, "the row has another key"
	case otherPayload:
		return Different, "the row has another payload"
	case otherColumns:
		return Different, "the row's columns are not what the record says"
	case both:
		return Different, fmt.Sprintf("is a row and in the journal a %s too", n.actual)
	case journaledKey:
		return Different, fmt.Sprintf("is a %s, and the journal has another key for it", n.actual)
	case journaledPayload:
		return Different, fmt.Sprintf("is a %s, and the journal has another payload for it", n.actual)
	case firstOther:
		return Different, fmt.Sprintf("is a %s, and the record that the journal names as its first has another key", n.actual)
	case firstGone:
		return Different, fmt.Sprintf("is a %s of nothing: the row that it was told against is not stored", n.actual)
	case extraRow:
		return Extra, "a row, and the log has no such record"
	case strayFate:
		return Different, fmt.Sprintf("in the journal a %s, and the log has no such record", n.actual)
	case fine:
	}
	return Different, fmt.Sprintf("finding %d", n.code)
}

// byOffset is a heap of runs.
type byOffset []*run

func (h byOffset) Len() int { return len(h) }
func (h byOffset) Less(i, j int) bool {
	return cmp.Compare(h[i].next.offset, h[j].next.offset) < 0
}
func (h byOffset) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *byOffset) Push(x any)   { *h = append(*h, x.(*run)) }
func (h *byOffset) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}

// explain tells what was found, in offset order, each with its key: the log is
// read again from the first finding to the last. Where it can't be read any
// more the keys stay out.
func (c *comparison) explain(ctx context.Context, found func(Finding)) error {
	open, err := c.runs.open()
	if err != nil || len(open) == 0 {
		return err
	}
	h := byOffset(open)
	heap.Init(&h)
	keys := keyReader{c: c}
	defer keys.close()
	for len(h) > 0 {
		n := h[0].next
		kind, what := n.text()
		f := Finding{Kind: kind, Origin: c.r.At(n.offset), What: what}
		if n.code != extraRow && n.code != strayFate && !c.PresenceOnly {
			if f.Key, err = keys.of(ctx, n.offset); err != nil {
				return err
			}
		}
		found(f)
		more, err := h[0].advance()
		switch {
		case err != nil:
			return err
		case more:
			heap.Fix(&h, 0)
		default:
			heap.Pop(&h)
		}
	}
	return nil
}

// keyReader reads the keys of records at ascending offsets.
type keyReader struct {
	c       *comparison
	reader  partition.Reader
	decoder *batch.Decoder
	records []batch.Raw
	failed  bool
}

// of is the key of the record at offset; "" when it has none, or the log can't
// be read there. The error is the context's.
func (k *keyReader) of(ctx context.Context, offset int64) (string, error) {
	if k.reader == nil && !k.failed {
		k.decoder = batch.NewDecoder(k.c.r.Partitions)
		var err error
		k.reader, err = k.c.Log.Open(k.c.r.Self.Partition, offset)
		k.failed = err != nil
	}
	for !k.failed {
		for len(k.records) > 0 && k.records[0].Offset < offset {
			k.records = k.records[1:]
		}
		if len(k.records) > 0 {
			break
		}
		var err error
		k.records, err = k.reader.Next(ctx)
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		k.failed = err != nil
	}
	if k.failed || k.records[0].Offset != offset {
		return "", nil
	}
	r := k.decoder.Decode(k.records[0])
	if r.Reason != "" {
		return "", nil
	}
	return r.Event.Key(), nil
}

func (k *keyReader) close() {
	if k.reader != nil {
		k.reader.Close()
	}
}
