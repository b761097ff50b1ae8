package enginetest_test

import (
	"context"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"sluice/deploy/local/enginetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What is acknowledged outlives a crash and an orderly stop, at the same
// address.
func TestKillAndRestart(t *testing.T) {
	e := enginetest.Start(t)
	opts, err := clickhouse.ParseDSN(e.DSN)
	require.NoError(t, err)
	c, err := clickhouse.Open(opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	ctx := context.Background()

	require.NoError(t, c.Exec(ctx, "CREATE TABLE t (n UInt32) ENGINE = MergeTree ORDER BY n"))
	insert := func(n uint32) {
		b, err := c.PrepareBatch(ctx, "INSERT INTO t (n)")
		require.NoError(t, err)
		require.NoError(t, b.Append(n))
		require.NoError(t, b.Send())
	}
	count := func() (n uint64) {
		require.NoError(t, c.QueryRow(ctx, "SELECT count() FROM t").Scan(&n))
		return n
	}
	insert(1)
	e.Kill()
	require.Error(t, c.Ping(ctx))
	e.Restart()
	require.EqualValues(t, 1, count())
	insert(2)
	e.Restart()
	require.EqualValues(t, 2, count())
	require.Contains(t, e.Log(), "stopped")
}
