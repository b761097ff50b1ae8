package migrate

import (
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"sluice/deploy/local/enginetest"
	schema "sluice/schemas/clickhouse"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// database is one database of a test's engine. Its methods fail the test.
type database struct {
	t    *testing.T
	dsn  string
	conn driver.Conn
}

// in makes a handle on a database, migrated or not. The connection is opened
// when first used, since one to a missing database is refused.
func in(t *testing.T, e *enginetest.Engine, name string) *database {
	t.Helper()
	d := &database{t: t, dsn: e.URL + "/" + name}
	opts, err := clickhouse.ParseDSN(d.dsn)
	require.NoError(t, err)
	d.conn, err = clickhouse.Open(opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.conn.Close()) })
	return d
}

func (d *database) up() []string {
	d.t.Helper()
	var lines []string
	require.NoError(d.t, Up(d.t.Context(), d.dsn, func(line string) { lines = append(lines, line) }))
	return lines
}

func (d *database) exec(query string, args ...any) {
	d.t.Helper()
	require.NoError(d.t, d.conn.Exec(d.t.Context(), query, args...), query)
}

// objects is the schema as the server has it: statements by name.
func (d *database) objects() map[string]string {
	d.t.Helper()
	rows, err := d.conn.Query(d.t.Context(), "SELECT name, create_table_query FROM system.tables WHERE database = currentDatabase()")
	require.NoError(d.t, err)
	defer rows.Close()
	out := map[string]string{}
	for rows.Next() {
		var name, query string
		require.NoError(d.t, rows.Scan(&name, &query))
		out[name] = query
	}
	require.NoError(d.t, rows.Err())
	return out
}

func TestUpTwiceChangesNothing(t *testing.T) {
	e := enginetest.Start(t)
	d := in(t, e, "sluice")
	first := d.up()
	require.Contains(t, first, "created the database sluice")
	require.Len(t, first, 4, "the database and three migrations")
	require.NoError(t, Check(t.Context(), d.conn))
	before := d.objects()
	for _, name := range []string{schema.EventLog, schema.Journal, schema.Operations, schema.Events, schema.EventConflicts, schema.Balance, schema.EventsPerMinute, schema.EventsPerHour} {
		require.Contains(t, before, name, "the constant names what exists")
	}
	require.Equal(t, []string{"the schema is at version 3, nothing to do"}, d.up())
	require.Empty(t, cmp.Diff(before, d.objects()))
}
