package statement

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParse(t *testing.T) {
	insert := func(head, format, data string) Statement {
		return Statement{Keyword: "INSERT", Insert: true, Head: head, Format: format, Data: data}
	}
	other := func(keyword, q, format string) Statement {
		return Statement{Keyword: keyword, Head: q, Format: format}
	}
	for _, c := range []struct {
		q    string
		want Statement
	}{
		{"INSERT INTO t FORMAT Native", insert("INSERT INTO t", "Native", "")},
		{"insert into `a b`.t (x, `values`) format JSONEachRow\n{\"a\":1}", insert("insert into `a b`.t (x, `values`)", "JSONEachRow", `{"a":1}`)},
		{"INSERT INTO t (a) VALUES (1), (2);", insert("INSERT INTO t (a)", "Values", " (1), (2);")},
		{"INSERT INTO t", insert("INSERT INTO t", "", "")},
		{"INSERT INTO t SETTINGS async_insert=0 FORMAT TSV\r\n1\t2", insert("INSERT INTO t SETTINGS async_insert=0", "TSV", "1\t2")},
		{"INSERT INTO t FORMAT TSV;\n", insert("INSERT INTO t", "TSV", "")},
		// Data need not be anything the lexer understands.
		{"INSERT INTO t FORMAT CSV 1,'it\n", insert("INSERT INTO t", "CSV", "1,'it\n")},
		{"INSERT INTO FUNCTION file('x; SELECT', CSV, 'a String') VALUES ('b')", insert("INSERT INTO FUNCTION file('x; SELECT', CSV, 'a String')", "Values", " ('b')")},
		{"/* INSERT */ INSERT INTO t -- FORMAT TSV\nVALUES (1)", insert("/* INSERT */ INSERT INTO t -- FORMAT TSV", "Values", " (1)")},
		{"INSERT INTO t SELECT * FROM u", other("INSERT", "INSERT INTO t SELECT * FROM u", "")},
		{"INSERT INTO t FROM INFILE 'x' FORMAT CSV", other("INSERT", "INSERT INTO t FROM INFILE 'x' FORMAT CSV", "CSV")},
		{"SELECT 1 FORMAT JSON", other("SELECT", "SELECT 1 FORMAT JSON", "JSON")},
		{"SELECT 1 FORMAT JSON SETTINGS a = 1, b = 'x';", other("SELECT", "SELECT 1 FORMAT JSON SETTINGS a = 1, b = 'x';", "JSON")},
		{"SELECT format FROM t", other("SELECT", "SELECT format FROM t", "")},
		{"SELECT 1 AS format, 2 AS x", other("SELECT", "SELECT 1 AS format, 2 AS x", "")},
		{"SELECT * FROM format(TSV, 'x')", other("SELECT", "SELECT * FROM format(TSV, 'x')", "")},
		{"SELECT 'FORMAT JSON'", other("SELECT", "SELECT 'FORMAT JSON'", "")},
		{"SELECT $x$ it's; $x$", other("SELECT", "SELECT $x$ it's; $x$", "")},
		{"(SELECT 1) UNION ALL (SELECT 2)", other("(", "(SELECT 1) UNION ALL (SELECT 2)", "")},
		{"with 1 as x select x", other("WITH", "with 1 as x select x", "")},
		{"", Statement{}},
		{"-- nothing", Statement{Head: "-- nothing"}},
	} {
		got, err := Parse(c.q)
		require.NoError(t, err, c.q)
		require.Equal(t, c.want, got, c.q)
	}
	for _, q := range []string{"SELECT 1; SELECT 2", "CREATE TABLE t (a UInt8) ENGINE = Memory;;"} {
		_, err := Parse(q)
		require.ErrorIs(t, err, ErrMany, q)
	}
}

func TestIDColumn(t *testing.T) {
	const c IDColumn = "X"
	sub := "(SELECT * REPLACE (X AS query_id, X AS initial_query_id) FROM system.processes)"
	for q, want := range map[string]string{
		"KILL QUERY WHERE query_id = 'query_id' SYNC":        "KILL QUERY WHERE (X) = 'query_id' SYNC",
		"kill query where `query_id`='a' OR query_id='b'":    "kill query where (X)='a' OR (X)='b'",
		"KILL MUTATION WHERE query_id = 'a'":                 "KILL MUTATION WHERE query_id = 'a'",
		"SELECT query_id FROM system.processes":              "SELECT query_id FROM " + sub,
		"SELECT 1 FROM System . Processes AS p, t":           "SELECT 1 FROM System . Processes AS p, t",
		"SELECT 1 FROM system.processes AS p":                "SELECT 1 FROM " + sub + " AS p",
		"DESCRIBE TABLE system.processes":                    "DESCRIBE TABLE system.processes",
		"SELECT 'system.processes', x FROM db.processes":     "SELECT 'system.processes', x FROM db.processes",
		"SELECT count() FROM system.processes_all WHERE 'k'": "SELECT count() FROM system.processes_all WHERE 'k'",
	} {
		require.Equal(t, want, c.Answer(q), q)
	}
}

// Whatever the text, parsing ends, loses none of it and finds data only at its
// end.
func FuzzParse(f *testing.F) {
	for _, q := range []string{
		"INSERT INTO t (a) VALUES (1)", "SELECT 1 FORMAT JSON;", "INSERT INTO t FORMAT X\n'", "SELECT $a$x$a$",
		"/*", "--", "'\\", "`", "$", "$$", "KILL QUERY WHERE query_id=1", "system.processes", "(((", ")))", "\x00",
	} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, q string) {
		st, err := Parse(q)
		if err != nil {
			require.ErrorIs(t, err, ErrMany)
			return
		}
		require.Contains(t, q, st.Head)
		require.True(t, strings.HasSuffix(q, st.Data))
		if !st.Insert {
			require.Equal(t, q, st.Head)
			require.Empty(t, st.Data)
		}
		IDColumn("X").Answer(q)
	})
}
