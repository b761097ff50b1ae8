package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"sluice/consumer/internal/grants"
	"sluice/consumer/internal/migrate"
	schema "sluice/schemas/clickhouse"
)

// GatherClickHouse asks conn, which must be one of the consumer's own: settings
// are those of its user and its DSN. It returns when all is known or ctx ends.
func GatherClickHouse(ctx context.Context, conn driver.Conn) ClickHouse {
	var c ClickHouse
	if c.Away = gatherClickHouse(ctx, conn, &c); c.Away != nil {
		return ClickHouse{Away: c.Away}
	}
	return c
}

// gatherClickHouse returns an error when the server does not answer, or has no
// time to.
func gatherClickHouse(ctx context.Context, conn driver.Conn, c *ClickHouse) error {
	migrations, err := schema.Migrations()
	if err != nil {
		return err
	}
	var all []string
	for _, m := range migrations {
		all = append(all, m.Statements...)
	}
	if c.Expected, err = definitions(all); err != nil {
		return fmt.Errorf("reading our own migrations: %w", err)
	}
	ctx, err = settings(ctx, conn, c)
	if err != nil {
		return err
	}
	err = migrate.Check(ctx, conn)
	if ours := errors.Is(err, migrate.ErrOutdated) || errors.Is(err, migrate.ErrNewer) || errors.Is(err, migrate.ErrDrift); ours || err == nil {
		c.Schema.Value = err
	} else if c.Schema.Err = refusal(err); c.Schema.Err == nil {
		return err
	}
	var database Known[string]
	steps := []func() error{
		func() error { return one(ctx, conn, &c.Version, "SELECT version()") },
		func() error { return one(ctx, conn, &c.User, "SELECT currentUser()") },
		func() error { return one(ctx, conn, &database, "SELECT currentDatabase()") },
		func() error { return tables(ctx, conn, c) },
		func() error { return inserts(ctx, conn, c) },
		func() error {
			return pairs(ctx, conn, &c.MergeTree, "SELECT name, value FROM system.merge_tree_settings")
		},
		func() error {
			return pairs(ctx, conn, &c.Replicated, "SELECT name, value FROM system.replicated_merge_tree_settings")
		},
		func() error { return rest(ctx, conn, c) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	c.Database = database.Value
	c.Access.Value, err = grants.Missing(ctx, conn, c.Database)
	if errors.Is(err, grants.ErrNoUsers) {
		c.Access.Err = err
		return nil
	}
	if c.Access.Err = refusal(err); c.Access.Err == nil {
		return err
	}
	return nil
}

// refusal is err if it means that this server cannot tell, or not to us, and
// not that it does not answer: for want of a right, or of a table or a column
// that others have.
func refusal(err error) error {
	var ex *clickhouse.Exception
	const unknownFunction, unknownIdentifier, unknownTable, unknownDatabase, unknownEnum, notImplemented, accessDenied = 46, 47, 60, 81, 691, 48, 497
	if !errors.As(err, &ex) || !slices.Contains([]int32{unknownFunction, unknownIdentifier, unknownTable, unknownDatabase, unknownEnum, notImplemented, accessDenied}, ex.Code) {
		return nil
	}
	text, _, _ := strings.Cut(strings.TrimPrefix(ex.Message, "DB::Exception: "), "\n")
	return fmt.Errorf("ClickHouse says (code %d) %.200s", ex.Code, text)
}

// list is the rows of a query, each made by scan. What the server cannot tell
// becomes the fact's Err; any other error is returned.
func list[T any](ctx context.Context, conn driver.Conn, into *Known[[]T], query string, scan func(driver.Rows) (T, error)) error {
	rows, err := conn.Query(ctx, query)
	if err == nil {
		defer rows.Close() //nolint:errcheck // Err below tells
		for rows.Next() {
			var v T
			if v, err = scan(rows); err != nil {
				return fmt.Errorf("%.60s…: %w", query, err)
			}
			into.Value = append(into.Value, v)
		}
		err = rows.Err()
	}
	if err == nil {
		return nil
	}
	if into.Err = refusal(err); into.Err != nil {
		return nil
	}
	return fmt.Errorf("%.60s…: %w", query, err)
}

func one(ctx context.Context, conn driver.Conn, into *Known[string], query string) error {
	var all Known[[]string]
	err := list(ctx, conn, &all, query, func(r driver.Rows) (s string, err error) { return s, r.Scan(&s) })
	if into.Err = all.Err; len(all.Value) > 0 {
		into.Value = all.Value[0]
	}
	return err
}

func pairs(ctx context.Context, conn driver.Conn, into *Known[map[string]string], query string) error {
	var all Known[[][2]string]
	err := list(ctx, conn, &all, query, func(r driver.Rows) (p [2]string, err error) { return p, r.Scan(&p[0], &p[1]) })
	into.Value, into.Err = map[string]string{}, all.Err
	for _, p := range all.Value {
		into.Value[p[0]] = p[1]
	}
	return err
}

// settings asks for those in effect. The query cache refuses to answer from
// system tables: where it is on, that is noted, and the context returned is
// without it.
func settings(ctx context.Context, conn driver.Conn, c *ClickHouse) (context.Context, error) {
	const query = "SELECT name, value FROM system.settings"
	err := pairs(ctx, conn, &c.Settings, query)
	const nondeterministic, systemTable = 704, 719
	if ex := (*clickhouse.Exception)(nil); errors.As(err, &ex) && (ex.Code == nondeterministic || ex.Code == systemTable) {
		ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"use_query_cache": 0}))
		err = pairs(ctx, conn, &c.Settings, query)
		c.Settings.Value["use_query_cache"] = "1"
	}
	return ctx, err
}

func tables(ctx context.Context, conn driver.Conn, c *ClickHouse) error {
	type found struct {
		name, create string
		databases    []string
		readers      []string
	}
	var all Known[[]found]
	err := list(ctx, conn, &all, `
		SELECT name, create_table_query, dependencies_database, dependencies_table FROM system.tables
		WHERE database = currentDatabase() AND name IN ('event_log', 'journal')`,
		func(r driver.Rows) (f found, err error) {
			return f, r.Scan(&f.name, &f.create, &f.databases, &f.readers)
		})
	c.Tables = Known[map[string]Table]{map[string]Table{}, all.Err}
	for _, f := range all.Value {
		var t Table
		_, t.Definition, t.Unreadable = parseCreate(f.create)
		for i := range f.readers {
			t.Readers = append(t.Readers, f.databases[i]+"."+f.readers[i])
		}
		c.Tables.Value[f.name] = t
	}
	return err
}

// inserts asks for the settings in effect under those of an INSERT of ours.
func inserts(ctx context.Context, conn driver.Conn, c *ClickHouse) error {
	with := clickhouse.Settings{"use_query_cache": 0}
	for k, v := range insertWants() {
		with[k] = v
	}
	err := pairs(clickhouse.Context(ctx, clickhouse.WithSettings(with)), conn, &c.Inserts, "SELECT name, value FROM system.settings")
	const readOnlySetting, constraint = 164, 452
	if ex := (*clickhouse.Exception)(nil); errors.As(err, &ex) && (ex.Code == readOnlySetting || ex.Code == constraint) {
		c.InsertsRefused = fmt.Sprintf("code %d, %.200s", ex.Code, ex.Message)
		c.Inserts.Err = errors.New(c.InsertsRefused)
		return nil
	}
	return err
}

// rest asks for what only operations need.
func rest(ctx context.Context, conn driver.Conn, c *ClickHouse) error {
	var most Known[[]struct {
		table string
		Parts
	}]
	err := list(ctx, conn, &most, `
		SELECT table, argMax(partition_id, n), max(n) FROM (
			SELECT table, partition_id, count() AS n FROM system.parts
			WHERE active AND database = currentDatabase() AND table IN ('event_log', 'journal') GROUP BY table, partition_id)
		GROUP BY table`,
		func(r driver.Rows) (p struct {
			table string
			Parts
		}, err error) {
			return p, r.Scan(&p.table, &p.PartitionID, &p.Count)
		})
	c.Parts = Known[map[string]Parts]{map[string]Parts{}, most.Err}
	for _, p := range most.Value {
		c.Parts.Value[p.table] = p.Parts
	}
	if err != nil {
		return err
	}
	if err := list(ctx, conn, &c.Policies, `
		SELECT name, ifNull(select_filter, '') FROM system.row_policies
		WHERE database IN (currentDatabase(), '') AND table IN ('event_log', 'journal', '')
			AND (apply_to_all OR has(apply_to_list, currentUser())) AND NOT has(apply_to_except, currentUser())`,
		func(r driver.Rows) (p Policy, err error) { return p, r.Scan(&p.Name, &p.Filter) }); err != nil {
		return err
	}
	if err := list(ctx, conn, &c.Detached, `
		SELECT table, name, ifNull(reason, '') FROM system.detached_parts
		WHERE database = currentDatabase() AND table IN ('event_log', 'journal') ORDER BY table, name LIMIT 1000`,
		func(r driver.Rows) (d Detached, err error) { return d, r.Scan(&d.Table, &d.Part, &d.Reason) }); err != nil {
		return err
	}
	if err := list(ctx, conn, &c.Disks, `
		SELECT name, path, unreserved_space, total_space, toUInt8(is_read_only), toUInt8(is_broken) FROM system.disks`,
		func(r driver.Rows) (d Disk, err error) {
			var readOnly, broken uint8
			err = r.Scan(&d.Name, &d.Path, &d.Free, &d.Total, &readOnly, &broken)
			d.ReadOnly, d.Broken = readOnly == 1, broken == 1
			return d, err
		}); err != nil {
		return err
	}
	if err := list(ctx, conn, &c.Barriers, `
		SELECT partition, topic_id, toInt32(max(offset)) FROM journal WHERE entry = 'barrier' GROUP BY partition, topic_id`,
		func(r driver.Rows) (b Commit, err error) { return b, r.Scan(&b.Partition, &b.TopicID, &b.Partitions) }); err != nil {
		return err
	}
	if err := list(ctx, conn, &c.Groups, "SELECT outcome, detail FROM operations FINAL WHERE kind = 'group'",
		func(r driver.Rows) (w Writer, err error) { return w, r.Scan(&w.TopicID, &w.Group) }); err != nil {
		return err
	}
	return list(ctx, conn, &c.ReadOnly, `
		SELECT table FROM system.replicas WHERE database = currentDatabase() AND table IN ('event_log', 'journal') AND is_readonly`,
		func(r driver.Rows) (s string, err error) { return s, r.Scan(&s) })
}
