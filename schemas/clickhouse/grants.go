package clickhouse

import (
	"fmt"
	"strings"
)

// The roles that a server with users should have.
const (
	// RoleAnalyst reads, within limits of memory, time and size.
	RoleAnalyst = "sluice_analyst"
	// RoleWriter is the service's: it inserts and reads, and can change or delete
	// nothing that is stored.
	RoleWriter = "sluice_writer"
	// RoleOperator is for the commands that migrate, erase, expire and mend.
	RoleOperator = "sluice_operator"
)

// Grant is one right of a role.
type Grant struct {
	Role string
	// Right is as in SELECT or ALTER DELETE.
	Right string
	// Database and Table may be "*".
	Database, Table string
}

// String is the statement that gives it.
func (g Grant) String() string {
	return fmt.Sprintf("GRANT %s ON %s.%s TO %s", g.Right, quote(g.Database), quote(g.Table), g.Role)
}

func quote(name string) string {
	if name == "*" {
		return name
	}
	return "`" + strings.NewReplacer(`\`, `\\`, "`", "\\`").Replace(name) + "`"
}

// Grants are the rights of all roles on a database. A view is read with the
// rights of who asks, so an analyst may read what the views stand on; tombstones
// and operations are not among it.
func Grants(database string) []Grant {
	var out []Grant
	add := func(role, database string, tables []string, rights ...string) {
		for _, table := range tables {
			for _, right := range rights {
				out = append(out, Grant{role, right, database, table})
			}
		}
	}
	add(RoleAnalyst, database, []string{EventLog, Journal, Completeness,
		Events, EventsPhysical, EventsGuard, EventsPerMinute, EventsPerHour, EventsPerDay, DailyActives, SourceDailyActives,
		LateEventsPerDay, EventConflicts, CompleteThrough, Balance}, "SELECT")
	add(RoleWriter, database, []string{"*"}, "SELECT")
	add(RoleWriter, database, []string{EventLog, Journal, Operations, Completeness}, "INSERT")
	add(RoleWriter, "system", []string{"*"}, "SELECT")
	// Keys are handed over as the text of a table function, which ClickHouse counts as
	// a temporary table.
	add(RoleWriter, "*", []string{"*"}, "KILL QUERY", "CREATE TEMPORARY TABLE")
	add(RoleOperator, database, []string{"*"}, "SELECT", "INSERT", "CREATE TABLE", "CREATE VIEW", "DROP TABLE", "DROP VIEW", "TRUNCATE",
		"ALTER UPDATE", "ALTER DELETE", "ALTER COLUMN", "ALTER PROJECTION", "ALTER SETTINGS", "OPTIMIZE")
	add(RoleOperator, "system", []string{"*"}, "SELECT")
	add(RoleOperator, "*", []string{"*"}, "KILL QUERY", "CREATE TEMPORARY TABLE", "CREATE DATABASE")
	return out
}

// AccessStatements make profile, roles and rights, in order. Each may be run
// again. No user is made: whoever has a name and a password is the server's to
// say; GRANT a role to one, and make it the user's default.
func AccessStatements(database string) []string {
	out := []string{
		// readonly 2: a client may set settings of its own, as drivers and Grafana
		// do, but none beyond the limits, and nothing is written. MIN: 0 is no limit.
		"CREATE SETTINGS PROFILE IF NOT EXISTS " + RoleAnalyst + " SETTINGS readonly = 2," +
			" max_memory_usage = 4000000000 MIN 1 MAX 8000000000, max_execution_time = 30 MIN 1 MAX 120," +
			" max_result_rows = 1000000 MIN 1 MAX 10000000, max_result_bytes = 500000000 MIN 1 MAX 2000000000, result_overflow_mode = 'throw' CONST," +
			" max_threads = 4 MAX 16, max_concurrent_queries_for_user = 20 CONST, priority = 5 CONST",
		"CREATE ROLE IF NOT EXISTS " + RoleAnalyst + " SETTINGS PROFILE '" + RoleAnalyst + "'",
		"CREATE ROLE IF NOT EXISTS " + RoleWriter,
		"CREATE ROLE IF NOT EXISTS " + RoleOperator,
	}
	for _, g := range Grants(database) {
		out = append(out, g.String())
	}
	return out
}
