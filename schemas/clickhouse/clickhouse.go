// Package clickhouse is the contract for what is stored: the names of the
// tables and views, the statements that make them, and the settings that an
// INSERT needs. README.md beside it explains every column to analysts.
//
// The package is pure text: consumer/internal/migrate runs it.
package clickhouse

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// The tables. All else is a view or a projection of them.
const (
	// EventLog holds one physical row per event.
	EventLog = "event_log"
	// Journal holds the fate of every record that is not a row, and which
	// offset ranges are done.
	Journal = "journal"
	// Operations holds what people did.
	Operations = "operations"
	// Tombstones holds what was taken on purpose and must not return.
	Tombstones = "tombstones"
	// Completeness holds what CompleteThrough shows.
	Completeness = "completeness"
	// SchemaMigrations holds which migrations were applied.
	SchemaMigrations = "schema_migrations"
)

// The views.
const (
	Events          = "events"
	EventConflicts  = "event_conflicts"
	Balance         = "balance"
	EventsPerMinute = "events_per_minute"
	EventsPerHour   = "events_per_hour"
	EventsPerDay    = "events_per_day"
	// DailyActives counts a day's actors over all sources, SourceDailyActives
	// those of each source.
	DailyActives       = "events_daily_actives"
	SourceDailyActives = "source_daily_actives"
	// EventsPhysical is Events without FINAL: right while EventsGuard says that
	// no record is stored twice.
	EventsPhysical = "events_physical"
	EventsGuard    = "events_guard"
	// LateEventsPerDay counts events by how late they were received.
	LateEventsPerDay = "late_events_per_day"
	// CompleteThrough tells up to when the data is whole.
	CompleteThrough = "complete_through"
)

// InsertSettings returns the settings that go with every INSERT into
// [EventLog], so that no payload can fail it and payload says what payload_text
// says:
//   - of names that mean the same path, as in {"a":{"b":1},"a.b":2}, the first
//     is kept; without this such a payload fails the INSERT of its batch;
//   - strings that look like dates stay the strings they are;
//   - true beside numbers or strings in an array stays true, where otherwise
//     it would be 1 or "true".
func InsertSettings() map[string]any {
	return map[string]any{
		"type_json_skip_duplicated_paths":         1,
		"input_format_try_infer_dates":            0,
		"input_format_try_infer_datetimes":        0,
		"input_format_json_read_bools_as_numbers": 0,
		"input_format_json_read_bools_as_strings": 0,
	}
}

// ContiguousRanges is a query for the ranges of offsets that the journal covers
// without a gap, in ascending order: columns first and end (Int64, first
// inclusive, end exclusive) and batches (UInt64). Its arguments are a topic id
// and a partition. The end of its first row is the journal's contiguous end;
// every further row is an island beyond a gap. No row: nothing is journaled.
//
// Only batch entries count: whatever has a fate lies in a batch's range.
const ContiguousRanges = `
SELECT min(offset) AS first, max(reach) AS end, count() AS batches
FROM (
	SELECT offset, reach, sum(gap) OVER (ORDER BY offset ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS island
	FROM (
		SELECT offset, last_offset + 1 AS reach,
			offset > max(last_offset + 1) OVER (ORDER BY offset ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS gap
		FROM journal FINAL
		WHERE topic_id = ? AND partition = ? AND entry = 'batch'
	)
)
GROUP BY island
ORDER BY first`

//go:embed migrations/*.sql
var files embed.FS

// Migration is one step of the schema. Its statements may be run again, by
// themselves or all of them, at any time: each is IF NOT EXISTS or OR REPLACE.
type Migration struct {
	// Version counts from 1 without gaps.
	Version uint32
	// Name is the file's, without number and suffix.
	Name string
	// Statements name tables without a database: they are for the
	// connection's own.
	Statements []string
	// Checksum is of the statements without their comments, 64 hexadecimal
	// digits. A migration that was released must never change.
	Checksum string
}

// Migrations returns all migrations in ascending order.
func Migrations() ([]Migration, error) { return read(files) }

func read(from fs.FS) ([]Migration, error) {
	names, err := fs.Glob(from, "migrations/*.sql")
	if err != nil {
		return nil, fmt.Errorf("listing migrations: %w", err)
	}
	out := make([]Migration, 0, len(names))
	for i, name := range names { // Glob sorts them
		number, title, ok := strings.Cut(strings.TrimSuffix(path.Base(name), ".sql"), "_")
		version, err := strconv.ParseUint(number, 10, 32)
		if !ok || err != nil || version != uint64(i+1) || len(number) != 4 {
			return nil, fmt.Errorf("migration %s: want a name like %04d_what_it_does.sql", name, i+1)
		}
		text, err := fs.ReadFile(from, name)
		if err != nil {
			return nil, fmt.Errorf("migration %s: %w", name, err)
		}
		statements := split(string(text))
		if len(statements) == 0 {
			return nil, fmt.Errorf("migration %s holds no statement", name)
		}
		sum := sha256.Sum256([]byte(strings.Join(statements, ";\n")))
		out = append(out, Migration{Version: uint32(version), Name: title, Statements: statements, Checksum: hex.EncodeToString(sum[:])})
	}
	return out, nil
}

// split cuts a file into its statements: each ends with a semicolon at the end
// of a line. Lines that begin with -- are comments and dropped.
func split(text string) []string {
	var statements []string
	var b strings.Builder
	end := func() {
		if s := strings.TrimSpace(b.String()); s != "" {
			statements = append(statements, s)
		}
		b.Reset()
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \t\r\n")
		if strings.HasPrefix(strings.TrimSpace(line), "--") {
			continue
		}
		before, ended := strings.CutSuffix(line, ";")
		b.WriteString(before)
		b.WriteByte('\n')
		if ended {
			end()
		}
	}
	end()
	return statements
}
