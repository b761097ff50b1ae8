package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/consumer/internal/store"
	schema "sluice/schemas/clickhouse"
	"sluice/schemas/topic"
)

// as starts the engine anew, whose one user then has the rights of a role, but for
// those that are named, and no other: it makes no users by statement, but takes them
// from a file, and its access control is ClickHouse's.
func (s *stack) as(role string, without ...string) {
	s.t.Helper()
	var rights strings.Builder
	left := slices.Clone(without)
	for _, g := range schema.Grants("sluice") {
		right, ours := strings.CutSuffix(g.String(), " TO "+role)
		if i := slices.Index(left, right); ours && i >= 0 {
			left = slices.Delete(left, i, i+1)
		} else if ours {
			fmt.Fprintf(&rights, "<query>%s</query>", right)
		}
	}
	require.Empty(s.t, left, "%s has no such right", role)
	s.engine.Stop()
	require.NoError(s.t, os.WriteFile(filepath.Join(s.engine.Dir, "users.xml"), fmt.Appendf(nil, `<clickhouse>
<profiles><default/></profiles><quotas><default/></quotas><roles><%[1]s><grants>%[2]s</grants></%[1]s></roles>
<users><default><password/><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>
<grants><query>GRANT %[1]s</query></grants></default></users></clickhouse>`, role, &rights), 0o644))
	s.engine.Restart()
}

// refused says of a statement that the engine refuses it for want of a right.
func (s *stack) refused(statement string) {
	s.t.Helper()
	require.ErrorContains(s.t, s.store.Conn().Exec(s.t.Context(), statement), "Not enough privileges", statement)
}

// The service has all the rights that it needs as the writer, with everything in it:
// repeats of any age, dead letters, forwards, a start in the middle. It takes nothing
// away.
func TestTheWritersRightsSuffice(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.as(schema.RoleWriter)
	stop := s.consuming()
	send := func(from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			s.produce(record(i, `{}`))
		}
	}
	send(0, 30)
	send(0, 10)
	s.produce(&kgo.Record{Value: []byte("garbage")}, record(3, `{"other":true}`))
	require.Equal(t, report{OK: true, Records: 42, Rows: 30, Duplicates: 10, Conflicts: 1, DeadLettered: 1, RollupsEqual: true}, s.verified())
	stop()
	stop = s.consuming()
	send(20, 40)
	require.Equal(t, report{OK: true, Records: 62, Rows: 40, Duplicates: 20, Conflicts: 1, DeadLettered: 1, RollupsEqual: true}, s.verified())
	stop = func() func() { stop(); return s.readAgain() }()
	require.Equal(t, 40, s.verified().Rows)
	stop()
	require.Zero(t, s.wrong())
	for _, statement := range []string{
		"ALTER TABLE event_log DELETE WHERE 1", "ALTER TABLE event_log UPDATE source = 'x' WHERE 1", "ALTER TABLE event_log DROP PARTITION 202601",
		"TRUNCATE TABLE journal", "DROP TABLE event_log", "CREATE TABLE x (a Int8) ENGINE = Memory", "OPTIMIZE TABLE event_log FINAL",
		"INSERT INTO tombstones (kind) SELECT 'before'", "INSERT INTO schema_migrations SELECT * FROM schema_migrations",
	} {
		s.refused(statement)
	}

	// None of its INSERTs can be done without.
	self := topic.Origin{TopicID: uuid.New()}
	for table, write := range map[string]func() error{
		schema.Journal: func() error {
			return s.store.Journal(t.Context(), uuid.NewString(), s.cfg.Kafka.Topic, self, []store.Entry{{Kind: store.Batch}})
		},
		schema.EventLog:     func() error { return s.store.Conn().Exec(t.Context(), "INSERT INTO event_log (source) SELECT 'x'") },
		schema.Completeness: func() error { return s.store.Conn().Exec(t.Context(), "INSERT INTO completeness (edges) SELECT 1") },
		schema.Operations:   func() error { return s.store.Conn().Exec(t.Context(), "INSERT INTO operations (kind) SELECT 'x'") },
	} {
		s.as(schema.RoleWriter, "GRANT INSERT ON `sluice`.`"+table+"`")
		require.ErrorContains(t, write(), "Not enough privileges", table)
	}
}

// The commands that people run have all the rights that they need as the operator, and
// fail by the engine's word without one.
func TestTheOperatorsRightsSuffice(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.exec("DROP DATABASE sluice SYNC")
	s.as(schema.RoleOperator)
	run := func(want int, args ...string) {
		t.Helper()
		out, said, status := s.says(args...)
		require.Equal(t, want, status, "%v: %s%s", args, out, said)
		require.NotContains(t, out+said, "Not enough privileges", args)
	}
	run(0, "migrate")     // from nothing
	stop := s.consuming() // whatever the writer may, the operator may
	old := time.Date(2025, 3, 5, 0, 0, 0, 0, time.UTC)
	for i := range 12 {
		s.produce(recordOf("s", fmt.Sprint("actor-", i%3), time.Now().Add(-time.Duration(i)*time.Minute), `{"n":1}`), recordOf("s", "old", old.Add(time.Duration(i)*time.Second), `{}`))
	}
	s.produce(&kgo.Record{Value: []byte("garbage")})
	s.caughtUp()
	run(0, "migrate")
	run(0, "verify", "--json")
	run(1, "status", "--json") // there is a dead letter
	run(0, "replay", "--from", "earliest", "--yes", "--findings", filepath.Join(t.TempDir(), "findings"))
	run(0, "replay", "history", "--json")
	run(0, "replay", "--from", "earliest", "--into", "rebuilt")
	run(0, "schema", "promote", "page_view.duration_ms", "--schemas", "../schemas/jsonschema", "--apply", "--yes")
	run(0, "erase", "--actor", "actor-1", "--yes")
	run(0, "retention", "--before", "2025-05-01T00:00:00Z", "--yes")
	run(0, "dlq", "list")
	run(0, "dlq", "redrive", "--yes")
	run(0, "dlq", "discard", "--why", "a test", "--yes")
	run(0, "pause", "--partitions", "all", "--why", "a test")
	run(0, "resume", "--partitions", "all")
	run(0, "edges", "list")
	run(0, "verify", "--json")
	require.Zero(t, s.wrong())
	stop()

	for right, args := range map[string][]string{
		"ALTER DELETE": {"erase", "--actor", "actor-2", "--yes"},
		"ALTER UPDATE": {"erase", "--actor", "actor-2", "--yes"},
		"INSERT":       {"erase", "--actor", "actor-2", "--yes"},
		"CREATE TABLE": {"replay", "--from", "earliest", "--into", "another"},
	} {
		s.as(schema.RoleOperator, "GRANT "+right+" ON `sluice`.*")
		out, said, status := s.says(args...)
		require.Equal(t, 2, status, "without %s: %s", right, out)
		require.Contains(t, said, "Not enough privileges", right)
	}
	s.as(schema.RoleOperator)
	s.refused("CREATE USER x")
	s.refused("SELECT * FROM url('http://127.0.0.1:1/', 'TSV', 'x String')")
	s.refused("CREATE TABLE default.x (a Int8) ENGINE = Memory")
}
