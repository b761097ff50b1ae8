// Package report makes one page of what ClickHouse holds, for people: figures
// and charts as a single HTML file that fetches nothing and runs no script.
//
// [Gather] asks ClickHouse, [Report.WriteHTML] writes the page. The figures are
// the tables' own, over rows as they are stored; where rows are stored twice and
// not yet merged, the page says so.
package report

import "time"

// Report is what a page shows. Its JSON form is for machines.
type Report struct {
	// Made is when ClickHouse was asked.
	Made time.Time `json:"made"`
	// From (inclusive) and To (exclusive) bound the events by occurred_at,
	// both whole steps in UTC.
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
	// Step is the time of one point.
	Step time.Duration `json:"step_nanoseconds"`

	Events  uint64 `json:"events"`
	Actors  uint64 `json:"actors"`
	Sources uint64 `json:"sources"`
	Types   uint64 `json:"types"`
	// Duplicates and Conflicts are counts of records.
	Duplicates uint64 `json:"duplicates"`
	Conflicts  uint64 `json:"conflicts"`

	// Points are all steps from From to To, empty ones too.
	Points     []Point    `json:"points"`
	TopSources []Source   `json:"top_sources"`
	TopTypes   []Named    `json:"top_types"`
	Freshness  *Freshness `json:"freshness"`
	// Late is how long after they occurred events were received.
	Late         []Bucket     `json:"late"`
	Completeness Completeness `json:"completeness"`
	// Balance covers the whole log, not only From to To.
	Balance []Line `json:"balance"`
}

// Point is one step of time.
type Point struct {
	At         time.Time `json:"at"`
	Events     uint64    `json:"events"`
	Duplicates uint64    `json:"duplicates"`
	Conflicts  uint64    `json:"conflicts"`
}

// Source is one source, with its events in each step.
type Source struct {
	Name       string   `json:"name"`
	Events     uint64   `json:"events"`
	Duplicates uint64   `json:"duplicates"`
	Conflicts  uint64   `json:"conflicts"`
	Points     []uint64 `json:"points"`
}

// Named is a count by name.
type Named struct {
	Name   string `json:"name"`
	Events uint64 `json:"events"`
}

// Freshness is the time from received to inserted, of the range's rows. It is
// nil in a report without rows. A clock that is ahead can make it negative.
type Freshness struct {
	P50     time.Duration `json:"p50_nanoseconds"`
	P90     time.Duration `json:"p90_nanoseconds"`
	P99     time.Duration `json:"p99_nanoseconds"`
	Longest time.Duration `json:"longest_nanoseconds"`
	Buckets []Bucket      `json:"buckets"`
}

// Bucket counts events whose time was at most its label's, and more than that
// of the bucket before.
type Bucket struct {
	Label  string `json:"label"`
	Events uint64 `json:"events"`
}

// Completeness says up to when the data is whole, where that is known.
type Completeness struct {
	// Unknown says in words why it is not known; "" when it is.
	Unknown string     `json:"unknown,omitempty"`
	Sources []Complete `json:"sources"`
}

// Complete is one source's.
type Complete struct {
	Source  string    `json:"source"`
	Through time.Time `json:"complete_through"`
}

// Through is the moment up to which every source is whole; false when unknown.
func (c Completeness) Through() (time.Time, bool) {
	var earliest time.Time
	for i, s := range c.Sources {
		if i == 0 || s.Through.Before(earliest) {
			earliest = s.Through
		}
	}
	return earliest, len(c.Sources) > 0
}

// Line is one partition of the balance sheet. Records are the sum of the rest
// when Difference is 0.
type Line struct {
	Topic        string `json:"topic_id"`
	Partition    int32  `json:"partition"`
	Records      uint64 `json:"records"`
	Rows         uint64 `json:"rows"`
	Duplicates   uint64 `json:"duplicates"`
	Conflicts    uint64 `json:"conflicts"`
	DeadLettered uint64 `json:"dead_lettered"`
	// Others were forwarded, expired, erased, skipped or lost.
	Others     uint64 `json:"others"`
	Difference int64  `json:"difference"`
	// Repeats are rows stored again and not yet merged away: counts of events
	// are too high by so many.
	Repeats uint64 `json:"repeats"`
}
