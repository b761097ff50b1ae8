package doctor

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	schema "sluice/schemas/clickhouse"
)

func TestParseCreate(t *testing.T) {
	const ours = `CREATE TABLE IF NOT EXISTS t
(
    a  Enum8('x, (y' = 1, 'it\'s' = 2) CODEC(ZSTD(1)),
    b JSON(max_dynamic_paths = 32, max_dynamic_types = 0)  MATERIALIZED if(match(a, '^\\s*[{]'), a, '{}'),
    at DateTime64(3, 'UTC') DEFAULT now64(3) TTL toDateTime(at) + toIntervalDay(1),
    PROJECTION p (SELECT a, count()
        GROUP BY a),
    INDEX i a TYPE minmax
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(at) ORDER BY (a, at) TTL at + toIntervalDay(2)
SETTINGS one = 1, two = 'rebuild'`
	// As a server shows it.
	const shown = "CREATE TABLE db.t (`a` Enum8('x, (y' = 1, 'it\\'s' = 2) CODEC(ZSTD(1)), `b` JSON(max_dynamic_types = 0, max_dynamic_paths = 32) MATERIALIZED if(match(a, '^\\\\s*[{]'), a, '{}'), `at` DateTime64(3, 'UTC') DEFAULT now64(3) TTL toDateTime(at) + toIntervalDay(1), PROJECTION p (SELECT a, count() GROUP BY a), INDEX i a TYPE minmax) ENGINE = ReplacingMergeTree(version) PARTITION BY toYYYYMM(at) ORDER BY (a, at) TTL at + toIntervalDay(2) SETTINGS one = 1, two = 'rebuild'"
	name, got, err := parseCreate(ours)
	require.NoError(t, err)
	require.Equal(t, "t", name)
	require.Equal(t, Column{Type: `Enum8('x, (y'=1,'it\'s'=2)`, Text: `Enum8('x, (y' = 1, 'it\'s' = 2) CODEC(ZSTD(1))`}, got.Columns["a"])
	require.Equal(t, "MATERIALIZED", got.Columns["b"].Kind)
	require.Equal(t, "toDateTime(at) + toIntervalDay(1)", got.Columns["at"].TTL)
	require.Equal(t, Projection{"SELECTa,count()GROUPBYa", "SELECT a, count() GROUP BY a"}, got.Projections["p"])
	require.Equal(t, []string{"version"}, got.EngineArgs)
	require.Equal(t, "toYYYYMM(at)", got.PartitionBy)
	require.Equal(t, "a,at", got.OrderBy)
	require.Equal(t, map[string]string{"one": "1", "two": "rebuild"}, got.Settings)
	require.Len(t, got.Columns, 3)

	name, same, err := parseCreate(shown)
	require.NoError(t, err)
	require.Equal(t, "t", name)
	got.Statements, same.Statements = nil, nil
	for c := range got.Columns { // how it was written is not compared
		a, b := got.Columns[c], same.Columns[c]
		a.Text, b.Text = "", ""
		got.Columns[c], same.Columns[c] = a, b
	}
	require.Empty(t, cmp.Diff(got, same))

	for _, wrong := range []string{"", "SELECT 1", "CREATE TABLE t AS x", "CREATE TABLE t (a Int8", "CREATE TABLE t (a Int8,) ENGINE = Memory", "CREATE TABLE t (PROJECTION p)"} {
		_, _, err := parseCreate(wrong)
		require.Error(t, err, wrong)
	}
}

func TestDefinitionsFollowAlter(t *testing.T) {
	got, err := definitions([]string{
		"CREATE TABLE IF NOT EXISTS t (a Int8, b Int8, PROJECTION p (SELECT a ORDER BY a)) ENGINE = MergeTree ORDER BY a SETTINGS x = 1",
		"CREATE TABLE IF NOT EXISTS t (other Int8) ENGINE = Memory",
		"CREATE OR REPLACE VIEW v AS SELECT 1",
		"ALTER TABLE t ADD COLUMN IF NOT EXISTS c Enum8('a, b' = 1) DEFAULT 'a, b' AFTER a, DROP COLUMN IF EXISTS b",
		"ALTER TABLE t MODIFY COLUMN a Int16",
		"ALTER TABLE t ADD PROJECTION IF NOT EXISTS q\n(\n SELECT a, count() GROUP BY a\n)",
		"ALTER TABLE t MATERIALIZE PROJECTION IF EXISTS q",
		"ALTER TABLE t DROP PROJECTION IF EXISTS p",
		"ALTER TABLE t MODIFY SETTING x = 2, y = 'z'",
		"ALTER TABLE t MODIFY TTL d + toIntervalDay(1)",
		"CREATE TABLE u (a Int8) ENGINE = Memory",
		"DROP TABLE IF EXISTS u",
	})
	require.NoError(t, err)
	require.Len(t, got, 1)
	d := got["t"]
	require.Equal(t, []string{"a", "c"}, sortedKeys(d.Columns))
	require.Equal(t, "Int16", d.Columns["a"].Type)
	require.Equal(t, "'a, b'", d.Columns["c"].Expression)
	require.Equal(t, []string{"q"}, sortedKeys(d.Projections))
	require.Equal(t, map[string]string{"x": "2", "y": "z"}, d.Settings)
	require.Equal(t, "d + toIntervalDay(1)", d.TTL)

	for _, wrong := range []string{"ALTER TABLE v DROP COLUMN a", "ALTER TABLE t FREEZE", "ALTER TABLE t RENAME COLUMN a TO b", "ALTER TABLE t ADD COLUMN x"} {
		_, err := definitions([]string{"CREATE TABLE t (a Int8) ENGINE = MergeTree ORDER BY a", wrong})
		require.Error(t, err, wrong)
	}
}

// A statement in a form that the reader does not know would make the doctor
// expect another table than the one there is.
func TestOurMigrationsAreRead(t *testing.T) {
	migrations, err := schema.Migrations()
	require.NoError(t, err)
	var all []string
	for _, m := range migrations {
		all = append(all, m.Statements...)
	}
	got, err := definitions(all)
	require.NoError(t, err)
	require.Contains(t, got, schema.EventLog)
	require.Contains(t, got, schema.Journal)
	require.Equal(t, []string{"version"}, got[schema.EventLog].EngineArgs)
	require.Contains(t, got[schema.EventLog].Projections, "by_origin")
}

// Whatever a server shows, reading it neither panics nor loops.
func FuzzParseCreate(f *testing.F) {
	migrations, err := schema.Migrations()
	require.NoError(f, err)
	for _, m := range migrations {
		for _, s := range m.Statements {
			f.Add(s)
		}
	}
	f.Add("CREATE TABLE t (`a' Int8)) ENGINE = x(((")
	f.Add("ALTER TABLE t ADD PROJECTION")
	f.Fuzz(func(t *testing.T, s string) {
		name, d, err := parseCreate(s)
		if err == nil {
			again, same, err := parseCreate(s)
			require.NoError(t, err)
			require.Equal(t, name, again)
			require.Equal(t, d, same)
		}
		_, _ = definitions([]string{"CREATE TABLE t (a Int8) ENGINE = MergeTree ORDER BY a", s}) // an error, or none
	})
}
