package migrate

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/deploy/local/enginetest"
	schema "sluice/schemas/clickhouse"
)

// Every statement has a form for a cluster that ClickHouse's parser takes. They
// can't be run here: the local engine has no Keeper.
func TestTheClusterFormParses(t *testing.T) {
	d := in(t, enginetest.Start(t), "default")
	migrations, err := schema.Migrations()
	require.NoError(t, err)
	for _, m := range migrations {
		for _, s := range m.Statements {
			forms, err := schema.Cluster(s, `it's`)
			require.NoError(t, err, m.Name)
			for _, form := range forms {
				var formatted string
				require.NoError(t, d.conn.QueryRow(t.Context(), "SELECT formatQuerySingleLine(?)", form).Scan(&formatted), form)
				require.Contains(t, formatted, `ON CLUSTER `, form)
				require.NotContains(t, strings.ReplaceAll(formatted, "replicated_deduplication_window", ""), "non_", form)
			}
		}
	}
	forms, err := schema.Cluster(migrations[0].Statements[0], "c")
	require.NoError(t, err)
	require.Len(t, forms, 2)
	require.Contains(t, forms[0], "CREATE TABLE IF NOT EXISTS event_log_local ON CLUSTER 'c'")
	require.Contains(t, forms[0], "ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/event_log', '{replica}', version)")
	require.Contains(t, forms[1], "Distributed('c', currentDatabase(), 'event_log_local', cityHash64(source, event_type, actor_id, occurred_at))")
	_, err = schema.Cluster("RENAME TABLE a TO b", "c")
	require.Error(t, err)
}
