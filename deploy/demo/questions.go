package main

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/text/message"
)

// questions are asked in this order; the last is the balance.
var questions = [...]struct{ title, sql string }{
	{
		"How many events are there, and from which sources? Each is one row, however often it was posted.",
		`SELECT source, event_type, count() AS events, uniqExact(actor_id) AS people,
       toDate(min(occurred_at)) AS first_day, toDate(max(occurred_at)) AS last_day
FROM sluice.events
GROUP BY source, event_type
ORDER BY events DESC, source, event_type
LIMIT 10`,
	},
	{
		"Which hours were the busiest? The rollup is kept as the events are written.",
		`SELECT hour, source, event_type, events, actors
FROM sluice.events_per_hour
ORDER BY events DESC, hour, source, event_type
LIMIT 5`,
	},
	{
		"Was anything lost or counted twice? Every record of the log has exactly one fate.",
		`SELECT sum(b.records) AS records, sum(b.rows) AS rows, sum(b.duplicates) AS duplicates, sum(b.conflicts) AS conflicts,
       sum(b.dead_lettered + b.forwarded + b.expired + b.erased + b.skipped + b.cut) AS others,
       sum(b.lost) AS lost, sum(abs(b.difference)) AS difference
FROM sluice.balance AS b`,
	},
}

// sentence says in words what the balance's row says. A difference is an error.
func sentence(p *message.Printer, balance *table) (string, error) {
	read := func(name string) (int64, error) {
		text, err := balance.only(name)
		if err != nil {
			return 0, err
		}
		return strconv.ParseInt(text, 10, 64)
	}
	terms := []struct{ column, words string }{
		{"rows", "rows"},
		{"duplicates", "duplicates (the same event again)"},
		{"conflicts", "conflicts (the same event with another payload: kept in sluice.event_conflicts)"},
		{"others", "others (dead letters, forwarded, …)"},
		{"lost", "lost (the log dropped them before they were read)"},
	}
	records, err := read("records")
	if err != nil {
		return "", fmt.Errorf("reading the balance: %w", err)
	}
	var parts []string
	for i, t := range terms {
		n, err := read(t.column)
		if err != nil {
			return "", fmt.Errorf("reading the balance: %w", err)
		}
		if n != 0 || i == 0 {
			parts = append(parts, p.Sprintf("%d ", n)+t.words)
		}
	}
	difference, err := read("difference")
	if err != nil {
		return "", fmt.Errorf("reading the balance: %w", err)
	}
	if difference != 0 {
		return "", fmt.Errorf("the balance does not add up: it is off by %d records; make consumer ARGS=verify says where", difference)
	}
	return p.Sprintf("%d records = ", records) + strings.Join(parts, "\n   + ") + "\nThe difference is 0: every record is accounted for, once.", nil
}
