package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/consumer/internal/verify"
)

// verifiedWith is what verify finds, and what it prints.
func (s *stack) verifiedWith(how verifying) (report, string) {
	s.t.Helper()
	var said strings.Builder
	cmd := command()
	cmd.SetErr(&said)
	t, err := openTools(cmd, s.cfg)
	require.NoError(s.t, err)
	defer t.close()
	t.verifying = how
	r, err := t.verify(s.t.Context(), 0)
	require.NoError(s.t, err)
	return r, said.String()
}

// Each fault made by hand in the real tables, found, named, and mended: the next
// begins from what is right.
func TestVerifyFindsFaults(t *testing.T) {
	t.Parallel()
	s, right := seeded(t)
	s.exec("CREATE TABLE rows_before AS event_log")
	s.exec("CREATE TABLE journal_before AS journal")
	const columns = "event_id, client_event_id, source, event_type, actor_id, occurred_at, payload_text, payload_hash, received_at, topic_id, partition, offset, record_timestamp"
	s.exec("INSERT INTO rows_before (" + columns + ") SELECT " + columns + " FROM event_log")
	s.exec("INSERT INTO journal_before SELECT * FROM journal")
	// again inserts a row again, some columns replaced.
	again := func(replace, where string) string {
		return "INSERT INTO event_log (" + columns + ") SELECT " + columns + " FROM (SELECT * REPLACE (" + replace + ") FROM (SELECT " + columns + " FROM rows_before WHERE " + where + "))"
	}
	one := "(topic_id, partition, offset) IN (SELECT topic_id, partition, offset FROM rows_before WHERE actor_id = 'actor-3' ORDER BY partition, offset LIMIT 1)"
	for _, tt := range []struct {
		name string
		do   []string
		want func(r *report)
		says string
	}{
		{"nothing", nil, func(*report) {}, ""},
		{"a row deleted", []string{"DELETE FROM event_log WHERE " + one}, func(r *report) { r.Missing, r.Rows = 1, r.Rows-1 }, "should be a row; ClickHouse has neither row nor fate"},
		{"a row's payload changed", []string{"DELETE FROM event_log WHERE " + one, again("'{\"n\":7}' AS payload_text", one)},
			func(r *report) { r.Different = 1 }, "the row's columns are not what the record says"},
		{"a row's payload hash changed", []string{"DELETE FROM event_log WHERE " + one, again("unhex('00112233445566778899aabbccddeeff') AS payload_hash", one)},
			func(r *report) { r.Different = 1 }, "the row has another payload"},
		{"a row of no record", []string{again("'nobody' AS actor_id, partition AS partition, toInt64(100000) AS offset", one)},
			func(r *report) { r.Extra = 1 }, "the log ends here, and 1 rows are of offsets from here to 100000"},
		{"a row stored twice", []string{"SYSTEM STOP MERGES event_log", again("payload_text AS payload_text", one)},
			func(r *report) { r.Extra = 1 }, ": 2 rows of this event are stored, of 1 records"},
		{"a row of an older topic", []string{again("'nobody' AS actor_id, toUUID('"+uuid.Nil.String()+"') AS topic_id", one)},
			func(r *report) { r.Unverifiable = 1 }, ""},
		{"a fate deleted", []string{"DELETE FROM journal WHERE fate = 'conflict' AND (partition, offset) IN (SELECT partition, offset FROM journal WHERE fate = 'conflict' LIMIT 1)"},
			func(r *report) { r.Missing = 1 }, "should be a conflict; ClickHouse has neither row nor fate"},
		{"a conflict's payload changed", []string{
			"INSERT INTO journal SELECT * REPLACE ('{}' AS payload_text) FROM journal_before WHERE fate = 'conflict' ORDER BY partition, offset LIMIT 1",
			"DELETE FROM journal WHERE payload_text = '{\"n\":2}' AND (partition, offset) IN (SELECT partition, offset FROM journal_before WHERE fate = 'conflict' ORDER BY partition, offset LIMIT 1)",
		}, func(r *report) { r.Different = 1 }, "is a conflict, and the journal has another payload for it"},
		{"a row and a fate", []string{"INSERT INTO journal (topic_id, topic, partition, entry, offset, last_offset, fate, records) SELECT topic_id, 'events', partition, 'fate', offset, offset, 'duplicate', 1 FROM rows_before WHERE " + one},
			func(r *report) { r.Different = 1 }, "is a row and in the journal a duplicate too"},
		{"forwarded and never arrived", []string{
			"DELETE FROM event_log WHERE " + one,
			"INSERT INTO journal (topic_id, topic, partition, entry, offset, last_offset, fate, records, event_id, source, event_type, actor_id, occurred_at, forwarded_to) SELECT topic_id, 'events', partition, 'fate', offset, offset, 'forwarded', 1, event_id, source, event_type, actor_id, occurred_at, 2 FROM rows_before WHERE " + one,
		}, func(r *report) { r.Different, r.Missing, r.Rows = 1, 1, r.Rows-1 }, "was forwarded to partition 2, and its event has no row"},
		{"a rollup that lags", []string{"CREATE OR REPLACE VIEW events_per_minute AS SELECT minute, source, event_type, events - 1 AS events, actors FROM (SELECT toStartOfMinute(occurred_at) AS minute, source, event_type, count() AS events, uniqCombined64(actor_id) AS actors FROM event_log GROUP BY minute, source, event_type)"},
			func(r *report) { r.RollupsEqual = false }, "minute 2026-01-02 03:04:00 test:source typ%e: the rollup has 499 events of 7 actors, the table 500 of 7"},
		{"a conflict that the view leaves out", []string{"CREATE OR REPLACE VIEW event_conflicts AS SELECT event_id, count() AS times_seen FROM (SELECT * FROM journal FINAL WHERE fate = 'conflict' ORDER BY event_id LIMIT 9) GROUP BY event_id, payload_hash"},
			func(r *report) { r.Different = 1 }, "event_conflicts: has 9 lines of 9 records; the journal's conflicts are 10 keys and payloads of 10 records"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := *s
			s.t = t
			views := map[string]string{}
			for _, view := range []string{"events_per_minute", "event_conflicts"} {
				var text string
				require.NoError(t, s.store.Conn().QueryRow(t.Context(), "SELECT create_table_query FROM system.tables WHERE database = currentDatabase() AND name = ?", view).Scan(&text))
				views[view] = strings.Replace(text, "CREATE VIEW", "CREATE OR REPLACE VIEW", 1)
			}
			defer func() {
				s.exec("SYSTEM START MERGES event_log")
				s.exec("TRUNCATE TABLE event_log")
				s.exec("TRUNCATE TABLE journal")
				s.exec("INSERT INTO event_log (" + columns + ") SELECT " + columns + " FROM rows_before")
				s.exec("INSERT INTO journal SELECT * FROM journal_before")
				for _, text := range views {
					s.exec(text)
				}
			}()
			for _, q := range tt.do {
				s.exec(q)
			}
			want := right
			tt.want(&want)
			want.OK = want.Missing+want.Extra+want.Different == 0 && want.RollupsEqual
			got, said := s.verifiedWith(verifying{memory: 1 << 20, tempDir: t.TempDir()})
			require.Equal(t, want, got, said)
			require.Contains(t, said, tt.says)
			if want.OK {
				require.Empty(t, said)
			}
		})
	}
}

// The first hundred findings are printed; if there are more, all are in a file.
func TestFindingsGoToAFile(t *testing.T) {
	s, right := seeded(t)
	s.exec("TRUNCATE TABLE event_log")
	path := filepath.Join(t.TempDir(), "findings.ndjson")
	r, said := s.verifiedWith(verifying{findings: path})
	require.Equal(t, right.Rows, r.Missing)
	require.Equal(t, 0, r.Different, "the duplicates were told against what is gone: one finding each is enough")
	require.Equal(t, findingsShown+1, strings.Count(said, "\n"))
	require.Contains(t, said, "and 400 more: all 500 are in "+path)
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	seen := map[string]bool{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var l line
		require.NoError(t, json.Unmarshal(lines.Bytes(), &l))
		require.Equal(t, verify.Missing, l.Kind)
		require.Contains(t, l.Key, "test%3Asource:typ%25e:actor-")
		seen[fmt.Sprint(*l.Partition, ":", *l.Offset)] = true
	}
	require.Len(t, seen, 500)

	s.exec("DELETE FROM journal WHERE 1")
	_, said = s.verifiedWith(verifying{findings: filepath.Join(t.TempDir(), "no", "such")})
	require.Contains(t, said, "could not be written to a file", "the verdict stands")
}

// While traffic goes on verify compares up to where the log ended when it began,
// and finds nothing.
func TestVerifyWhileTrafficGoesOn(t *testing.T) {
	s := newStack(t)
	defer s.consuming()()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		for i := 0; ctx.Err() == nil; i++ {
			var some []*kgo.Record
			for j := range 20 {
				r := record(i*10+j, `{"n":1}`) // half of them again in the next round
				r.Topic = s.cfg.Kafka.Topic
				some = append(some, r)
			}
			if err := s.producer.ProduceSync(context.WithoutCancel(ctx), some...).FirstErr(); err != nil {
				done <- err
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		done <- nil
	}()
	last := 0
	for range 4 {
		r := s.verified()
		require.True(t, r.OK, r)
		require.Zero(t, r.Unverifiable)
		require.GreaterOrEqual(t, r.Records, last)
		last = r.Records
	}
	cancel()
	require.NoError(t, <-done)
	require.Positive(t, last)
}

// A rollup's side of the comparison is its projection, or the two would be equal
// whatever the projection holds.
func TestVerifyReadsTheProjections(t *testing.T) {
	s, _ := seeded(t)
	for view, projection := range map[string]string{"events_per_minute": "by_minute", "events_per_hour": "by_hour"} {
		rows, err := s.store.Conn().Query(t.Context(), "EXPLAIN "+verify.RollupQuery(view))
		require.NoError(t, err)
		plan := ""
		for rows.Next() {
			var l string
			require.NoError(t, rows.Scan(&l))
			plan += l + "\n"
		}
		require.NoError(t, rows.Err())
		require.Equal(t, 1, strings.Count(plan, "ReadFromMergeTree ("+projection+")"), plan)
		require.Equal(t, 1, strings.Count(plan, "event_log)"), plan)
	}
}
