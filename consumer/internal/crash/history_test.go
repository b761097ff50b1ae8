package crash

import (
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/schemas/event"
)

// line is what the history's author knows of one record: nothing of it is
// learned from the code that is tested.
type line struct {
	offset  int64
	key     string // "": the value is no event
	old     bool   // occurred in a month of its own, long ago
	payload string
	away    bool // the key's home is another partition
	value   []byte
	id      uuid.UUID
	hash    event.Hash
}

// refusedWord in a payload makes ClickHouse refuse the row.
const refusedWord = "refuse me"

// script is three batches of twelve records and a last of two, with a gap inside the first and
// one between the first two. Old keys are asked of ClickHouse; those that occurred
// within the last hours are known in memory.
var script = []line{
	{offset: 0, key: "a", old: true, payload: `{"n":1}`},
	{offset: 1, key: "b", payload: `{"n":1}`},
	{offset: 2, key: "c", payload: `{"n":1}`},
	{offset: 3, payload: "garbage"},
	{offset: 4, key: "a", old: true, payload: `{"n":1}`},
	{offset: 6, key: "b", payload: `{"n":2}`},
	{offset: 7, key: "d", payload: `{"n":1}`},
	{offset: 8, key: "m", payload: `{}`, away: true},
	{offset: 9, key: "d", payload: `{"n":1}`},
	{offset: 10, key: "e", payload: `{"n":1}`},
	{offset: 11, key: "f", payload: `{"n":1}`},
	{offset: 12, key: "g", payload: `{"n":1}`},

	{offset: 15, key: "h", old: true, payload: `{"n":1}`},
	{offset: 16, key: "a", old: true, payload: `{"n":1}`},
	{offset: 17, key: "c", payload: `{"n":1}`},
	{offset: 18, key: "e", payload: `{"n":2}`},
	{offset: 19, payload: ""},
	{offset: 20, key: "n", payload: `{}`, away: true},
	{offset: 21, key: "i", payload: `{"n":1}`},
	{offset: 22, key: "j", payload: `{"n":1}`},
	{offset: 23, key: "h", old: true, payload: `{"n":1}`},
	{offset: 24, key: "m", payload: `{}`, away: true},
	{offset: 25, key: "k", payload: `{"n":1}`},
	{offset: 26, key: "d", payload: `{"n":1}`},

	{offset: 27, key: "l", payload: `{"n":"refuse me"}`},
	{offset: 28, key: "o", payload: `{"n":1}`},
	{offset: 29, key: "i", payload: `{"n":1}`},
	{offset: 30, payload: `{"source":1}`},
	{offset: 31, key: "o", payload: `{"n":2}`},
	{offset: 32, key: "m", payload: `{}`, away: true},
	{offset: 33, key: "l", payload: `{"n":"then this one"}`},
	{offset: 34, key: "a", old: true, payload: `{"n":"refuse me"}`},
	{offset: 35, key: "l", payload: `{"n":"then this one"}`},
	{offset: 36, key: "t", old: true, payload: `{"n":1}`},
	{offset: 37, key: "u", payload: `{"n":1}`},
	{offset: 38, key: "v", payload: `{"n":1}`},

	{offset: 39, key: "o", payload: `{"n":1}`},
	{offset: 40, key: "w", payload: `{"n":1}`},
}

// batchRows is the size of the script's batches.
const batchRows = 12

// history is the script with keys of its own, as records of a log.
func history(source string, now time.Time, script []line) ([]line, []batch.Raw) {
	lines, raws := make([]line, len(script)), make([]batch.Raw, len(script))
	for i, l := range script {
		raw := batch.Raw{Offset: l.offset, Epoch: 1, Timestamp: time.UnixMilli(1_770_000_000_000 + l.offset)}
		l.value = []byte(l.payload)
		if l.key != "" {
			e := event.Event{Source: source, EventType: "type", OccurredAt: now.UTC().Add(-time.Hour), Payload: []byte(l.payload)}
			if l.old {
				e.OccurredAt = e.OccurredAt.AddDate(0, -6, 0)
			}
			for n := 0; ; n++ { // an actor that makes the key belong where the script wants it
				e.ActorID = fmt.Sprintf("%s-%d", l.key, n)
				if (event.Partition(e.AppendKey(nil), partitions) != 0) == l.away {
					break
				}
			}
			raw.Key = e.AppendKey(nil)
			l.id, l.hash = event.IDOf(raw.Key), event.PayloadHash(e.Payload)
			l.value = e.AppendJSON(nil)
		}
		raw.Value = l.value
		lines[i], raws[i] = l, raw
	}
	return lines, raws
}

// expected is what must stand: rows and fates by offset, and for a duplicate or
// a conflict the offset of the row that stands.
type expected struct {
	rows  map[int64]line
	fates map[int64]dedup.Fate
	first map[int64]int64
}

// expect applies the rule to the log: the first in log order that can become a
// row is the row of its key.
func expect(lines []line) expected {
	x := expected{rows: map[int64]line{}, fates: map[int64]dedup.Fate{}, first: map[int64]int64{}}
	taken := map[string]line{}
	for _, l := range lines {
		first, ok := taken[l.key]
		switch {
		case l.key == "":
			x.fates[l.offset] = dedup.DeadLetter
		case l.away:
			x.fates[l.offset] = dedup.Forwarded
		case ok && first.payload == l.payload:
			x.fates[l.offset], x.first[l.offset] = dedup.Duplicate, first.offset
		case ok:
			x.fates[l.offset], x.first[l.offset] = dedup.Conflict, first.offset
		case strings.Contains(l.payload, refusedWord):
			x.fates[l.offset] = dedup.DeadLetter
		default:
			taken[l.key] = l
			x.rows[l.offset] = l
		}
	}
	return x
}
