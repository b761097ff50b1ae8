package doctor

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Definition is what a CREATE TABLE says, as far as the doctor compares it.
// Expressions and types are kept in a form in which white space and backticks
// make no difference.
type Definition struct {
	Engine      string
	EngineArgs  []string
	PartitionBy string
	OrderBy     string
	TTL         string
	Settings    map[string]string
	Columns     map[string]Column
	Projections map[string]Projection
	// Statements made the table: its CREATE and what altered it.
	Statements []string
}

// Column is one column of a [Definition].
type Column struct {
	Type string
	// Kind is DEFAULT, MATERIALIZED, ALIAS, EPHEMERAL or "".
	Kind, Expression string
	TTL, Comment     string
	// Text is the column's declaration as written, without its name.
	Text string
}

// Projection is a projection's query, in plain form and as written.
type Projection struct{ Query, Text string }

var (
	columnClauses = []string{"NOT NULL", "NULL", "DEFAULT", "MATERIALIZED", "ALIAS", "EPHEMERAL", "CODEC", "STATISTICS", "TTL", "COMMENT", "PRIMARY KEY", "SETTINGS", "FIRST", "AFTER"}
	tableClauses  = []string{"ENGINE", "PARTITION BY", "PRIMARY KEY", "ORDER BY", "SAMPLE BY", "TTL", "SETTINGS", "COMMENT"}
)

// parseCreate reads a CREATE TABLE statement, one of ours or one that a server
// shows as create_table_query.
func parseCreate(statement string) (string, Definition, error) {
	d := Definition{Settings: map[string]string{}, Columns: map[string]Column{}, Projections: map[string]Projection{}, Statements: []string{statement}}
	text := flat(statement)
	head, body, rest, ok := brackets(text)
	if !ok || !hasPrefixFold(text, "CREATE TABLE ") {
		return "", d, fmt.Errorf("not a CREATE TABLE with a list of columns: %.60q", statement)
	}
	name := strings.TrimPrefix(strings.TrimPrefix(head, "CREATE TABLE "), "IF NOT EXISTS ")
	name, _, _ = strings.Cut(name, " ") // UUID, ON CLUSTER
	name = name[strings.LastIndexByte(name, '.')+1:]
	for _, item := range split(body, ',') {
		if err := d.add(item); err != nil {
			return "", d, err
		}
	}
	parts := clauses(rest, tableClauses)
	engine := strings.TrimSpace(strings.TrimPrefix(parts["ENGINE"], "="))
	if before, args, _, ok := brackets(engine); ok {
		d.Engine = strings.TrimSpace(before)
		for _, a := range split(args, ',') {
			d.EngineArgs = append(d.EngineArgs, plain(a))
		}
	} else {
		d.Engine = engine
	}
	d.PartitionBy, d.OrderBy, d.TTL = bare(parts["PARTITION BY"]), bare(parts["ORDER BY"]), parts["TTL"]
	d.set(parts["SETTINGS"])
	return strings.Trim(name, "`"), d, nil
}

// add takes one item of the list between the brackets.
func (d *Definition) add(item string) error {
	word, rest, _ := strings.Cut(item, " ")
	switch strings.ToUpper(word) {
	case "PROJECTION":
		name, query, _, ok := brackets(rest)
		if !ok {
			return fmt.Errorf("projection without a query: %.60q", item)
		}
		d.Projections[bare(name)] = Projection{plain(query), query}
		return nil
	case "INDEX", "CONSTRAINT", "PRIMARY":
		return nil // decides nothing that the doctor looks at
	case "":
		return fmt.Errorf("an empty item in the list of columns")
	}
	c := Column{Text: rest}
	parts := clauses(rest, columnClauses)
	c.Type, c.TTL, c.Comment = typeOf(parts[""]), parts["TTL"], strings.Trim(parts["COMMENT"], "'")
	for _, kind := range []string{"DEFAULT", "MATERIALIZED", "ALIAS", "EPHEMERAL"} {
		if e, ok := parts[kind]; ok {
			c.Kind, c.Expression = kind, plain(e)
		}
	}
	d.Columns[bare(word)] = c
	return nil
}

func (d *Definition) set(list string) {
	for _, s := range split(list, ',') {
		if name, value, ok := strings.Cut(s, "="); ok {
			d.Settings[strings.TrimSpace(name)] = strings.Trim(strings.TrimSpace(value), "'")
		}
	}
}

// alterVerbs begin an action of an ALTER TABLE; what does not begin with one
// continues the action before it (a list of settings).
var alterVerbs = []string{"ADD ", "DROP ", "CLEAR ", "MODIFY ", "RENAME ", "MATERIALIZE ", "COMMENT ", "UPDATE ", "DELETE ", "RESET ", "REMOVE ", "ALTER "}

// alter applies the actions of an ALTER TABLE. An action that it does not know
// is an error, so that a migration in another form is not passed over.
func (d *Definition) alter(actions string) error {
	var list []string
	for _, a := range split(actions, ',') {
		if len(list) > 0 && !slices.ContainsFunc(alterVerbs, func(v string) bool { return hasPrefixFold(a, v) }) {
			list[len(list)-1] += "," + a
			continue
		}
		list = append(list, a)
	}
	for _, a := range list {
		words := strings.Fields(strings.NewReplacer("IF NOT EXISTS ", "", "IF EXISTS ", "").Replace(a))
		if len(words) < 2 {
			return fmt.Errorf("unknown action %.60q", a)
		}
		what := strings.ToUpper(words[0] + " " + words[1])
		rest := strings.Join(words[2:], " ")
		switch what {
		case "ADD COLUMN", "MODIFY COLUMN":
			if len(words) < 4 {
				return fmt.Errorf("unknown action %.60q", a)
			}
			if err := d.add(rest); err != nil {
				return err
			}
		case "DROP COLUMN":
			delete(d.Columns, bare(rest))
		case "ADD PROJECTION":
			if err := d.add("PROJECTION " + rest); err != nil {
				return err
			}
		case "DROP PROJECTION":
			delete(d.Projections, bare(rest))
		case "MODIFY SETTING":
			d.set(rest)
		case "RESET SETTING":
			for _, s := range split(rest, ',') {
				delete(d.Settings, s)
			}
		case "MODIFY TTL":
			d.TTL = rest
		case "REMOVE TTL":
			d.TTL = ""
		default:
			harmless := []string{"MATERIALIZE ", "CLEAR ", "COMMENT ", "UPDATE ", "DELETE ", "ADD INDEX", "DROP INDEX", "ADD CONSTRAINT", "DROP CONSTRAINT", "MODIFY COMMENT"}
			if !slices.ContainsFunc(harmless, func(h string) bool { return hasPrefixFold(a, h) }) {
				return fmt.Errorf("unknown action %.60q", a)
			}
		}
	}
	return nil
}

// definitions are the tables that statements, run in order, leave behind.
func definitions(statements []string) (map[string]Definition, error) {
	out := map[string]Definition{}
	for _, s := range statements {
		text := flat(s)
		switch {
		case hasPrefixFold(text, "CREATE TABLE "):
			name, d, err := parseCreate(s)
			if err != nil {
				return nil, err
			}
			if _, there := out[name]; !there { // IF NOT EXISTS
				out[name] = d
			}
		case hasPrefixFold(text, "ALTER TABLE "):
			name, actions, _ := strings.Cut(text[len("ALTER TABLE "):], " ")
			d, ok := out[bare(name)]
			if !ok {
				return nil, fmt.Errorf("ALTER of the unknown table %s", name)
			}
			if err := d.alter(actions); err != nil {
				return nil, fmt.Errorf("ALTER TABLE %s: %w", name, err)
			}
			d.Statements = append(d.Statements, s)
			out[bare(name)] = d
		case hasPrefixFold(text, "DROP TABLE "):
			words := strings.Fields(text)
			delete(out, bare(words[len(words)-1]))
		}
	}
	return out, nil
}

// typeOf is a type in plain form, the parameters of JSON in one order: servers
// show them in another than they were written in.
func typeOf(s string) string {
	s = plain(s)
	before, inside, after, ok := brackets(s)
	if !ok || before != "JSON" {
		return s
	}
	params := split(inside, ',')
	slices.Sort(params)
	return before + "(" + strings.Join(params, ",") + ")" + after
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
