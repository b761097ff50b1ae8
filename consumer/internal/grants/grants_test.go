package grants

import (
	"strings"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/stretchr/testify/require"

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
			require.Contains(t, []string{"SELECT", "INSERT", "KILL QUERY"}, g.Right)
		}
		if g.Role == schema.RoleAnalyst {
			require.Equal(t, "SELECT", g.Right)
			require.NotContains(t, []string{schema.Tombstones, schema.Operations, "*"}, g.Table)
		}
	}
}

// The local engine can't run them, but its parser is ClickHouse's.
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
