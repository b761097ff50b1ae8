package migrate

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/stretchr/testify/require"

	"sluice/deploy/local/enginetest"
)

// database is one database of a test's engine. Its methods fail the test.
type database struct {
	t              *testing.T
	name, url, dsn string
	conn           driver.Conn
}

// in makes a handle on a database, which need not exist yet.
func in(t *testing.T, e *enginetest.Engine, name string) *database {
	t.Helper()
	d := &database{t: t, name: name, url: e.URL, dsn: e.URL + "/" + name}
	var err error
	d.conn, err = clickhouse.Open(d.options())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.conn.Close()) })
	return d
}

// migrated is a database with the whole schema, in an engine of its own.
func migrated(t *testing.T) *database {
	t.Helper()
	d := in(t, enginetest.Start(t), "sluice")
	d.up()
	return d
}

// of is the same database for a subtest, which then fails in d's place.
func (d *database) of(t *testing.T) *database {
	sub := *d
	sub.t = t
	return &sub
}

func (d *database) options() *clickhouse.Options {
	d.t.Helper()
	opts, err := clickhouse.ParseDSN(d.dsn)
	require.NoError(d.t, err)
	return opts
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

// with are settings for one query.
type with map[string]string

// lines is a query's answer in ClickHouse's TabSeparated form: a line a row.
func (d *database) lines(query string, settings ...with) []string {
	d.t.Helper()
	lines, err := d.ask(query, settings...)
	require.NoError(d.t, err, query)
	return lines
}

// ask goes round the driver: what a test compares is what the server writes.
func (d *database) ask(query string, settings ...with) ([]string, error) {
	d.t.Helper()
	params := url.Values{"database": {d.name}}
	for _, s := range settings {
		for name, value := range s {
			params.Set(name, value)
		}
	}
	req, err := http.NewRequestWithContext(d.t.Context(), http.MethodPost, d.url+"/?"+params.Encode(), strings.NewReader(query))
	require.NoError(d.t, err)
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	require.NoError(d.t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(d.t, err)
	text := strings.TrimSuffix(string(body), "\n")
	if res.StatusCode != http.StatusOK {
		return nil, errors.New(text)
	}
	if text == "" {
		return nil, nil
	}
	return strings.Split(text, "\n"), nil
}

// objects is the schema as the server has it: statements by name.
func (d *database) objects() map[string]string {
	d.t.Helper()
	rows, err := d.conn.Query(d.t.Context(), "SELECT name, create_table_query FROM system.tables WHERE database = currentDatabase()")
	require.NoError(d.t, err)
	defer rows.Close() //nolint:errcheck // Err tells
	out := map[string]string{}
	for rows.Next() {
		var name, query string
		require.NoError(d.t, rows.Scan(&name, &query))
		out[name] = query
	}
	require.NoError(d.t, rows.Err())
	return out
}

// without replaces a database's name in a statement by another.
func without(statement, name, other string) string {
	return regexp.MustCompile(`\b`+name+`\.`).ReplaceAllString(statement, other+".")
}
