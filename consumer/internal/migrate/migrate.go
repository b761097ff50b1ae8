// Package migrate brings ClickHouse's schema to the version that this program
// was built with.
//
// It is a runner of its own rather than a library's, because ClickHouse has no
// transactions: a run may be cut short between any two statements, and two runs
// may overlap. So every statement can be run again, a migration counts as
// applied only once its last statement is done, and the record of what was
// applied is appended to, never changed. Libraries made for transactions
// (goose, golang-migrate) record neither checksums nor refuse a newer schema.
package migrate

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	schema "sluice/schemas/clickhouse"
)

// Errors that [Up] and [Check] return, wrapped with what to do.
var (
	// ErrOutdated: migrations are missing or were cut short.
	ErrOutdated = errors.New("the schema is older than this program")
	// ErrNewer: the schema holds migrations that this program does not know.
	ErrNewer = errors.New("the schema is newer than this program")
	// ErrDrift: a migration was applied with other statements than this
	// program's under the same number.
	ErrDrift = errors.New("the schema was made by other statements than this program's")
)

// Applied is one migration as the database or this program knows it.
type Applied struct {
	Version uint32
	Name    string
	// Done: all of its statements were run. False: none or only some.
	Done bool
	// At is when it was done, the zero time when it was not.
	At time.Time
	// Known: this program has a migration of this version.
	Known bool

	checksums []string
	want      string
}

// Up creates the database that dsn names if it is missing, and applies every
// migration that is not done. Run again it changes nothing; a run that was cut
// short is finished by the next; runs at the same time do no harm. report is
// told what happens, a line for a person at a time.
//
// A schema of a newer program ([ErrNewer]) or of other statements ([ErrDrift])
// is refused before anything is changed.
func Up(ctx context.Context, dsn string, report func(line string)) error {
	return UpOn(ctx, dsn, "", report)
}

// UpOn is [Up] on a cluster, in the form that [schema.Cluster] gives each
// statement; cluster "" is a single server. What it does on a cluster is checked
// by ClickHouse's parser, and has not been run.
func UpOn(ctx context.Context, dsn, cluster string, report func(line string)) error {
	opts, err := clickhouse.ParseDSN(dsn)
	if err != nil {
		return fmt.Errorf("clickhouse.dsn: %w", err)
	}
	if err := createDatabase(ctx, *opts, cluster, report); err != nil {
		return err
	}
	if cluster != "" {
		if opts.Settings == nil {
			opts.Settings = clickhouse.Settings{}
		}
		opts.Settings["distributed_foreground_insert"] = 1 // what was noted is there
	}
	conn, err := clickhouse.Open(opts)
	if err != nil {
		return fmt.Errorf("clickhouse.dsn: %w", err)
	}
	err = up(ctx, conn, cluster, report)
	return errors.Join(err, conn.Close())
}

// createDatabase connects to the database that always exists, since a
// connection to one that does not is refused.
func createDatabase(ctx context.Context, opts clickhouse.Options, cluster string, report func(string)) (err error) {
	name := opts.Auth.Database
	if name == "" || name == "default" {
		return nil
	}
	opts.Auth.Database = "default"
	conn, err := clickhouse.Open(&opts)
	if err != nil {
		return fmt.Errorf("clickhouse.dsn: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	var there uint64
	if err := conn.QueryRow(ctx, "SELECT count() FROM system.databases WHERE name = ?", name).Scan(&there); err != nil {
		return fmt.Errorf("looking for the database %s: %w", name, err)
	}
	if there > 0 {
		return nil
	}
	statement := "CREATE DATABASE IF NOT EXISTS " + quoted(name)
	if cluster != "" {
		statement += " ON CLUSTER " + quoted(cluster)
	}
	if err := conn.Exec(ctx, statement); err != nil {
		return fmt.Errorf("creating the database %s: %w", name, err)
	}
	report("created the database " + name)
	return nil
}

func quoted(name string) string {
	return "`" + strings.NewReplacer(`\`, `\\`, "`", "\\`").Replace(name) + "`"
}

// record is where applied migrations are written down: appended to, twice for
// each migration, and read as a whole, so that repeated lines change nothing.
const record = `CREATE TABLE IF NOT EXISTS ` + schema.SchemaMigrations + ` (
	version UInt32,
	name String,
	checksum String,
	state Enum8('begun' = 1, 'done' = 2),
	at DateTime64(3, 'UTC') DEFAULT now64(3),
	program String
) ENGINE = MergeTree ORDER BY (version, at)`

func up(ctx context.Context, conn driver.Conn, cluster string, report func(string)) error {
	if err := exec(ctx, conn, record, cluster); err != nil {
		return fmt.Errorf("creating %s: %w", schema.SchemaMigrations, err)
	}
	status, err := Status(ctx, conn)
	if err != nil {
		return err
	}
	if err := judge(status); err != nil && !errors.Is(err, ErrOutdated) {
		return err
	}
	migrations, err := schema.Migrations()
	if err != nil {
		return err
	}
	applied := 0
	for i, m := range migrations {
		if status[i].Done {
			continue
		}
		if len(status[i].checksums) > 0 {
			report(fmt.Sprintf("%04d %s: was begun and not finished, beginning again", m.Version, m.Name))
		}
		if err := apply(ctx, conn, m, cluster); err != nil {
			return err
		}
		applied++
		report(fmt.Sprintf("%04d %s: applied", m.Version, m.Name))
	}
	if applied == 0 {
		report(fmt.Sprintf("the schema is at version %d, nothing to do", len(migrations)))
	}
	return nil
}

// exec runs a statement in the form for cluster.
func exec(ctx context.Context, conn driver.Conn, statement, cluster string) error {
	forms := []string{statement}
	if cluster != "" {
		var err error
		if forms, err = schema.Cluster(statement, cluster); err != nil {
			return err
		}
	}
	for _, form := range forms {
		if err := conn.Exec(ctx, form); err != nil {
			return err
		}
	}
	return nil
}

func apply(ctx context.Context, conn driver.Conn, m schema.Migration, cluster string) error {
	if err := note(ctx, conn, m, "begun"); err != nil {
		return err
	}
	for i, statement := range m.Statements {
		if err := exec(ctx, conn, statement, cluster); err != nil {
			return fmt.Errorf("migration %04d %s, statement %d of %d: %w (mend the cause and run \"consumer migrate\" again: it goes on from here)",
				m.Version, m.Name, i+1, len(m.Statements), err)
		}
	}
	return note(ctx, conn, m, "done")
}

func note(ctx context.Context, conn driver.Conn, m schema.Migration, state string) error {
	err := conn.Exec(ctx, "INSERT INTO "+schema.SchemaMigrations+" (version, name, checksum, state, program) SELECT ?, ?, ?, ?, ?",
		m.Version, m.Name, m.Checksum, state, program())
	if err != nil {
		return fmt.Errorf("noting that migration %04d %s is %s: %w", m.Version, m.Name, state, err)
	}
	return nil
}

// program names the build, for whoever wonders who changed the schema.
func program() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return info.Main.Path + " " + s.Value
		}
	}
	return info.Main.Path + " " + info.Main.Version
}

// Status lists the migrations that this program or the database knows, in
// ascending order. A database without any record has none done.
func Status(ctx context.Context, conn driver.Conn) ([]Applied, error) {
	migrations, err := schema.Migrations()
	if err != nil {
		return nil, err
	}
	out := make([]Applied, len(migrations))
	for i, m := range migrations {
		out[i] = Applied{Version: m.Version, Name: m.Name, Known: true, want: m.Checksum}
	}
	var there uint64
	if err := conn.QueryRow(ctx, "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name = ?", schema.SchemaMigrations).Scan(&there); err != nil {
		return nil, fmt.Errorf("looking for %s: %w", schema.SchemaMigrations, err)
	}
	if there == 0 {
		return out, nil
	}
	rows, err := conn.Query(ctx, `
		SELECT version, any(name), countIf(state = 'done') > 0, minIf(at, state = 'done'),
			if(countIf(state = 'done') > 0, groupUniqArrayIf(checksum, state = 'done'), groupUniqArray(checksum))
		FROM `+schema.SchemaMigrations+` GROUP BY version ORDER BY version`)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", schema.SchemaMigrations, err)
	}
	defer rows.Close() //nolint:errcheck // Err below tells
	for rows.Next() {
		var a Applied
		if err := rows.Scan(&a.Version, &a.Name, &a.Done, &a.At, &a.checksums); err != nil {
			return nil, fmt.Errorf("reading %s: %w", schema.SchemaMigrations, err)
		}
		if !a.Done {
			a.At = time.Time{}
		}
		if a.Version >= 1 && int64(a.Version) <= int64(len(migrations)) {
			known := &out[a.Version-1]
			known.Done, known.At, known.checksums = a.Done, a.At, a.checksums
			continue
		}
		out = append(out, a) //nolint:makezero // what this program knows stands first, what it does not follows
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading %s: %w", schema.SchemaMigrations, err)
	}
	return out, nil
}

// Check tells whether the schema is exactly what this program was built for:
// nil, or [ErrOutdated], [ErrNewer] or [ErrDrift] with what to do about it.
func Check(ctx context.Context, conn driver.Conn) error {
	status, err := Status(ctx, conn)
	if err != nil {
		return err
	}
	return judge(status)
}

// judge names the worst that is wrong, what forbids migrating first.
func judge(status []Applied) error {
	known := 0
	for _, a := range status {
		if a.Known {
			known++
		}
	}
	for _, a := range status {
		if !a.Known {
			return fmt.Errorf("%w: it holds migration %04d %s, this program knows %d (start the newer program, or restore a backup made before it)",
				ErrNewer, a.Version, a.Name, known)
		}
	}
	for _, a := range status {
		if !a.Done {
			continue
		}
		for _, sum := range a.checksums {
			if sum != a.want {
				return fmt.Errorf("%w: migration %04d %s was applied with checksum %.12s, this program has %.12s (use the program that applied it, or compare its SHOW CREATE TABLE with schemas/clickhouse/migrations)",
					ErrDrift, a.Version, a.Name, sum, a.want)
			}
		}
	}
	var missing []string
	for _, a := range status {
		if !a.Done {
			missing = append(missing, fmt.Sprintf("%04d %s", a.Version, a.Name))
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: not applied: %s (run \"consumer migrate\")", ErrOutdated, strings.Join(missing, ", "))
	}
	return nil
}
