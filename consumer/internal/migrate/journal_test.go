package migrate

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	schema "sluice/schemas/clickhouse"
)

var topicA = uuid.MustParse("aaaaaaaa-0000-8000-8000-000000000000")

// batch journals a range that held this many records.
func (d *database) batch(partition int32, first, last int64, records int) {
	d.t.Helper()
	d.exec("INSERT INTO journal (topic_id, topic, partition, entry, offset, last_offset, records) VALUES (?, 'events', ?, 'batch', ?, ?, ?)",
		topicA, partition, first, last, records)
}

// fate journals what became of one record, or of a range of them.
func (d *database) fate(partition int32, fate string, first, last int64, records int) {
	d.t.Helper()
	d.exec("INSERT INTO journal (topic_id, topic, partition, entry, offset, last_offset, fate, records) VALUES (?, 'events', ?, 'fate', ?, ?, ?, ?)",
		topicA, partition, first, last, fate, records)
}

// store inserts rows with these offsets.
func (d *database) store(partition int32, offsets ...int64) {
	d.t.Helper()
	var rows []row
	for _, o := range offsets {
		rows = append(rows, row{source: "s", eventType: "t", actor: fmt.Sprint(partition, "/", o), at: at("2026-01-01T00:00:00Z").Add(time.Duration(o) * time.Hour), topic: topicA, partition: partition, offset: o})
	}
	d.insert(uuid.NewString(), rows...)
}

func TestContiguousRanges(t *testing.T) {
	type span = [2]int64
	d := migrated(t)
	for _, tt := range []struct {
		name    string
		batches []span // first and last, both inclusive
		want    []string
	}{
		{"nothing", nil, nil},
		{"one", []span{{0, 9}}, []string{"0-10 1"}},
		{"begun late", []span{{100, 109}, {110, 110}}, []string{"100-111 2"}},
		{"a gap", []span{{0, 9}, {10, 19}, {30, 39}}, []string{"0-20 2", "30-40 1"}},
		{"a gap of one", []span{{0, 9}, {11, 19}}, []string{"0-10 1", "11-20 1"}},
		{"two gaps", []span{{0, 0}, {2, 2}, {4, 4}}, []string{"0-1 1", "2-3 1", "4-5 1"}},
		{"overlaps", []span{{0, 9}, {5, 7}, {8, 19}, {20, 20}}, []string{"0-21 4"}},
		{"a long one over many short ones", []span{{0, 99}, {10, 11}, {20, 21}, {100, 100}, {102, 103}}, []string{"0-101 4", "102-104 1"}},
		{"out of order", []span{{20, 29}, {0, 9}, {10, 19}}, []string{"0-30 3"}},
		{"written again", []span{{0, 9}, {0, 9}, {10, 19}, {10, 19}}, []string{"0-20 2"}},
		{"the first of two with one beginning stands", []span{{0, 4}, {0, 9}, {10, 19}}, []string{"0-5 1", "10-20 1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := d.of(t)
			d.exec("TRUNCATE TABLE journal")
			for _, b := range tt.batches {
				d.batch(3, b[0], b[1], 1)
			}
			d.batch(4, 5, 6, 1) // another partition's
			d.fate(3, "duplicate", 1000, 1000, 1)
			require.Equal(t, tt.want, d.ranges(3))
		})
	}
}

func (d *database) ranges(partition int32) (out []string) {
	d.t.Helper()
	rows, err := d.conn.Query(d.t.Context(), schema.ContiguousRanges, topicA, partition)
	require.NoError(d.t, err)
	defer rows.Close() //nolint:errcheck // Err tells
	for rows.Next() {
		var first, end int64
		var batches uint64
		require.NoError(d.t, rows.Scan(&first, &end, &batches))
		out = append(out, fmt.Sprintf("%d-%d %d", first, end, batches))
	}
	require.NoError(d.t, rows.Err())
	return out
}

// The ranges are those that a plain walk over the offsets finds.
func TestContiguousRangesAgainstAModel(t *testing.T) {
	d := migrated(t)
	rapid.Check(t, func(rt *rapid.T) {
		d.exec("TRUNCATE TABLE journal")
		covered := map[int64]bool{}
		firsts := rapid.SliceOfNDistinct(rapid.Int64Range(0, 60), 1, 12, rapid.ID[int64]).Draw(rt, "firsts")
		values := make([]string, len(firsts))
		for i, first := range firsts {
			last := first + rapid.Int64Range(0, 8).Draw(rt, "length")
			for o := first; o <= last; o++ {
				covered[o] = true
			}
			values[i] = fmt.Sprintf("('%s', 'events', 0, 'batch', %d, %d, 1)", topicA, first, last)
		}
		d.exec("INSERT INTO journal (topic_id, topic, partition, entry, offset, last_offset, records) VALUES " + strings.Join(values, ","))
		var want []string
		for o := int64(0); o < 80; o++ {
			if !covered[o] || covered[o-1] {
				continue
			}
			end := o
			for covered[end] {
				end++
			}
			batches := 0
			for _, first := range firsts {
				if first >= o && first < end {
					batches++
				}
			}
			want = append(want, fmt.Sprintf("%d-%d %d", o, end, batches))
		}
		if got := d.ranges(0); strings.Join(want, ",") != strings.Join(got, ",") {
			rt.Fatalf("want %v, got %v", want, got)
		}
	})
}

func TestEventConflicts(t *testing.T) {
	d := migrated(t)
	conflict := func(actor, hash, payload string, partition int32, offset, stamp int64) {
		d.exec(`INSERT INTO journal (topic_id, topic, partition, entry, offset, last_offset, fate, records, source, event_type, actor_id, occurred_at, event_id, payload_text, payload_hash, record_timestamp)
			VALUES (?, 'events', ?, 'fate', ?, ?, 'conflict', 1, 's', 't', ?, '2026-01-01 00:00:00.000000001', ?, ?, ?, fromUnixTimestamp64Milli(?))`,
			topicA, partition, offset, offset, actor, uuid.NewSHA1(uuid.Nil, []byte(actor)), payload, strings.Repeat(hash, 16), stamp)
	}
	conflict("a", "x", `{"n":2}`, 0, 30, 3000)
	conflict("a", "x", `{"n": 2}`, 0, 20, 2000) // the same value, written otherwise, earlier
	conflict("a", "x", `{"n":2}`, 1, 7, 2500)
	conflict("a", "y", `{"n":3}`, 0, 40, 4000)
	conflict("b", "x", `{"n":2}`, 0, 50, 5000)
	for range 2 {
		conflict("b", "x", `{"n":2}`, 0, 50, 5000) // the same record journaled again
	}
	d.fate(0, "duplicate", 60, 60, 1)
	want := []string{
		"a\t1\t{\"n\": 2}\t3\t0\t20\t0\t30",
		"a\t1\t{\"n\":3}\t1\t0\t40\t0\t40",
		"b\t1\t{\"n\":2}\t1\t0\t50\t0\t50",
	}
	look := func() {
		t.Helper()
		require.Equal(t, want, d.lines("SELECT actor_id, toUnixTimestamp64Nano(occurred_at) % 1000, payload_text, times_seen, first_partition, first_offset, last_partition, last_offset FROM event_conflicts ORDER BY actor_id, first_offset"))
	}
	look()
	d.exec("OPTIMIZE TABLE journal FINAL")
	look()
	require.Equal(t, []string{"1"}, d.lines("SELECT times_seen FROM event_conflicts WHERE source = 's' AND actor_id = 'b'"))
}

// The first decision stands, and entries of a batch are all or none: they go
// into one part.
func TestJournalOnePartOneDecision(t *testing.T) {
	d := migrated(t)
	d.exec("SYSTEM STOP MERGES journal")
	d.exec(`INSERT INTO journal (topic_id, partition, entry, offset, last_offset, fate, record_timestamp, occurred_at)
		SELECT generateUUIDv4(number), number % 7, 'fate', number, number, 'duplicate',
			fromUnixTimestamp64Milli(number * 10000000000, 'UTC'), fromUnixTimestamp64Milli(number * 1000000000, 'UTC') FROM numbers(500)`)
	require.Equal(t, []string{"1"}, d.lines("SELECT uniqExact(_part) FROM journal"), "however far apart its entries")
	d.fate(1, "duplicate", 5, 5, 1)
	d.fate(1, "conflict", 5, 5, 1)
	first := []string{"duplicate"}
	require.Equal(t, first, d.lines("SELECT fate FROM journal FINAL WHERE topic_id = '"+topicA.String()+"'"))
	d.exec("SYSTEM START MERGES journal")
	d.exec("OPTIMIZE TABLE journal FINAL")
	require.Equal(t, first, d.lines("SELECT fate FROM journal WHERE topic_id = '"+topicA.String()+"'"))
}
