package clickhouse

import (
	"regexp"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
)

// A run may be cut short between any two statements and begins anew with the
// first: each must be harmless when its work is done already.
func TestStatementsCanBeRunAgain(t *testing.T) {
	migrations, err := Migrations()
	require.NoError(t, err)
	require.NotEmpty(t, migrations)
	again := regexp.MustCompile(`^(CREATE TABLE IF NOT EXISTS|CREATE OR REPLACE VIEW|ALTER TABLE \w+ (ADD|DROP|CLEAR|MATERIALIZE) (COLUMN|INDEX|PROJECTION) IF (NOT )?EXISTS|ALTER TABLE \w+ MODIFY|DROP (TABLE|VIEW) IF EXISTS) `)
	for i, m := range migrations {
		require.EqualValues(t, i+1, m.Version)
		require.Len(t, m.Checksum, 64)
		for _, s := range m.Statements {
			require.Regexp(t, again, s)
			require.NotRegexp(t, `sluice\.`, s, "tables are the connection's database's, whatever its name")
			require.NotRegexp(t, `(?m)^\s*--`, s)
		}
	}
}

func TestRead(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	got, err := read(fstest.MapFS{
		"migrations/0001_one.sql":     file("-- about; both\nCREATE a\n(\n  x ';' DEFAULT 1 -- not a comment line;\n);\n\n  -- more\nCREATE b;\nCREATE c"),
		"migrations/0002_the_two.sql": file("CREATE d;\r\n"),
	})
	require.NoError(t, err)
	require.Equal(t, "one", got[0].Name)
	require.Equal(t, "the_two", got[1].Name)
	require.Empty(t, cmp.Diff([]string{"CREATE a\n(\n  x ';' DEFAULT 1 -- not a comment line", ")", "CREATE b", "CREATE c"}, got[0].Statements),
		"a semicolon ends a statement at the end of a line, wherever that is")
	require.Equal(t, []string{"CREATE d"}, got[1].Statements)

	commented, err := read(fstest.MapFS{"migrations/0001_one.sql": file("-- other words\nCREATE d;")})
	require.NoError(t, err)
	require.Equal(t, got[1].Checksum, commented[0].Checksum, "comments may be mended in a migration that was released")

	for name, files := range map[string]fstest.MapFS{
		"a gap":        {"migrations/0002_two.sql": file("CREATE a")},
		"twice":        {"migrations/0001_a.sql": file("CREATE a"), "migrations/0001_b.sql": file("CREATE a")},
		"no name":      {"migrations/0001.sql": file("CREATE a")},
		"no number":    {"migrations/one_a.sql": file("CREATE a")},
		"short":        {"migrations/1_a.sql": file("CREATE a")},
		"no statement": {"migrations/0001_a.sql": file("-- nothing;\n")},
	} {
		_, err := read(files)
		require.Error(t, err, name)
	}
}
