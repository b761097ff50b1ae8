package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/schemas/event"
)

// seeded is a stack whose consumer has written 500 rows, 100 duplicates and 10
// conflicts, and has stopped.
func seeded(t *testing.T) (*stack, report) {
	t.Helper()
	s := newStack(t)
	s.cfg.Batch.Rows = 30 // many small batches
	stop := s.consuming()
	for i := range 500 {
		s.produce(record(i, `{"n":1}`))
	}
	for i := range 100 {
		s.produce(record(i, `{"n":1}`))
	}
	for i := range 10 {
		s.produce(record(i, `{"n":2}`))
	}
	r := s.verified()
	stop()
	require.Equal(t, report{OK: true, Records: 610, Rows: 500, Duplicates: 100, Conflicts: 10, RollupsEqual: true}, r)
	return s, r
}

func (s *stack) exec(query string) {
	s.t.Helper()
	require.NoError(s.t, s.store.Conn().Exec(s.t.Context(), query))
}

// resetOffsets does what Kafka's own tool does: a commit without metadata.
func (s *stack) resetOffsets(at int64) {
	s.t.Helper()
	var offsets kadm.Offsets
	for p := range s.cfg.Topics.Partitions {
		offsets.AddOffset(s.cfg.Kafka.Topic, p, at, -1)
	}
	_, err := kadm.NewClient(s.producer).CommitOffsets(s.t.Context(), s.cfg.Group.ID, offsets)
	require.NoError(s.t, err)
}

// What an operator or a disaster does while no consumer runs, and what must be
// there again after the next start, by itself, with no row written twice.
func TestRestartMends(t *testing.T) {
	t.Parallel()
	for name, disaster := range map[string]func(s *stack){
		"offsets set back to the start":     func(s *stack) { s.resetOffsets(0) },
		"offsets set forward past the log":  func(s *stack) { s.resetOffsets(100_000) },
		"a table emptied, offsets set back": func(s *stack) { s.exec("TRUNCATE TABLE event_log"); s.resetOffsets(0) },
		"rows deleted, offsets set back": func(s *stack) {
			s.exec("DELETE FROM event_log WHERE actor_id = 'actor-3'")
			s.resetOffsets(0)
		},
		"everything emptied": func(s *stack) {
			s.exec("TRUNCATE TABLE event_log")
			s.exec("TRUNCATE TABLE journal")
		},
		// DELETE leaves the tokens of what it takes: written again under the
		// same ones, rows and entries would be dropped, and reported as written.
		"everything deleted, its tokens left": func(s *stack) {
			s.exec("DELETE FROM event_log WHERE 1")
			s.exec("DELETE FROM journal WHERE 1")
		},
		"the journal emptied": func(s *stack) { s.exec("TRUNCATE TABLE journal") },
		// Every entry that touches the part: where a slow machine made one batch
		// of it and of what is before, the journal would have no gap, and nothing
		// tells a consumer that rows were deleted.
		"a part of the journal and some rows lost": func(s *stack) {
			s.exec("DELETE FROM journal WHERE last_offset >= 40 AND offset <= 120")
			s.exec("DELETE FROM event_log WHERE actor_id = 'actor-2' AND offset >= 60") // in the gap and beyond it
		},
		"the group's offsets deleted": func(s *stack) {
			_, err := kadm.NewClient(s.producer).DeleteGroups(s.t.Context(), s.cfg.Group.ID)
			require.NoError(s.t, err)
		},
		"the engine killed and started again": func(s *stack) { s.engine.Kill(); s.engine.Restart() },
	} {
		t.Run(name, func(t *testing.T) {
			s, before := seeded(t)
			disaster(s)
			stop := s.consuming()
			defer stop()
			s.produce(record(9_999, `{}`))
			before.Records++
			before.Rows++
			s.settles(before)
			s.balanced(before)
			require.EqualValues(t, 501, s.scalar("SELECT count() FROM event_log"))
			require.EqualValues(t, 10, s.scalar("SELECT uniqExact(event_id, payload_hash) FROM journal WHERE fate = 'conflict'"))
		})
	}
}

// A replay asks the running owners, who write what is missing and only that.
func TestReplay(t *testing.T) {
	t.Parallel()
	for _, running := range []bool{true, false} {
		t.Run(fmt.Sprintf("consumer running %v", running), func(t *testing.T) {
			s, before := seeded(t)
			s.exec("DELETE FROM event_log WHERE actor_id = 'actor-5'")
			missing := 500 - int(s.scalar("SELECT count() FROM event_log"))
			require.Positive(t, missing)
			if running {
				defer s.consuming()()
			}
			tools, err := openTools(command(), s.cfg)
			require.NoError(t, err)
			defer tools.close()
			for _, dryRun := range []bool{true, false} {
				results, err := tools.replay(t.Context(), replaying{from: "earliest", dryRun: dryRun})
				require.NoError(t, err)
				found, written := 0, 0
				for _, r := range results {
					found += r.Missing
					written += r.Written
				}
				require.Equal(t, missing, found)
				if !dryRun {
					require.Equal(t, missing, written)
				}
			}
			require.Equal(t, before, s.verified())
			s.balanced(before)
			results, err := tools.replay(t.Context(), replaying{from: "0:0,2:5"})
			require.NoError(t, err)
			require.Len(t, results, 2)
			require.Zero(t, results[0].Written+results[1].Written)
			require.EqualValues(t, 500, s.scalar("SELECT count() FROM event_log"))
		})
	}
}

// A record of another producer, with its own partitioner, no key or a wrong
// one, is decided where its key belongs, and a repeat of it is one row.
func TestForeignProducers(t *testing.T) {
	s := newStack(t)
	defer s.consuming()()
	manual, err := kgo.NewClient(kgo.SeedBrokers(s.cfg.Kafka.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(t, err)
	defer manual.Close()
	misplaced := 0
	for i := range 60 {
		r := record(i, `{}`)
		s.produce(record(i, `{}`))
		home := event.Partition(r.Key, s.cfg.Topics.Partitions)
		r.Topic, r.Partition = s.cfg.Kafka.Topic, int32(i)%s.cfg.Topics.Partitions
		switch i % 3 {
		case 0:
			r.Key = nil
		case 1:
			r.Key = []byte("wrong")
		}
		if r.Partition != home {
			misplaced++
		}
		require.NoError(t, manual.ProduceSync(t.Context(), r).FirstErr())
	}
	want := report{OK: true, Records: 120 + misplaced, Rows: 60, Duplicates: 60, Forwarded: misplaced, RollupsEqual: true}
	s.settles(want)
	s.balanced(want)
}

// Payloads that are I-JSON and yet hard for ClickHouse's JSON type: none may
// fail the INSERT of the batch it is in, and each keeps its exact text.
func TestNoPayloadStopsAPartition(t *testing.T) {
	s := newStack(t)
	defer s.consuming()()
	payloads := []string{
		`{"a":{"b":1},"a.b":2}`, `{"":{"":1}}`, `{"n":1e999,"m":-0,"k":18446744073709551616}`,
		`{"a":[{},{"b":[1,"y"]},{"b":2}]}`, `{"d":"2026-01-02","e":"2026-01-02T03:04:05Z"}`,
		`{"\u0000":"\u0000","q\"` + "`'" + `":[null,[null]]}`, `{"b":[true,1,"x"]}`,
		`{"deep":` + strings.Repeat("[", 120) + strings.Repeat("]", 120) + `}`,
		`{"long":` + strings.Repeat("9", 400) + `}`,
	}
	for i, p := range payloads {
		s.produce(record(i, p))
	}
	want := report{OK: true, Records: len(payloads), Rows: len(payloads), RollupsEqual: true}
	require.Equal(t, want, s.verified())
	for i, p := range payloads {
		var text string
		require.NoError(t, s.store.Conn().QueryRow(t.Context(),
			"SELECT payload_text FROM events WHERE toUnixTimestamp64Nano(occurred_at) % 1000000000 = ?", i*1000).Scan(&text))
		require.Equal(t, p, text)
	}
}

// A replay that is over was read again after each restart: the owners were
// there before the history of the control topic had been read, and were given
// requests whose end stood further on in it.
func TestFinishedReplaysStayFinished(t *testing.T) {
	t.Parallel()
	s, _ := seeded(t)
	stop := s.consuming()
	tools, err := openTools(command(), s.cfg)
	require.NoError(t, err)
	defer tools.close()
	for range 5 {
		_, err = tools.replay(t.Context(), replaying{from: "earliest"})
		require.NoError(t, err)
	}
	stop()
	said := func() int64 {
		ends, err := kadm.NewClient(s.producer).ListEndOffsets(t.Context(), s.cfg.Kafka.Control)
		require.NoError(t, err)
		end, _ := ends.Lookup(s.cfg.Kafka.Control, 0)
		return end.Offset
	}
	before := said()
	for range 3 {
		stop = s.consuming()
		s.produce(record(7_000+int(said()), `{}`)) // and the owners do work meanwhile
		require.True(t, s.verified().OK)
		stop()
	}
	require.Equal(t, before, said(), "nothing was reported, since nothing was read again")
}
