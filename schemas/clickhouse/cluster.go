package clickhouse

import (
	"fmt"
	"regexp"
	"strings"
)

// Sharded says how a table is laid out over a cluster's shards: event_log by the
// event's key, so that all rows of a key meet in one; everything else on the
// first, since it is small and an INSERT into it must be all or none.
func sharding(table string) string {
	if table == EventLog {
		return "cityHash64(source, event_type, actor_id, occurred_at)"
	}
	return "0"
}

var (
	createTable = regexp.MustCompile(`^CREATE TABLE IF NOT EXISTS (\w+)`)
	engine      = regexp.MustCompile(`(?m)^(\s*\)?\s*ENGINE = )(\w*)MergeTree(\(([^)]*)\))?`)
	view        = regexp.MustCompile(`^(CREATE OR REPLACE VIEW|DROP VIEW IF EXISTS) (\w+)`)
	alter       = regexp.MustCompile(`^ALTER TABLE (\w+)`)
	column      = regexp.MustCompile(`(?m)(ADD COLUMN|MODIFY COLUMN)`)
	window      = regexp.MustCompile(`\bnon_replicated_deduplication_window = (\d+)`)
	codec       = regexp.MustCompile(` CODEC\((?:[^()]|\([^()]*\))*\)`)
)

// Cluster is a migration's statement in the form for a cluster: its tables are
// Replicated… on each shard under the name with _local, with a Distributed table
// over them under the name itself, so that views and queries stay as they are.
// Migrations of a single server and of a cluster have the same numbers and
// checksums; one installation keeps to one form.
//
// The statements were checked by the engine's parser, and not run: the local
// engine has neither Keeper nor Replicated tables.
func Cluster(statement, cluster string) ([]string, error) {
	on := " ON CLUSTER '" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(cluster) + "'"
	switch {
	case createTable.MatchString(statement):
		table := createTable.FindStringSubmatch(statement)[1]
		local := createTable.ReplaceAllString(statement, "CREATE TABLE IF NOT EXISTS ${1}_local"+on)
		if n := len(engine.FindAllString(local, -1)); n != 1 {
			return nil, fmt.Errorf("the statement for %s names %d engines of the MergeTree family, want 1", table, n)
		}
		local = engine.ReplaceAllStringFunc(local, func(text string) string {
			m := engine.FindStringSubmatch(text)
			args := "'/clickhouse/tables/{shard}/{database}/" + table + "', '{replica}'"
			if m[4] != "" {
				args += ", " + m[4]
			}
			return m[1] + "Replicated" + m[2] + "MergeTree(" + args + ")"
		})
		local = window.ReplaceAllString(local, "replicated_deduplication_window = ${1}, replicated_deduplication_window_seconds = 604800")
		whole := fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s%s AS %s_local ENGINE = Distributed('%s', currentDatabase(), '%s_local', %s)",
			table, on, table, strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(cluster), table, sharding(table))
		return []string{local, whole}, nil
	case view.MatchString(statement):
		return []string{view.ReplaceAllString(statement, "${1} ${2}"+on)}, nil
	case alter.MatchString(statement):
		local := window.ReplaceAllString(alter.ReplaceAllString(statement, "ALTER TABLE ${1}_local"+on), "replicated_deduplication_window = ${1}")
		if !column.MatchString(statement) {
			return []string{local}, nil
		}
		if strings.Contains(statement, "MODIFY COLUMN") && !strings.Contains(statement, "Enum8") && strings.Contains(statement, "CODEC") {
			return []string{local}, nil // codecs are the local tables' alone
		}
		return []string{local, codec.ReplaceAllString(alter.ReplaceAllString(statement, "ALTER TABLE ${1}"+on), "")}, nil
	case strings.HasPrefix(statement, "DROP TABLE IF EXISTS "):
		name := strings.TrimPrefix(statement, "DROP TABLE IF EXISTS ")
		return []string{"DROP TABLE IF EXISTS " + name + on, "DROP TABLE IF EXISTS " + name + "_local" + on}, nil
	}
	return nil, fmt.Errorf("no form for a cluster is known of the statement %.60q", statement)
}
