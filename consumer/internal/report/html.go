package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

//go:embed page.html
var pageText string

// page is a report with what is drawn of it.
type page struct {
	*Report
	EventsChart, RepeatsChart chart
	// Sum is the balance over all partitions; its Difference is without signs,
	// so that two can't make up for each other.
	Sum Line
	// OtherSources and OtherTypes are the events of those not named.
	OtherSources, OtherTypes uint64
	Through                  time.Time
	ThroughKnown             bool
}

// WriteHTML writes the page: one file that needs nothing besides itself, light
// or dark as its reader prefers. Names come from whoever posts events; each is
// shown as the text it is, on one line.
func (r *Report) WriteHTML(w io.Writer) error {
	t, err := template.New("page").Funcs(template.FuncMap{
		"n": grouped, "lasting": lasting, "name": visible, "spark": spark, "percent": percent, "share": share, "bars": bars,
		"utc":  func(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04 UTC") },
		"step": stepName,
	}).Parse(pageText)
	if err != nil {
		return fmt.Errorf("the page's template: %w", err)
	}
	p := page{Report: r, EventsChart: r.eventsChart(), RepeatsChart: r.repeatsChart(), OtherSources: r.Events, OtherTypes: r.Events}
	p.Through, p.ThroughKnown = r.Completeness.Through()
	for _, s := range r.TopSources {
		p.OtherSources -= min(s.Events, p.OtherSources)
	}
	for _, t := range r.TopTypes {
		p.OtherTypes -= min(t.Events, p.OtherTypes)
	}
	for _, l := range r.Balance {
		p.Sum.Records += l.Records
		p.Sum.Rows += l.Rows
		p.Sum.Duplicates += l.Duplicates
		p.Sum.Conflicts += l.Conflicts
		p.Sum.DeadLettered += l.DeadLettered
		p.Sum.Others += l.Others
		p.Sum.Repeats += l.Repeats
		p.Sum.Difference += max(l.Difference, -l.Difference)
	}
	if err := t.Execute(w, p); err != nil {
		return fmt.Errorf("writing the page: %w", err)
	}
	return nil
}

// barred is a count with the length of its bar in percent of the longest.
type barred struct {
	Name   string
	Events uint64
	Length float64
}

// bars makes bars of buckets or named counts.
func bars(of any) []barred {
	var out []barred
	var longest uint64
	add := func(name string, n uint64) {
		out = append(out, barred{Name: name, Events: n})
		longest = max(longest, n)
	}
	switch of := of.(type) {
	case []Bucket:
		for _, b := range of {
			if b.Label != more {
				b.Label = "≤ " + b.Label
			}
			add(b.Label, b.Events)
		}
	case []Named:
		for _, x := range of {
			add(visible(x.Name), x.Events)
		}
	}
	for i := range out {
		out[i].Length = percent(out[i].Events, longest)
	}
	return out
}

// share is a part of a whole for reading: 12 %, 0.3 %, none.
func share(part, whole uint64) string {
	switch p := percent(part, whole); {
	case part == 0:
		return "none"
	case p < 0.01:
		return "< 0.01 %"
	case p < 10:
		return strconv.FormatFloat(p, 'f', -1, 64) + " %"
	default:
		return strconv.FormatFloat(p, 'f', 0, 64) + " %"
	}
}

func stepName(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d == time.Minute:
		return "minute"
	case d == time.Hour:
		return "hour"
	case d == day:
		return "day"
	case d < time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + " minutes"
	case d < day:
		return strconv.Itoa(int(d/time.Hour)) + " hours"
	case d == 7*day:
		return "week"
	}
	return strconv.Itoa(int(d/(7*day))) + " weeks"
}

// visible shows what can't be seen, or would change how what follows is shown:
// control characters, marks of direction, spaces of no width, bytes that are not
// UTF-8.
func visible(name string) string {
	var b strings.Builder
	for i, c := range name {
		switch {
		case c == utf8.RuneError && !strings.HasPrefix(name[i:], "\uFFFD"):
			fmt.Fprintf(&b, "\\x%02X", name[i])
		case c != ' ' && unicode.IsSpace(c), unicode.IsControl(c), unicode.Is(unicode.Bidi_Control, c), c == '\u200B' || c == '\u2060' || c == '\uFEFF':
			fmt.Fprintf(&b, "\\u{%04X}", c)
		default:
			b.WriteRune(c)
		}
	}
	if strings.TrimSpace(b.String()) == "" {
		return strconv.Quote(b.String())
	}
	return b.String()
}
