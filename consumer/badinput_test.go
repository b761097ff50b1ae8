package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/consumer/internal/migrate"
	"sluice/schemas/event"
)

// at is an event of another time, as the edge would write it.
func at(n int, when time.Time, payload string) *kgo.Record {
	e := event.Event{
		Source: "test", EventType: "t", ActorID: fmt.Sprint("a", n), OccurredAt: when.UTC(), Payload: []byte(payload),
	}
	return &kgo.Record{Key: e.AppendKey(nil), Value: e.AppendJSON(nil)}
}

// What a log can hold, all of it in few batches: each record gets its one fate.
func TestWhatALogCanHold(t *testing.T) {
	t.Parallel()
	for name, make := range map[string]func() (sent []*kgo.Record, want report){
		"ten thousand copies of one event in one batch": func() (sent []*kgo.Record, want report) {
			for range 10_000 {
				sent = append(sent, record(1, `{}`))
			}
			return sent, report{Records: 10_000, Rows: 1, Duplicates: 9_999}
		},
		"ten thousand payloads under one tuple": func() (sent []*kgo.Record, want report) {
			for i := range 10_000 {
				sent = append(sent, record(1, fmt.Sprintf(`{"n":%d}`, i)))
			}
			return sent, report{Records: 10_000, Rows: 1, Conflicts: 9_999}
		},
		"more months than an INSERT may touch by default": func() (sent []*kgo.Record, want report) {
			for i := range 260 {
				sent = append(sent, at(i, time.Date(2005, time.Month(i%130+1), 3, 0, 0, 0, i, time.UTC), `{}`))
			}
			return sent, report{Records: 260, Rows: 260}
		},
		"records stamped from 1970 to 2099, and events as old and as new": func() (sent []*kgo.Record, want report) {
			for i, year := range []int{1970, 2026, 2099} {
				r := at(i, time.Date(1901+i*180, 1, 1, 0, 0, 0, 999_999_999, time.UTC), `{}`)
				r.Timestamp = time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)
				again := *r
				sent = append(sent, r, &again)
			}
			return sent, report{Records: 6, Rows: 3, Duplicates: 3}
		},
		"tombstones, nothing, and half an event": func() (sent []*kgo.Record, want report) {
			half := record(3, `{}`)
			half.Value = half.Value[:len(half.Value)/2]
			return []*kgo.Record{{Key: []byte("k")}, {Value: []byte{}}, half, record(3, `{}`)},
				report{Records: 4, Rows: 1, DeadLettered: 3}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStack(t)
			defer s.consuming()()
			sent, want := make()
			s.produce(sent...)
			want.OK, want.RollupsEqual = true, true
			s.settles(want)
			s.balanced(want)
			require.EqualValues(t, want.Rows, s.scalar("SELECT count() FROM event_log"))
			if want.Conflicts > 0 {
				require.EqualValues(t, want.Conflicts, s.scalar("SELECT count() FROM event_conflicts"))
			}
		})
	}
}

// A month is detached under the running consumer: what comes in goes on, what is
// missing shows in the balance, and both putting it back and a replay mend it.
func TestAMonthIsDetached(t *testing.T) {
	t.Parallel()
	for _, attached := range []bool{true, false} {
		t.Run(fmt.Sprintf("attached again %v", attached), func(t *testing.T) {
			s := newStack(t)
			defer s.consuming()()
			for i := range 40 {
				s.produce(at(i, time.Date(2026, time.Month(i%2+1), 1, 0, 0, 0, i, time.UTC), `{}`))
			}
			s.settles(report{OK: true, Records: 40, Rows: 40, RollupsEqual: true})
			s.exec("ALTER TABLE event_log DETACH PARTITION 202601")
			s.produce(at(100, time.Date(2026, 2, 1, 0, 0, 1, 0, time.UTC), `{}`))
			require.Eventually(t, func() bool { return s.scalar("SELECT count() FROM event_log") == 21 }, 20*time.Second, 10*time.Millisecond)
			require.EqualValues(t, 20, s.scalar("SELECT toUInt64(sum(difference)) FROM balance"))
			if attached {
				s.exec("ALTER TABLE event_log ATTACH PARTITION 202601")
			} else {
				tools, err := openTools(command(), s.cfg)
				require.NoError(t, err)
				defer tools.close()
				_, err = tools.replay(t.Context(), replaying{from: "earliest"})
				require.NoError(t, err)
			}
			want := report{OK: true, Records: 41, Rows: 41, RollupsEqual: true}
			s.settles(want)
			s.balanced(want)
			require.EqualValues(t, 41, s.scalar("SELECT count() FROM event_log"))
		})
	}
}

// The engine's data are put back to a copy taken earlier, with everything that was
// written since gone from it, tokens and all.
func TestRestoredFromACopy(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.cfg.Batch.Rows = 30
	stop := s.consuming()
	for i := range 200 {
		s.produce(record(i, `{"n":1}`))
	}
	s.settles(report{OK: true, Records: 200, Rows: 200, RollupsEqual: true})
	stop()
	s.engine.Stop()
	copied := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.CopyFS(copied, os.DirFS(s.engine.Dir)))
	s.engine.Restart()

	stop = s.consuming()
	for i := range 300 {
		s.produce(record(i+100, `{"n":1}`))
	}
	s.produce(record(5, `{"n":2}`))
	want := report{OK: true, Records: 501, Rows: 400, Duplicates: 100, Conflicts: 1, RollupsEqual: true}
	s.settles(want)
	stop()
	s.engine.Stop()
	entries, err := os.ReadDir(s.engine.Dir)
	require.NoError(t, err)
	for _, e := range entries {
		require.NoError(t, os.RemoveAll(filepath.Join(s.engine.Dir, e.Name())))
	}
	require.NoError(t, os.CopyFS(s.engine.Dir, os.DirFS(copied)))
	s.engine.Restart()
	require.EqualValues(t, 200, s.scalar("SELECT count() FROM event_log"))

	defer s.consuming()()
	s.settles(want)
	s.balanced(want)
	require.EqualValues(t, 400, s.scalar("SELECT count() FROM event_log"))
}

// Metadata that are not ours, or ours cut short, halt nothing and are no proof.
func TestMetadataOfOthers(t *testing.T) {
	t.Parallel()
	for _, metadata := range []string{"", "someone else's", `sluice/1 {"last":7,"topic_`, "sluice/", "sluice/x y", strings.Repeat("z", 4000)} {
		t.Run(fmt.Sprintf("%.20q", metadata), func(t *testing.T) {
			s, before := seeded(t)
			var offsets kadm.Offsets
			for p := range s.cfg.Topics.Partitions {
				offsets.Add(kadm.Offset{Topic: s.cfg.Kafka.Topic, Partition: p, At: 40, LeaderEpoch: -1, Metadata: metadata})
			}
			_, err := kadm.NewClient(s.producer).CommitOffsets(t.Context(), s.cfg.Group.ID, offsets)
			require.NoError(t, err)
			defer s.consuming()()
			s.produce(record(9_999, `{}`))
			before.Records++
			before.Rows++
			s.settles(before)
			s.balanced(before)
			require.EqualValues(t, 501, s.scalar("SELECT count() FROM event_log"))
		})
	}
}

// A ClickHouse that is not the one this program was built for is refused, with
// what to do.
func TestTheWrongSchema(t *testing.T) {
	s := newStack(t)
	s.exec("INSERT INTO schema_migrations (version, name, checksum) VALUES (9999, 'later', '')")
	err := consume(t.Context(), s.cfg, s.log, unregistered())
	require.ErrorIs(t, err, migrate.ErrNewer)
	s.exec("TRUNCATE TABLE schema_migrations")
	err = consume(t.Context(), s.cfg, s.log, unregistered())
	require.ErrorIs(t, err, migrate.ErrOutdated)
	require.ErrorContains(t, err, "consumer migrate")
}
