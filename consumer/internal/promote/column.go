package promote

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"

	schema "sluice/schemas/clickhouse"
)

// Column is a promoted column.
type Column struct {
	Property
	// Column is its name in event_log, events and events_physical.
	Column string
}

var columnName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)

// NewColumn names a property's column; name "" makes one of the property's own, by
// putting _ where a letter of ASCII or a digit is not.
func NewColumn(p Property, name string) (Column, error) {
	if name == "" {
		name = strings.Map(func(r rune) rune {
			if r < unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r)) {
				return r
			}
			return '_'
		}, p.EventType+"_"+strings.Join(p.Path, "_"))
		if strings.Trim(name, "_") == "" {
			name = ""
		}
	}
	if !columnName.MatchString(name) {
		return Column{}, fmt.Errorf("the column's name %q: want letters of ASCII, digits and _, at most 64, no digit first (--column gives another)", name)
	}
	for _, step := range p.Path {
		if step == "" || strings.ContainsFunc(step, unicode.IsControl) {
			return Column{}, fmt.Errorf("%s: a name that is empty or has control characters can't be a path", strconv.Quote(p.Name()))
		}
	}
	if strings.ContainsFunc(p.EventType, unicode.IsControl) {
		return Column{}, fmt.Errorf("%s: an event type with control characters can't be in a statement", strconv.Quote(p.Name()))
	}
	return Column{p, name}, nil
}

// Type is the column's type. All are nullable: an event of another type has no such
// member, nor may one that came before the schema.
func (c Column) Type() string {
	return map[Kind]string{
		Integer: "Nullable(Int64)", Number: "Nullable(Float64)", Boolean: "Nullable(Bool)",
		String: "Nullable(String)", Enum: "LowCardinality(Nullable(String))", Time: "Nullable(DateTime64(9, 'UTC'))",
	}[c.Kind]
}

// rfc3339 is what a time must look like: the engine's own reading takes "12" for a
// day of this month.
const rfc3339 = `^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})$`

// Expression is the column's value, NULL for what does not fit. It never throws: an
// INSERT must not fail for it.
func (c Column) Expression() string {
	path := "payload"
	for _, step := range c.Path {
		path += ".`" + strings.NewReplacer(`\`, `\\`, "`", "\\`").Replace(step) + "`"
	}
	of := func(kind string) string { return path + ".:" + kind }
	var value string
	switch c.Kind {
	case Integer: // 5.0 is an integer to JSON Schema
		value = "coalesce(" + of("Int64") + ", accurateCastOrNull(" + of("Float64") + ", 'Int64'))"
	case Number:
		value = "coalesce(" + of("Float64") + ", toFloat64(" + of("Int64") + "), toFloat64(" + of("UInt64") + "))"
	case Boolean:
		value = of("Bool")
	case Time:
		value = "if(match(" + of("String") + ", " + literal(rfc3339) + "), parseDateTime64BestEffortOrNull(upper(" + of("String") + "), 9, 'UTC'), NULL)"
	default:
		value = of("String")
	}
	return "if(event_type = " + literal(c.EventType) + ", " + value + ", NULL)"
}

// Comment is the column's comment, which tells it from a stranger.
func (c Column) Comment() string { return schema.PromotedComment + c.Name() }

// Add is the statement that adds the column.
func (c Column) Add() string {
	return fmt.Sprintf("ALTER TABLE %s ADD COLUMN IF NOT EXISTS %s %s MATERIALIZED %s COMMENT %s CODEC(ZSTD(1))",
		schema.EventLog, c.Column, c.Type(), c.Expression(), literal(c.Comment()))
}

// Fill is the statement that writes the column into the parts that lack it, of one
// month or, with "", of all.
func (c Column) Fill(partitionID string) string {
	s := "ALTER TABLE " + schema.EventLog + " MATERIALIZE COLUMN " + c.Column
	if partitionID != "" {
		s += " IN PARTITION ID " + literal(partitionID)
	}
	return s
}

// Migration is the text of a migration file. others are the columns that were
// promoted before.
func (c Column) Migration(others []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "-- %s of the payload as a typed column (%s in the schemas' versions %v).\n", c.Name(), c.Kind, c.Versions)
	b.WriteString("-- Parts without it are read by the same expression, and get it in the background.\n")
	statements := append([]string{c.Add()}, schema.EventsViews(append(others[:len(others):len(others)], c.Column))...)
	for _, s := range append(statements, c.Fill("")) {
		b.WriteString(s + ";\n\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func literal(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text) + "'"
}
