package migrate

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/deploy/local/enginetest"
	schema "sluice/schemas/clickhouse"
)

func TestBalance(t *testing.T) {
	// Each case is a partition of its own; want is its line from records to
	// difference, faults are gaps, overlaps, repeats and twice, merged is faults
	// after the tables' merges; "" means none.
	d := migrated(t)
	for i, tt := range []struct {
		name           string
		do             func(d *database, p int32)
		want           string
		faults, merged string
	}{
		{"every fate", func(d *database, p int32) {
			d.store(p, 0, 1, 2)
			for i, fate := range []string{"duplicate", "conflict", "dead_letter", "forwarded", "expired", "erased"} {
				d.fate(p, fate, int64(3+i), int64(3+i), 1)
			}
			d.fate(p, "skipped", 9, 18, 10)
			d.fate(p, "lost", 19, 118, 100)
			d.batch(p, 0, 118, 119)
		}, "119 3 1 1 1 1 1 1 10 100 0 0", "", ""},
		{"nothing but batches", func(d *database, p int32) { d.batch(p, 0, 9, 0) }, "0 0 0 0 0 0 0 0 0 0 0 0", "", ""},
		{"rows not yet journaled are not missed", func(d *database, p int32) {
			d.store(p, 0, 1)
			d.batch(p, 0, 1, 2)
			d.store(p, 2, 3, 100_000)
		}, "2 2 0 0 0 0 0 0 0 0 0 0", "", ""},
		{"gaps of markers lie inside", func(d *database, p int32) {
			d.store(p, 5, 70_000, 140_000)
			d.batch(p, 0, 69_999, 1)
			d.batch(p, 70_000, 139_999, 1)
			d.batch(p, 140_000, 140_001, 1)
		}, "3 3 0 0 0 0 0 0 0 0 0 0", "", ""},
		{"both sides of a block of the projection", func(d *database, p int32) {
			d.store(p, 65_534, 65_535, 65_536, 65_537, 131_071, 131_072)
			d.batch(p, 65_535, 65_536, 2)
			d.batch(p, 65_540, 131_071, 1)
		}, "3 4 0 0 0 0 0 0 0 0 0 -1", "1 0 0 0", ""},
		{"a row below the first batch is seen", func(d *database, p int32) {
			d.store(p, 3, 10)
			d.batch(p, 10, 19, 1)
		}, "1 2 0 0 0 0 0 0 0 0 0 -1", "", ""},
		{"a row between two ranges is not journaled yet", func(d *database, p int32) {
			d.store(p, 0, 15, 20)
			d.batch(p, 0, 9, 1)
			d.batch(p, 20, 29, 1)
		}, "2 2 0 0 0 0 0 0 0 0 0 0", "1 0 0 0", ""},
		{"a row is missing", func(d *database, p int32) {
			d.store(p, 0, 2)
			d.batch(p, 0, 2, 3)
		}, "3 2 0 0 0 0 0 0 0 0 0 1", "", ""},
		{"a record that is a row and has a fate", func(d *database, p int32) {
			d.store(p, 0, 1)
			d.fate(p, "duplicate", 1, 1, 1)
			d.batch(p, 0, 1, 2)
		}, "2 2 1 0 0 0 0 0 0 0 0 -1", "0 0 0 1", ""},
		{"batches that overlap", func(d *database, p int32) {
			d.store(p, 0, 1, 2)
			d.batch(p, 0, 1, 2)
			d.batch(p, 1, 2, 2)
		}, "4 3 0 0 0 0 0 0 0 0 0 1", "0 1 0 0", ""},
		{"entries written again change nothing", func(d *database, p int32) {
			for range 3 {
				d.batch(p, 0, 2, 3)
				d.fate(p, "duplicate", 2, 2, 1)
			}
			d.store(p, 0, 1)
		}, "3 2 1 0 0 0 0 0 0 0 0 0", "", ""},
		{"what was decided first stands", func(d *database, p int32) {
			d.batch(p, 0, 0, 1)
			d.fate(p, "conflict", 0, 0, 1)
			d.fate(p, "duplicate", 0, 0, 1)
		}, "1 0 0 1 0 0 0 0 0 0 0 0", "", ""},
		{"a physical repeat of a row is one row, and a repeat until it is merged away", func(d *database, p int32) {
			d.store(p, 0, 1)
			d.store(p, 0)
			d.store(p, 0)
			d.batch(p, 0, 1, 2)
		}, "2 2 0 0 0 0 0 0 0 0 0 0", "0 0 2 0", "0 0 0 0"},
		{"repeats beyond the journal's end count too", func(d *database, p int32) {
			d.batch(p, 0, 9, 0)
			d.store(p, 20)
			d.store(p, 20)
		}, "0 0 0 0 0 0 0 0 0 0 0 0", "0 0 1 0", "0 0 0 0"},
		{"a record counted twice does not make up for a missing one", func(d *database, p int32) {
			d.store(p, 0, 1)
			d.fate(p, "conflict", 1, 1, 1)
			d.batch(p, 0, 2, 3)
		}, "3 2 0 1 0 0 0 0 0 0 0 1", "0 0 0 1", ""},
		{"a row where no record is journaled", func(d *database, p int32) {
			d.store(p, 0, 5)
			d.batch(p, 0, 9, 1)
		}, "1 2 0 0 0 0 0 0 0 0 0 -1", "", ""},
		{"a fate where no record is journaled", func(d *database, p int32) {
			d.store(p, 0)
			d.fate(p, "duplicate", 5, 5, 1)
			d.batch(p, 0, 9, 1)
		}, "1 1 1 0 0 0 0 0 0 0 0 -1", "", ""},
		{"a fate too many as a range", func(d *database, p int32) {
			d.store(p, 0)
			d.fate(p, "lost", 5, 8, 4)
			d.batch(p, 0, 9, 1)
		}, "1 1 0 0 0 0 0 0 0 4 0 -4", "", ""},
		{"a batch's entry is gone", func(d *database, p int32) {
			d.store(p, 0, 10, 20)
			d.fate(p, "duplicate", 11, 11, 1)
			d.fate(p, "skipped", 12, 14, 3)
			d.batch(p, 0, 9, 1)
			d.batch(p, 10, 19, 5)
			d.batch(p, 20, 29, 1)
			d.exec("DELETE FROM journal WHERE partition = ? AND entry = 'batch' AND offset = 10", p)
		}, "2 2 0 0 0 0 0 0 0 0 0 0", "1 0 0 0", ""},
		{"two gaps", func(d *database, p int32) {
			d.batch(p, 0, 9, 0)
			d.batch(p, 11, 19, 0)
			d.batch(p, 70_000, 70_001, 0)
		}, "0 0 0 0 0 0 0 0 0 0 0 0", "2 0 0 0", ""},
		{"a log that begins late has no gap", func(d *database, p int32) { d.batch(p, 100, 109, 0) }, "0 0 0 0 0 0 0 0 0 0 0 0", "", ""},
		{"one long batch over two short ones", func(d *database, p int32) {
			d.store(p, 0)
			d.batch(p, 0, 99, 1)
			d.batch(p, 10, 19, 0)
			d.batch(p, 50, 109, 0)
		}, "1 1 0 0 0 0 0 0 0 0 0 0", "0 60 0 0", ""},
		{"a fate that is not in a batch yet", func(d *database, p int32) {
			d.store(p, 0)
			d.batch(p, 0, 0, 1)
			d.fate(p, "duplicate", 1, 1, 1)
		}, "1 1 0 0 0 0 0 0 0 0 0 0", "", ""},
		{"fates on both sides of a block", func(d *database, p int32) {
			d.store(p, 65_534)
			d.fate(p, "duplicate", 65_535, 65_535, 1)
			d.fate(p, "duplicate", 65_536, 65_536, 1)
			d.fate(p, "dead_letter", 65_537, 65_537, 1)
			d.batch(p, 0, 65_537, 4)
		}, "4 1 2 0 1 0 0 0 0 0 0 0", "", ""},
		// The first record that the log took back has a fate: an entry of its
		// own, cut stands beside it.
		{"what the log took back stands as it was decided", func(d *database, p int32) {
			d.store(p, 0, 2)
			d.fate(p, "duplicate", 1, 1, 1)
			d.batch(p, 0, 2, 3)
			d.exec("INSERT INTO journal (topic_id, partition, entry, offset, last_offset, fate, records) VALUES (?, ?, 'cut', 1, 2, 'cut', 2)", topicA, p)
		}, "3 2 1 0 0 0 0 0 0 0 2 0", "", ""},
		{"cut as a fate is no part of the difference either", func(d *database, p int32) {
			d.store(p, 0, 1)
			d.fate(p, "cut", 1, 1, 1)
			d.batch(p, 0, 1, 2)
		}, "2 2 0 0 0 0 0 0 0 0 1 0", "", ""},
		{"barriers are no ranges", func(d *database, p int32) {
			d.store(p, 0)
			d.batch(p, 0, 9, 1)
			d.exec("INSERT INTO journal (topic_id, partition, entry, offset, last_offset) VALUES (?, ?, 'barrier', 12, 12)", topicA, p)
		}, "1 1 0 0 0 0 0 0 0 0 0 0", "", ""},
		{"nothing journaled: no line", func(d *database, p int32) { d.store(p, 0) }, "", "", ""},
		{"a partition's number and the highest offsets", func(d *database, p int32) {
			d.store(p, 1<<40, 1<<40+1)
			d.batch(p, 1<<40, 1<<40+1, 2)
		}, "2 2 0 0 0 0 0 0 0 0 0 0", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := d.of(t)
			p := int32(i)
			d.exec("SYSTEM STOP MERGES event_log")
			tt.do(d, p)
			look := func(faults string, settings ...with) {
				t.Helper()
				if faults == "" {
					faults = "0 0 0 0"
				}
				var want []string
				if tt.want != "" {
					want = []string{strings.ReplaceAll(topicA.String()+" "+fmt.Sprint(p)+" "+tt.want+" "+faults, " ", "\t")}
				}
				require.Equal(t, want, d.lines(fmt.Sprint("SELECT * FROM balance WHERE partition = ", p), settings...))
			}
			look(tt.faults)
			look(tt.faults, with{"join_use_nulls": "1"})
			d.exec("SYSTEM START MERGES event_log")
			d.exec("OPTIMIZE TABLE journal FINAL")
			d.exec("OPTIMIZE TABLE event_log FINAL")
			if tt.merged == "" {
				tt.merged = tt.faults
			}
			look(tt.merged)
		})
	}
}

// balance must be cheap to ask: what it reads of event_log is a projection.
func TestBalanceReadsAProjection(t *testing.T) {
	d := migrated(t)
	d.store(0, 1, 2, 3)
	plan := strings.Join(d.lines("EXPLAIN SELECT * FROM balance"), "\n")
	require.Contains(t, plan, "ReadFromMergeTree (origin_blocks)")
	require.NotContains(t, plan, "event_log)")
}

// A schema that holds data grows: rows of before are in the projection too, and
// every statement can be run again over them.
func TestBalanceOfWhatWasThereBefore(t *testing.T) {
	d := in(t, enginetest.Start(t), "sluice")
	require.NoError(t, createDatabase(t.Context(), *d.options(), "", silent))
	migrations, err := schema.Migrations()
	require.NoError(t, err)
	for _, m := range migrations[:3] {
		for _, s := range m.Statements {
			d.exec(s)
		}
	}
	d.store(0, 0, 1, 70_000)
	d.batch(0, 0, 70_000, 4)
	d.fate(0, "duplicate", 5, 5, 1)
	want := []string{strings.ReplaceAll(topicA.String()+" 0 4 3 1 0 0 0 0 0 0 0 0 0 0 0 0 0", " ", "\t")}
	for range 2 {
		for _, s := range migrations[3].Statements {
			d.exec(s)
		}
		require.Equal(t, want, d.lines("SELECT * FROM balance"))
		require.Equal(t, []string{"2"}, d.lines("SELECT uniqExact(parent_name) FROM system.projection_parts WHERE database = 'sluice' AND name = 'origin_blocks' AND active AND parent_name IN (SELECT DISTINCT _part FROM event_log)"), "its parts, one a month, have the projection")
		require.Equal(t, []string{"0"}, d.lines("SELECT count() FROM system.projection_parts WHERE database = 'sluice' AND name = 'origins' AND active"))
		require.Equal(t, []string{"batch\t1", "fate\t1"}, d.lines("SELECT entry, count() FROM journal GROUP BY entry ORDER BY entry"))
	}
}
