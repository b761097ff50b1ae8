package oracle

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"sluice/schemas/event"
	"sluice/schemas/topic"
)

var topicID = uuid.MustParse("00000000-0000-0000-0000-000000000001")

const partitions = 3

// at is an event of partition p: the nth of the search for one.
func at(p int32, n int, payload string) event.Event {
	for i := n * 1000; ; i++ {
		e := event.Event{
			Source: "s", EventType: "t", ActorID: fmt.Sprintf("u%d", i), Payload: []byte(payload),
			OccurredAt: time.Date(1969, 12, 31, 23, 59, 59, 5, time.UTC),
		}
		if event.Partition(e.AppendKey(nil), partitions) == p {
			return e
		}
	}
}

// log is a small log with every fate in it, and what must come of it.
func log() (*Oracle, Stored) {
	a, b, c := at(0, 1, `{"v":1}`), at(0, 2, `{"v":1}`), at(1, 3, `{"v":1}`)
	other := a
	other.Payload = []byte(`{"v":2}`)
	o := New(topicID, partitions)
	value := func(e event.Event) []byte { return e.AppendJSON(nil) }
	from := topic.Origin{TopicID: topicID, Partition: 0, Offset: 5}.String()
	for _, r := range []Record{
		{Partition: 0, Offset: 0, Value: value(a)},
		{Partition: 0, Offset: 1, Value: value(a)},       // duplicate
		{Partition: 0, Offset: 2, Value: value(other)},   // conflict
		{Partition: 0, Offset: 3, Value: []byte("dirt")}, // dead letter
		{Partition: 0, Offset: 4, Value: value(b)},
		{Partition: 0, Offset: 5, Value: value(c)}, // misplaced
		{Partition: 1, Offset: 0, Value: value(c), ForwardedFrom: from},
		{Partition: 1, Offset: 1, Value: value(c), ForwardedFrom: from}, // forwarded twice
	} {
		o.Add(r)
	}
	hash, second := event.PayloadHash(a.Payload), event.PayloadHash(other.Payload)
	row := func(at At, e event.Event) StoredRow {
		return StoredRow{At: at, ID: e.ID(), Key: e.Key(), Hash: hash, Text: hash}
	}
	rows := []StoredRow{row(At{0, 0}, a), row(At{0, 4}, b), row(At{1, 0}, c)}
	minute := Bucket{time.Date(1969, 12, 31, 23, 59, 0, 0, time.UTC), "s", "t"}
	hour := Bucket{time.Date(1969, 12, 31, 23, 0, 0, 0, time.UTC), "s", "t"}
	return o, Stored{
		Rows: rows, View: append([]StoredRow(nil), rows...),
		Fates: []StoredFate{
			{At: At{0, 1}, Fate: Duplicate, ID: a.ID(), Hash: hash, First: At{0, 0}},
			{At: At{0, 2}, Fate: Conflict, ID: a.ID(), Hash: second, First: At{0, 0}},
			{At: At{0, 3}, Fate: DeadLetter},
			{At: At{0, 5}, Fate: Forwarded, ID: c.ID(), Hash: hash},
			{At: At{1, 1}, Fate: Duplicate, ID: c.ID(), Hash: hash, First: At{1, 0}},
		},
		PerMinute: map[Bucket]Figures{minute: {3, 3}}, PerHour: map[Bucket]Figures{hour: {3, 3}},
		Conflicts: []StoredConflict{{ID: a.ID(), Hash: second, Times: 1, First: At{0, 2}, Last: At{0, 2}}},
		Balance: []Sheet{
			{Partition: 0, Records: 6, Rows: 2, Duplicates: 1, Conflicts: 1, DeadLettered: 1, Forwarded: 1},
			{Partition: 1, Records: 2, Rows: 1, Duplicates: 1},
		},
		Ranges:      []Range{{0, 0, 6}, {1, 0, 2}},
		DeadLetters: map[string]event.Hash{topic.Origin{TopicID: topicID, Partition: 0, Offset: 3}.String(): ValueHash([]byte("dirt"))},
	}
}

func TestWhole(t *testing.T) {
	o, s := log()
	require.Empty(t, o.Compare(s))
	require.Equal(t, map[Fate]int{Row: 3, Duplicate: 2, Conflict: 1, DeadLetter: 1, Forwarded: 1}, o.Counts())
	require.Equal(t, 8, o.Records())
	a := at(0, 1, `{"v":2}`)
	require.True(t, o.Has(a.ID(), event.PayloadHash(a.Payload)), "a conflict is in the log too")
	require.False(t, o.Has(a.ID(), event.PayloadHash([]byte("{}"))))
}

// An oracle that sees no difference proves nothing: each thing that can be
// wrong must be found, and named.
func TestEachDifference(t *testing.T) {
	somewhere := At{0, 99}
	for what, spoil := range map[string]func(*Stored){
		"no row":                              func(s *Stored) { s.Rows = s.Rows[1:] },
		"a physical repeat":                   func(s *Stored) { s.Rows = append(s.Rows, s.Rows[0]) },
		"a physical repeat: the key's":        func(s *Stored) { r := s.Rows[0]; r.At = At{0, 1}; s.Rows = append(s.Rows, r) },
		"should be duplicate":                 func(s *Stored) { s.Rows[0].At = At{0, 1} },
		"origin is not in the log":            func(s *Stored) { s.Rows[0].At = somewhere },
		"the row of another key":              func(s *Stored) { s.Rows[0].Key = "x" },
		"the row has another payload":         func(s *Stored) { s.Rows[0].Text[0]++ },
		"row has another payload: hash":       func(s *Stored) { s.Rows[0].Hash[0]++ },
		"not in the view events":              func(s *Stored) { s.View = s.View[1:] },
		"twice in the view events":            func(s *Stored) { s.View = append(s.View, s.View[0]) },
		"in the view events, and should not":  func(s *Stored) { s.View[0].At = At{0, 1} },
		"another payload in the view":         func(s *Stored) { s.View[0].Text[0]++ },
		"the journal has no fate":             func(s *Stored) { s.Fates = s.Fates[1:] },
		"two fates":                           func(s *Stored) { s.Fates = append(s.Fates, s.Fates[0]) },
		"is not in the log":                   func(s *Stored) { s.Fates = append(s.Fates, StoredFate{At: somewhere, Fate: Duplicate}) },
		"journaled as conflict, should be":    func(s *Stored) { s.Fates[0].Fate = Conflict },
		"which should be 0/0":                 func(s *Stored) { s.Fates[0].First = At{0, 4} },
		"with another key":                    func(s *Stored) { s.Fates[0].ID = uuid.Nil },
		"journaled as duplicate, should be r": func(s *Stored) { s.Fates = append(s.Fates, StoredFate{At: At{0, 0}, Fate: Duplicate}) },
		"not among the dead letters":          func(s *Stored) { s.DeadLetters = nil },
		"another value among the dead": func(s *Stored) {
			for k := range s.DeadLetters {
				s.DeadLetters[k] = event.Hash{}
			}
		},
		"the dead letter of": func(s *Stored) { s.DeadLetters[topic.Origin{TopicID: topicID}.String()] = event.Hash{} },
		"events_per_minute": func(s *Stored) {
			for k := range s.PerMinute {
				s.PerMinute[k] = Figures{4, 3}
			}
		},
		"should be none":                func(s *Stored) { s.PerHour[Bucket{}] = Figures{1, 1} },
		"events_per_hour":               func(s *Stored) { s.PerHour = nil },
		"event_conflicts: seen 2 times": func(s *Stored) { s.Conflicts[0].Times = 2 },
		"that did not lose, or twice":   func(s *Stored) { s.Conflicts = append(s.Conflicts, s.Conflicts[0]) },
		"not in event_conflicts":        func(s *Stored) { s.Conflicts = nil },
		"its first or last origin":      func(s *Stored) { s.Conflicts[0].Last = At{0, 0} },
		"the balance is":                func(s *Stored) { s.Balance[1].Difference = 1 },
		"the balance has no row":        func(s *Stored) { s.Balance = s.Balance[1:] },
		"the balance has a partition":   func(s *Stored) { s.Balance = append(s.Balance, Sheet{Partition: 2}) },
		"the journal has a gap":         func(s *Stored) { s.Ranges = append(s.Ranges, Range{1, 5, 6}) },
		"the journal begins":            func(s *Stored) { s.Ranges[0].First = 1 },
		"the journal ends":              func(s *Stored) { s.Ranges[0].End = 5 },
		"the journal has nothing":       func(s *Stored) { s.Ranges = s.Ranges[1:] },
	} {
		t.Run(what, func(t *testing.T) {
			o, s := log()
			spoil(&s)
			found := o.Compare(s)
			require.NotEmpty(t, found)
			require.Contains(t, fmt.Sprint(found), what)
		})
	}
}

// A few lines are printed of many differences: those that name a key.
func TestOrder(t *testing.T) {
	o, s := log()
	s.Rows, s.PerMinute = nil, nil
	found := o.Compare(s)
	require.NotEmpty(t, found[0].Key)
	require.Empty(t, found[len(found)-1].Key)
}

// A forward that never arrived is a loss, however well it is journaled.
func TestForwardLost(t *testing.T) {
	o := New(topicID, partitions)
	e := at(1, 1, "{}")
	o.Add(Record{Partition: 0, Offset: 0, Value: e.AppendJSON(nil)})
	require.Contains(t, fmt.Sprint(o.Compare(Stored{})), "has not arrived in partition 1")
}
