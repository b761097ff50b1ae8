package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/message"
)

// table is an answer of ClickHouse: every value as text, its columns' types
// beside their names.
type table struct {
	columns []column
	rows    [][]string
}

type column struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// number tells whether the column holds whole numbers.
func (c column) number() bool {
	t := strings.TrimSuffix(strings.TrimPrefix(c.Type, "Nullable("), ")")
	return strings.HasPrefix(t, "Int") || strings.HasPrefix(t, "UInt")
}

// parse reads an answer in the format JSONCompact. Whole numbers may be quoted
// in it, as a setting of the server wants.
func parse(text []byte) (*table, error) {
	var answer struct {
		Meta []column `json:"meta"`
		Data [][]any  `json:"data"`
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber() // 64 bits are more than a float64 holds
	if err := dec.Decode(&answer); err != nil {
		return nil, fmt.Errorf("ClickHouse's answer is not what JSONCompact looks like: %w", err)
	}
	t := &table{columns: answer.Meta}
	for _, values := range answer.Data {
		if len(values) != len(t.columns) {
			return nil, fmt.Errorf("ClickHouse's answer has a row of %d values in %d columns", len(values), len(t.columns))
		}
		row := make([]string, len(values))
		for i, v := range values {
			if v != nil {
				row[i] = fmt.Sprint(v)
			}
		}
		t.rows = append(t.rows, row)
	}
	return t, nil
}

// only returns the named column's value in the only row.
func (t *table) only(name string) (string, error) {
	if len(t.rows) != 1 {
		return "", fmt.Errorf("ClickHouse's answer has %d rows, want 1", len(t.rows))
	}
	for i, c := range t.columns {
		if c.Name == name {
			return t.rows[0][i], nil
		}
	}
	return "", fmt.Errorf("ClickHouse's answer has no column %s", name)
}

// format aligns the columns: text to the left, whole numbers to the right and
// in groups of three digits.
func (t *table) format(p *message.Printer) string {
	const margin, gap = "   ", "  "
	cells := make([][]string, len(t.rows))
	width := make([]int, len(t.columns))
	for i, c := range t.columns {
		width[i] = utf8.RuneCountInString(c.Name)
	}
	for r, row := range t.rows {
		cells[r] = make([]string, len(row))
		for i, text := range row {
			if n, err := strconv.ParseInt(text, 10, 64); err == nil && t.columns[i].number() {
				text = p.Sprintf("%d", n)
			}
			cells[r][i] = text
			width[i] = max(width[i], utf8.RuneCountInString(text))
		}
	}
	var b strings.Builder
	line := func(text func(i int) string) {
		var l strings.Builder
		for i, c := range t.columns {
			s := text(i)
			fill := strings.Repeat(" ", width[i]-utf8.RuneCountInString(s))
			if c.number() {
				s = fill + s
			} else {
				s += fill
			}
			if i > 0 {
				l.WriteString(gap)
			}
			l.WriteString(s)
		}
		b.WriteString(strings.TrimRight(margin+l.String(), " ") + "\n")
	}
	line(func(i int) string { return t.columns[i].Name })
	line(func(i int) string { return strings.Repeat("─", width[i]) })
	for _, row := range cells {
		line(func(i int) string { return row[i] })
	}
	if len(cells) == 0 {
		b.WriteString(margin + "(nothing)\n")
	}
	return b.String()
}

func indent(text string) string {
	return "   " + strings.ReplaceAll(text, "\n", "\n   ")
}
