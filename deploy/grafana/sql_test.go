package grafana_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// shown is what Grafana puts in for its macros and variables.
type shown struct {
	from, to time.Time
	// chosen are the values of each variable; none: all of them.
	chosen map[string][]string
}

// expand does what the data source plugin documents of its macros, and what
// Grafana does for variables in its format "sqlstring".
func (s shown) expand(t *testing.T, sql string) string {
	t.Helper()
	stamp := func(x time.Time) string { return fmt.Sprintf("toDateTime(%d)", x.Unix()) }
	for {
		at := strings.Index(sql, "$__conditionalAll(")
		if at < 0 {
			break
		}
		start := at + len("$__conditionalAll(")
		condition, name, end := arguments(t, sql, start)
		name = strings.TrimPrefix(strings.TrimSpace(name), "$")
		if len(s.chosen[name]) == 0 {
			condition = "1=1"
		}
		sql = sql[:at] + condition + sql[end:]
	}
	sql = regexp.MustCompile(`\$__timeFilter\(([^()]*)\)`).ReplaceAllString(sql, "$1 >= "+stamp(s.from)+" AND $1 <= "+stamp(s.to))
	sql = regexp.MustCompile(`\$__timeInterval\(([^()]*)\)`).ReplaceAllString(sql, "toStartOfInterval(toDateTime($1), INTERVAL 600 second)")
	sql = strings.NewReplacer("$__fromTime", stamp(s.from), "$__toTime", stamp(s.to)).Replace(sql)
	sql = regexp.MustCompile(`\$\{(\w+):sqlstring\}`).ReplaceAllStringFunc(sql, func(v string) string {
		name := strings.TrimSuffix(strings.TrimPrefix(v, "${"), ":sqlstring}")
		quoted := make([]string, len(s.chosen[name]))
		for i, value := range s.chosen[name] {
			quoted[i] = "'" + strings.ReplaceAll(value, "'", "''") + "'"
		}
		return strings.Join(quoted, ",")
	})
	require.NotContains(t, sql, "$", "a macro or variable that the test does not know")
	return sql
}

// arguments are a macro's two, which begin at start; end is behind its bracket.
func arguments(t *testing.T, sql string, start int) (first, second string, end int) {
	t.Helper()
	depth, comma := 0, -1
	for i := start; i < len(sql); i++ {
		switch sql[i] {
		case '(':
			depth++
		case ',':
			if depth == 0 {
				comma = i
			}
		case ')':
			if depth == 0 {
				require.Positive(t, comma, sql)
				return sql[start:comma], sql[comma+1 : i], i + 1
			}
			depth--
		}
	}
	t.Fatalf("an open bracket: %s", sql)
	return "", "", 0
}

// everyQueryAnswers runs each query as Grafana would, over all sources and over
// chosen ones, and wants rows of it.
func everyQueryAnswers(t *testing.T, w *stack) {
	now := time.Now()
	views := map[string]shown{
		"all":    {from: now.Add(-7 * 24 * time.Hour), to: now.Add(time.Hour)},
		"chosen": {from: now.Add(-7 * 24 * time.Hour), to: now.Add(time.Hour), chosen: map[string][]string{"source": {"web", "it's"}, "event_type": {"page_view"}}},
	}
	each(t, "clickhouse", func(where string, _ panel, x target) {
		for name, view := range views {
			sql := view.expand(t, x.RawSQL)
			rows, err := w.query(sql)
			require.NoError(t, err, "%s, %s: %s", where, name, sql)
			require.NotEmpty(t, rows, "%s, %s: no rows: %s", where, name, sql)
			if x.QueryType == "timeseries" {
				_, err := time.Parse(time.DateTime, fmt.Sprint(rows[0]["time"]))
				require.NoError(t, err, "%s: a time series needs a column time, a DateTime", where)
				require.Equal(t, 0, x.Format, where)
			} else {
				require.Equal(t, 1, x.Format, where)
			}
		}
	})
	for name, b := range boards(t) {
		for _, v := range b.Templating.List {
			rows, err := w.query(v.Query)
			require.NoError(t, err, "%s: %s", name, v.Name)
			require.Greater(t, len(rows), 1, "%s: %s", name, v.Name)
		}
	}
	// A column that is gone is noticed.
	_, err := w.query("SELECT no_such_column FROM events")
	require.ErrorContains(t, err, "no_such_column")
}
