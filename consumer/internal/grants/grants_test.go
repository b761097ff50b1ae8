package grants

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/stretchr/testify/require"

	"sluice/consumer/internal/migrate"
	"sluice/deploy/local/enginetest"
	schema "sluice/schemas/clickhouse"
)

func TestMissing(t *testing.T) {
	all := missing("d", nil, nil)
	require.Equal(t, schema.AccessStatements("d"), all, "of a bare server everything is missing")
	roles := map[string]bool{"profile " + schema.RoleAnalyst: true, schema.RoleAnalyst: true, schema.RoleWriter: true, schema.RoleOperator: true}
	given := map[right]bool{}
	for _, g := range schema.Grants("d") {
		given[right{g.Role, g.Right, strings.Trim(g.Database, "*"), strings.Trim(g.Table, "*")}] = true
	}
	require.Empty(t, missing("d", roles, given))
	delete(given, right{schema.RoleWriter, "INSERT", "d", schema.Journal})
	require.Equal(t, []string{"GRANT INSERT ON `d`.`journal` TO sluice_writer"}, missing("d", roles, given))
	given[right{schema.RoleWriter, "INSERT", "d", ""}] = true
	require.Empty(t, missing("d", roles, given), "a right on the database is one on its tables")
}

// The writer's role inserts, and takes nothing away.
func TestTheWriterTakesNothingAway(t *testing.T) {
	for _, g := range schema.Grants("d") {
		if g.Role == schema.RoleWriter {
			require.Contains(t, []string{"SELECT", "INSERT", "KILL QUERY", "CREATE TEMPORARY TABLE"}, g.Right)
		}
		if g.Role == schema.RoleAnalyst {
			require.Equal(t, "SELECT", g.Right)
			require.NotContains(t, []string{schema.Tombstones, schema.Operations, "*"}, g.Table)
		}
	}
}

// The local engine has one user and nowhere to store roles, so that it runs none of
// these; its parser is ClickHouse's.
func TestStatementsParse(t *testing.T) {
	e := enginetest.Start(t)
	opts, err := clickhouse.ParseDSN(e.DSN)
	require.NoError(t, err)
	conn, err := clickhouse.Open(opts)
	require.NoError(t, err)
	defer conn.Close() //nolint:errcheck // nothing to be said of it
	for _, statement := range schema.AccessStatements("we`ird\\ name é") {
		var formatted string
		require.NoError(t, conn.QueryRow(t.Context(), "SELECT formatQuerySingleLine(?)", statement).Scan(&formatted), statement)
		require.NotEmpty(t, formatted)
	}
	_, err = Missing(t.Context(), conn, "default")
	require.Error(t, err, "the local engine has no users, so nothing can be told")
}

// users is a users.xml in which the one user of the local engine has an analyst's
// limits and rights, made of the very statements that are printed.
func users(t *testing.T, database string) string {
	t.Helper()
	all := schema.AccessStatements(database)
	_, list, ok := strings.Cut(all[0], schema.RoleAnalyst+" SETTINGS ")
	require.True(t, ok)
	var settings, constraints, rights strings.Builder
	for s := range strings.SplitSeq(list, ", ") {
		m := regexp.MustCompile(`^(\w+) = '?(\w+)'?(?: MIN (\d+))?(?: MAX (\d+))?( CONST)?$`).FindStringSubmatch(s)
		require.NotNil(t, m, s)
		fmt.Fprintf(&settings, "<%[1]s>%[2]s</%[1]s>", m[1], m[2])
		if m[4] != "" {
			fmt.Fprintf(&constraints, "<%[1]s><min>%[2]s</min><max>%[3]s</max></%[1]s>", m[1], cmp.Or(m[3], "0"), m[4])
		}
		if m[5] != "" {
			fmt.Fprintf(&constraints, "<%s><const/></%[1]s>", m[1])
		}
	}
	for _, g := range schema.Grants(database) {
		if right, ok := strings.CutSuffix(g.String(), " TO "+schema.RoleAnalyst); ok {
			fmt.Fprintf(&rights, "<query>%s</query>", right)
		}
	}
	return fmt.Sprintf(`<clickhouse>
<profiles><default/><analyst>%s<constraints>%s</constraints></analyst></profiles><quotas><default/></quotas>
<roles><%[3]s><grants>%[4]s</grants></%[3]s></roles>
<users><default><password/><networks><ip>::/0</ip></networks><profile>analyst</profile><quota>default</quota>
<grants><query>GRANT %[3]s</query></grants></default></users></clickhouse>`, &settings, &constraints, schema.RoleAnalyst, &rights)
}

// What an analyst may and may not do, by the engine's own access control: the local
// engine makes neither users nor roles by statement, but takes them from a file.
func TestTheAnalystMayReadAndNothingElse(t *testing.T) {
	e := enginetest.Start(t)
	dsn := e.URL + "/sluice"
	require.NoError(t, migrate.Up(t.Context(), dsn, func(string) {}))
	opts, err := clickhouse.ParseDSN(dsn)
	require.NoError(t, err)
	conn, err := clickhouse.Open(opts)
	require.NoError(t, err)
	defer conn.Close() //nolint:errcheck // nothing to be said of it
	require.ErrorContains(t, conn.Exec(t.Context(), "CREATE ROLE "+schema.RoleAnalyst), "Not enough privileges")
	e.Stop()
	require.NoError(t, os.WriteFile(filepath.Join(e.Dir, "users.xml"), []byte(users(t, "sluice")), 0o644))
	e.Restart()

	for _, view := range []string{
		schema.Events, schema.EventsPhysical, schema.EventsGuard, schema.EventsPerMinute, schema.EventsPerHour, schema.EventsPerDay,
		schema.DailyActives, schema.SourceDailyActives, schema.LateEventsPerDay, schema.EventConflicts, schema.CompleteThrough, schema.Balance,
	} {
		require.NoError(t, conn.Exec(t.Context(), "SELECT * FROM "+view+" LIMIT 1"), view)
	}
	require.NoError(t, conn.Exec(t.Context(), "SELECT 1 SETTINGS max_memory_usage = 1000000000, max_threads = 2"))
	for statement, want := range map[string]string{
		"INSERT INTO event_log (source) SELECT 'x'":                   "Not enough privileges",
		"INSERT INTO journal (topic) SELECT 'x'":                      "Not enough privileges",
		"ALTER TABLE event_log DELETE WHERE 1":                        "Not enough privileges",
		"ALTER TABLE event_log UPDATE source = 'x' WHERE 1":           "Not enough privileges",
		"ALTER TABLE event_log ADD COLUMN x Int8":                     "Not enough privileges",
		"ALTER TABLE event_log DROP PARTITION 202601":                 "Not enough privileges",
		"TRUNCATE TABLE journal":                                      "Not enough privileges",
		"DROP TABLE event_log":                                        "Not enough privileges",
		"DROP VIEW events":                                            "Not enough privileges",
		"CREATE TABLE t (a Int8) ENGINE = Memory":                     "Not enough privileges",
		"CREATE VIEW v AS SELECT 1":                                   "Not enough privileges",
		"OPTIMIZE TABLE event_log FINAL":                              "Not enough privileges",
		"SELECT * FROM operations":                                    "Not enough privileges",
		"SELECT * FROM tombstones":                                    "Not enough privileges",
		"SELECT * FROM system.users":                                  "Not enough privileges",
		"SELECT * FROM system.grants":                                 "Not enough privileges",
		"SELECT * FROM url('http://127.0.0.1:1/', 'TSV', 'x String')": "Not enough privileges",
		"SELECT * FROM file('/etc/passwd', 'TSV', 'x String')":        "Not enough privileges",
		"SELECT 1 SETTINGS readonly = 0":                              "Cannot modify 'readonly' setting",
		"SELECT 1 SETTINGS max_memory_usage = 8000000001":             "shouldn't be greater than",
		"SELECT 1 SETTINGS max_execution_time = 121":                  "shouldn't be greater than",
		"SELECT 1 SETTINGS max_result_rows = 10000001":                "shouldn't be greater than",
		// 0 is no limit at all, and less than every maximum.
		"SELECT 1 SETTINGS max_memory_usage = 0":                                                   "shouldn't be less than",
		"SELECT 1 SETTINGS max_execution_time = 0":                                                 "shouldn't be less than",
		"SELECT 1 SETTINGS max_result_rows = 0":                                                    "shouldn't be less than",
		"SELECT 1 SETTINGS max_result_bytes = 0":                                                   "shouldn't be less than",
		"SELECT 1 SETTINGS max_threads = 17":                                                       "shouldn't be greater than",
		"SELECT 1 SETTINGS result_overflow_mode = 'break'":                                         "should not be changed",
		"SELECT groupArray(number) FROM numbers(10000000) SETTINGS max_memory_usage = 10000000":    "memory limit exceeded",
		"SELECT sum(cityHash64(number)) FROM numbers(30000000000) SETTINGS max_execution_time = 1": "Timeout exceeded",
		"SELECT number FROM numbers(1500000) FORMAT Null":                                          "Limit for result exceeded",
	} {
		require.ErrorContains(t, conn.Exec(t.Context(), statement), want, statement)
	}
}
