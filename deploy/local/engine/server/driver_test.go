package server_test

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/ext"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/uuid"
	"github.com/shopspring/decimal"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"sluice/deploy/local/enginetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, e *enginetest.Engine, change func(*clickhouse.Options)) driver.Conn {
	t.Helper()
	opts, err := clickhouse.ParseDSN(e.DSN)
	require.NoError(t, err)
	if change != nil {
		change(opts)
	}
	c, err := clickhouse.Open(opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// Every type that the tables of Sluice use, and their likes, goes in and comes
// out unchanged, under every compression that the driver offers over HTTP.
func TestTypes(t *testing.T) {
	e := enginetest.Start(t)
	ctx := t.Context()
	require.NoError(t, open(t, e, nil).Exec(ctx, `CREATE TABLE types (
		n UInt32, big UInt128, id UUID, text String, low LowCardinality(String), lown LowCardinality(Nullable(String)),
		dec Decimal(38, 9), at DateTime64(9, 'UTC'), day Date, opt Nullable(Int64), list Array(String),
		pairs Array(Tuple(name String, value UInt64)), map Map(String, UInt32), fixed FixedString(16),
		doc JSON, yes Bool, e Enum8('a' = 1, 'b' = 2)
	) ENGINE = MergeTree ORDER BY n`))

	type row struct {
		n     uint32
		big   *big.Int
		id    uuid.UUID
		text  string
		low   string
		lown  *string
		dec   decimal.Decimal
		at    time.Time
		day   time.Time
		opt   *int64
		list  []string
		pairs [][]any
		m     map[string]uint32
		fixed string
		doc   string
		yes   bool
		e     string
	}
	huge, _ := new(big.Int).SetString("340282366920938463463374607431768211455", 10)
	null, minus := "low", int64(-1)
	rows := []row{
		{0, huge, uuid.MustParse("0198e7a4-32bb-8a01-9b1c-94c5db7ea5a6"), "it's \x00 a \xff byte", "x", &null,
			decimal.RequireFromString("12345678901234567890.123456789"), time.Unix(1, 123456789).UTC(),
			time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC), &minus, []string{"a", ""}, [][]any{{"k", uint64(1)}, {"", uint64(2)}},
			map[string]uint32{"a": 1}, "0123456789abcdef", `{"a":{"b":[1,2.5]},"c":"x","n":9007199254740993}`, true, "b"},
		{1, big.NewInt(0), uuid.Nil, "", "", nil, decimal.Zero, time.Unix(0, 0).UTC(),
			time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC), nil, []string{}, [][]any{}, map[string]uint32{}, strings.Repeat("\x00", 16), `{}`, false, "a"},
	}
	for name, method := range map[string]clickhouse.CompressionMethod{
		"none": clickhouse.CompressionNone, "lz4": clickhouse.CompressionLZ4, "zstd": clickhouse.CompressionZSTD,
		"gzip": clickhouse.CompressionGZIP, "deflate": clickhouse.CompressionDeflate,
	} {
		t.Run(name, func(t *testing.T) {
			c := open(t, e, func(o *clickhouse.Options) { o.Compression = &clickhouse.Compression{Method: method, Level: 1} })
			require.NoError(t, c.Exec(ctx, "TRUNCATE TABLE types"))
			b, err := c.PrepareBatch(ctx, "INSERT INTO types")
			require.NoError(t, err)
			for _, r := range rows {
				require.NoError(t, b.Append(r.n, r.big, r.id, r.text, r.low, r.lown, r.dec, r.at, r.day, r.opt, r.list,
					r.pairs, r.m, r.fixed, r.doc, r.yes, r.e))
			}
			require.NoError(t, b.Send())

			got, err := c.Query(ctx, "SELECT * EXCEPT doc, toJSONString(doc) FROM types ORDER BY n")
			require.NoError(t, err)
			defer func() { require.NoError(t, got.Close()) }()
			for i := 0; got.Next(); i++ {
				r := rows[i]
				var g row
				var pairs [][]any
				require.NoError(t, got.Scan(&g.n, &g.big, &g.id, &g.text, &g.low, &g.lown, &g.dec, &g.at, &g.day, &g.opt, &g.list,
					&pairs, &g.m, &g.fixed, &g.yes, &g.e, &g.doc))
				require.JSONEq(t, r.doc, g.doc)
				require.Zero(t, r.big.Cmp(g.big))
				require.True(t, r.dec.Equal(g.dec), "%s %s", r.dec, g.dec)
				require.ElementsMatch(t, r.pairs, pairs)
				require.True(t, r.day.Equal(g.day), "%s %s", r.day, g.day)
				require.True(t, r.at.Equal(g.at), "%s %s", r.at, g.at)
				g.doc, g.big, g.dec, g.pairs, g.day, g.at = r.doc, r.big, r.dec, r.pairs, r.day, r.at
				require.Equal(t, r, g)
			}
			require.NoError(t, got.Err())

			var doc clickhouse.JSON
			require.NoError(t, c.QueryRow(ctx, "SELECT doc FROM types WHERE n = 0").Scan(&doc))
			v, ok := doc.ValueAtPath("c")
			require.True(t, ok)
			require.Equal(t, "x", fmt.Sprint(v.(clickhouse.Dynamic).Any()))
		})
	}
}

func TestQueryContext(t *testing.T) {
	e := enginetest.Start(t)
	c := open(t, e, nil)
	ctx := t.Context()

	t.Run("query id and the client's own log_comment", func(t *testing.T) {
		ctx := clickhouse.Context(ctx, clickhouse.WithQueryID("mine"), clickhouse.WithSettings(clickhouse.Settings{"log_comment": "theirs"}))
		var id, comment string
		require.NoError(t, c.QueryRow(ctx, "SELECT query_id, Settings['log_comment'] FROM system.processes WHERE query_id = 'mine'").Scan(&id, &comment))
		require.Equal(t, "mine", id)
		require.Equal(t, "theirs", comment)
	})
	t.Run("settings end with their request", func(t *testing.T) {
		var n uint64
		with := clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"max_block_size": 123}))
		require.NoError(t, c.QueryRow(with, "SELECT toUInt64(getSetting('max_block_size'))").Scan(&n))
		require.EqualValues(t, 123, n)
		require.NoError(t, c.QueryRow(ctx, "SELECT toUInt64(getSetting('max_block_size'))").Scan(&n))
		require.NotEqualValues(t, 123, n)
	})
	t.Run("parameters", func(t *testing.T) {
		with := clickhouse.Context(ctx, clickhouse.WithParameters(clickhouse.Parameters{"text": `it's "\ `, "n": "7"}))
		var s string
		var n uint8
		require.NoError(t, c.QueryRow(with, "SELECT {text:String}, {n:UInt8}").Scan(&s, &n))
		require.Equal(t, `it's "\ `, s)
		require.EqualValues(t, 7, n)
	})
	t.Run("database", func(t *testing.T) {
		require.NoError(t, c.Exec(ctx, "CREATE DATABASE `other db`"))
		var name string
		o := open(t, e, func(o *clickhouse.Options) { o.Auth.Database = "other db" })
		require.NoError(t, o.QueryRow(ctx, "SELECT currentDatabase()").Scan(&name))
		require.Equal(t, "other db", name)
		require.Error(t, open(t, e, func(o *clickhouse.Options) { o.Auth.Database = "none" }).Exec(ctx, "SELECT 1"))
	})
	t.Run("external table", func(t *testing.T) {
		table, err := ext.NewTable("wanted", ext.Column("n", "UInt64"), ext.Column("s", "String"))
		require.NoError(t, err)
		for i := range 1000 {
			require.NoError(t, table.Append(uint64(i), fmt.Sprint(i)))
		}
		var n uint64
		with := clickhouse.Context(ctx, clickhouse.WithExternalTable(table))
		require.NoError(t, c.QueryRow(with, "SELECT count() FROM numbers(990, 20) WHERE (number, toString(number)) IN wanted").Scan(&n))
		require.EqualValues(t, 10, n)
		require.Error(t, c.Exec(ctx, "SELECT * FROM wanted"), "it was that query's alone")
	})
	t.Run("no rows", func(t *testing.T) {
		rows, err := c.Query(ctx, "SELECT 1 WHERE 0")
		require.NoError(t, err)
		require.False(t, rows.Next())
		require.NoError(t, rows.Err())
		require.NoError(t, rows.Close())
	})
	t.Run("revision of Native", func(t *testing.T) {
		v, err := c.ServerVersion()
		require.NoError(t, err)
		require.Zero(t, v.Revision, "libchdb writes no other")
		require.EqualValues(t, 26, v.Version.Major)
	})
}

func TestExceptions(t *testing.T) {
	c := open(t, enginetest.Start(t), func(o *clickhouse.Options) {
		o.Compression = &clickhouse.Compression{Method: clickhouse.CompressionLZ4}
	})
	ctx := t.Context()
	var ex *clickhouse.Exception
	var he *clickhouse.HTTPError

	err := c.Exec(ctx, "SELECT * FROM nowhere")
	require.ErrorAs(t, err, &ex)
	require.EqualValues(t, 60, ex.Code)
	require.ErrorAs(t, err, &he)
	require.Equal(t, 404, he.StatusCode)

	require.NoError(t, c.Exec(ctx, "CREATE TABLE t (n UInt32, CONSTRAINT small CHECK n < 10) ENGINE = MergeTree ORDER BY n"))
	b, err := c.PrepareBatch(ctx, "INSERT INTO t")
	require.NoError(t, err)
	require.NoError(t, b.Append(uint32(11)))
	err = b.Send()
	require.ErrorAs(t, err, &ex)
	require.EqualValues(t, 469, ex.Code, "a violated constraint")

	// An error after the first bytes were sent.
	rows, err := c.Query(ctx, "SELECT throwIf(number = 500000) FROM numbers(1000000)")
	require.NoError(t, err)
	n := 0
	for rows.Next() {
		n++
	}
	require.NotZero(t, n)
	require.True(t, errors.As(rows.Err(), &ex), "%v", rows.Err())
	require.EqualValues(t, 395, ex.Code)
	_ = rows.Close() // says the same error again
}

// Ten thousand rows of a kilobyte, and a literal of ten megabytes.
func TestLarge(t *testing.T) {
	c := open(t, enginetest.Start(t), nil)
	ctx := clickhouse.Context(context.Background(), clickhouse.WithSettings(clickhouse.Settings{"max_query_size": 64 << 20}))

	rows, err := c.Query(ctx, "SELECT number, repeat('x', 1000) FROM numbers(10000)")
	require.NoError(t, err)
	n := uint64(0)
	for rows.Next() {
		var i uint64
		var s string
		require.NoError(t, rows.Scan(&i, &s))
		require.Equal(t, n, i)
		n++
	}
	require.NoError(t, rows.Err())
	require.EqualValues(t, 10000, n)
	require.NoError(t, rows.Close())

	require.NoError(t, c.QueryRow(ctx, "SELECT count() FROM format(TSV, 'a String', '"+strings.Repeat(`abcdefghi\n`, 1<<20)+"')").Scan(&n))
	require.EqualValues(t, 1<<20, n)
}
