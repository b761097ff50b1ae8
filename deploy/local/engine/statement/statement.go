package statement

import (
	"errors"
	"strings"
)

// Statement is what Parse found.
type Statement struct {
	// Keyword is the first word, in upper case; "(" for a bracketed SELECT.
	Keyword string
	// Insert says that this is an INSERT whose data follow it: it ends with
	// FORMAT, with VALUES or with nothing, and has no SELECT.
	Insert bool
	// Head is the statement itself; of an Insert, without FORMAT or VALUES.
	Head string
	// Format is the name after FORMAT, "Values" after VALUES, or empty.
	Format string
	// Data are an Insert's data as far as they stand in the statement's text.
	Data string
}

// ErrMany is Parse's error for more than one statement.
var ErrMany = errors.New("multi-statements are not allowed")

// Parse looks at q, which is one statement, with or without a semicolon at its
// end. It checks no syntax: the engine does.
func Parse(q string) (Statement, error) {
	st := Statement{Head: q}
	var prev token
	insert, settings, ended := false, false, false
	for t := range tokens(q) {
		if ended {
			return st, ErrMany
		}
		switch {
		case st.Keyword == "":
			st.Keyword = strings.ToUpper(t.text)
			insert = t.is("INSERT")
		case t.depth > 0:
		case t.text == ";":
			ended = true
		case prev.is("FORMAT") && t.word:
			if insert {
				st.Format = t.text
				return st.withData(prev.at, t.end()), nil
			}
			st.Format, settings = t.text, false
		case insert && t.is("VALUES"):
			st.Format = "Values"
			return st.withData(t.at, t.end()), nil
		case insert && (t.is("SELECT") || t.is("WITH") || t.is("INFILE") || t.is("WATCH")):
			insert = false
		case t.is("SETTINGS"):
			settings = true
		case !settings:
			st.Format = "" // what came before was a name: the clause stands last
		}
		prev = t
	}
	if insert {
		st.Insert = true
		st.Head = strings.TrimRight(q, "; \t\r\n")
	}
	return st, nil
}

// withData makes st an Insert whose FORMAT or VALUES is q[cut:end].
func (st Statement) withData(cut, end int) Statement {
	q := st.Head
	st.Insert, st.Head = true, strings.TrimSpace(q[:cut])
	data := q[end:]
	if st.Format != "Values" {
		// A line break after the format's name belongs to the statement, and so
		// does a semicolon with nothing after it.
		data = strings.TrimLeft(data, " \t")
		data = strings.TrimPrefix(strings.TrimPrefix(data, "\r"), "\n")
	}
	if strings.Trim(data, "; \t\r\n") == "" {
		data = ""
	}
	st.Data = data
	return st
}

// IDColumn is the expression over system.processes that holds the query id a
// client gave: the engine gives every query an id of its own, so the server
// carries the client's in a setting.
type IDColumn string

// Answer rewrites what q says of query ids so that the engine can answer it:
// in KILL QUERY, query_id becomes the expression; elsewhere the table
// system.processes becomes a subquery whose query_id is the expression.
func (c IDColumn) Answer(q string) string {
	const table = "processes"
	if lower := strings.ToLower(q); !strings.Contains(lower, table) && !strings.Contains(lower, "kill") {
		return q
	}
	var seen []token
	var out strings.Builder
	done := 0
	kill := false
	for t := range tokens(q) {
		seen = append(seen, t)
		n := len(seen)
		switch {
		case n == 2 && seen[0].is("KILL") && t.is("QUERY"):
			kill = true
		case kill && (t.is("query_id") || t.text == "`query_id`"):
			out.WriteString(q[done:t.at] + "(" + string(c) + ")")
			done = t.end()
		case reads(seen[0]) && n >= 3 && t.text == table && seen[n-2].text == "." && seen[n-3].text == "system" && (n < 4 || seen[n-4].text != "."):
			from := seen[n-3].at
			out.WriteString(q[done:from] + "(SELECT * REPLACE (" + string(c) + " AS query_id, " + string(c) + " AS initial_query_id) FROM system.processes)")
			done = t.end()
		}
	}
	out.WriteString(q[done:])
	return out.String()
}

// reads says whether a statement that begins with t may read a subquery in
// place of a table.
func reads(t token) bool {
	return t.text == "(" || t.is("SELECT") || t.is("WITH") || t.is("INSERT") || t.is("EXPLAIN")
}
