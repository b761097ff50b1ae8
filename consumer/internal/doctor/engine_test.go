package doctor

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/stretchr/testify/require"

	"sluice/consumer/internal/migrate"
	"sluice/deploy/local/enginetest"
)

func open(t *testing.T, dsn string) driver.Conn {
	t.Helper()
	opts, err := clickhouse.ParseDSN(dsn)
	require.NoError(t, err)
	conn, err := clickhouse.Open(opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return conn
}

// examine judges the server alone, for a topic of 4 partitions.
func examine(t *testing.T, conn driver.Conn, s Setup) Report {
	t.Helper()
	f := Facts{ClickHouse: GatherClickHouse(t.Context(), conn), Kafka: Kafka{Away: errNotAsked}}
	require.NoError(t, f.ClickHouse.Away)
	f.Kafka.Topics = map[string]Known[Topic]{s.Topic: {Value: Topic{Partitions: 4}}}
	return Judge(s, f)
}

// Each fault is made on the real engine, found, mended by the very statements
// that the finding prints, and found gone.
func TestFaultsOfClickHouse(t *testing.T) {
	e := enginetest.Start(t)
	dsn := e.URL + "/sluice"
	require.NoError(t, migrate.Up(t.Context(), dsn, func(string) {}))
	conn := open(t, dsn)
	exec := func(t *testing.T, statement string) {
		t.Helper()
		require.NoError(t, conn.Exec(t.Context(), statement), statement)
	}

	healthy := examine(t, conn, setup())
	for _, x := range healthy.Results {
		if x.Finding != nil {
			// What the embedded engine cannot tell, and nothing else.
			require.Equal(t, Unknown, x.Severity, "%s: %+v", x.Check, x.Finding)
			require.Contains(t, []string{"clickhouse.row_policies", "clickhouse.access"}, x.Check)
			require.Contains(t, x.What, "cannot be checked here")
		}
	}
	require.NoError(t, healthy.Refused())

	machine := setup()
	machine.Durability = Machine
	cluster := setup()
	cluster.Durability = Cluster
	for _, fault := range []struct {
		check    string
		severity Severity
		setup    Setup
		make     []string
	}{
		{"clickhouse.event_log.deduplication_window", Refuse, setup(), []string{"ALTER TABLE event_log MODIFY SETTING non_replicated_deduplication_window = 0"}},
		{"clickhouse.event_log.deduplication_window", Refuse, setup(), []string{"ALTER TABLE event_log RESET SETTING non_replicated_deduplication_window"}},
		{"clickhouse.event_log.deduplication_window", Warn, setup(), []string{"ALTER TABLE event_log MODIFY SETTING non_replicated_deduplication_window = 300"}},
		{"clickhouse.event_log.deduplicate_merge_projection_mode", Refuse, setup(), []string{"ALTER TABLE event_log MODIFY SETTING deduplicate_merge_projection_mode = 'ignore'"}},
		{"clickhouse.event_log.deduplicate_merge_projection_mode", Warn, setup(), []string{"ALTER TABLE event_log MODIFY SETTING deduplicate_merge_projection_mode = 'drop'"}},
		{"clickhouse.event_log.deduplicate_merge_projection_mode", Warn, setup(), []string{"ALTER TABLE event_log RESET SETTING deduplicate_merge_projection_mode"}},
		{"clickhouse.event_log.lightweight_mutation_projection_mode", Warn, setup(), []string{"ALTER TABLE event_log MODIFY SETTING lightweight_mutation_projection_mode = 'throw'"}},
		{"clickhouse.event_log.projection.by_minute", Warn, setup(), []string{"ALTER TABLE event_log DROP PROJECTION by_minute"}},
		{"clickhouse.event_log.projection.by_origin", Warn, setup(), []string{
			"ALTER TABLE event_log DROP PROJECTION by_origin", "ALTER TABLE event_log ADD PROJECTION by_origin (SELECT _part_offset ORDER BY offset)"}},
		{"clickhouse.event_log.ttl", Refuse, setup(), []string{"ALTER TABLE event_log MODIFY TTL toDateTime(occurred_at) + INTERVAL 1 DAY"}},
		{"clickhouse.journal.ttl", Refuse, setup(), []string{"ALTER TABLE journal MODIFY COLUMN detail TTL toDateTime(journaled_at) + INTERVAL 1 DAY"}},
		{"clickhouse.event_log.materialized_views", Warn, setup(), []string{
			"CREATE TABLE IF NOT EXISTS target (n UInt64) ENGINE = MergeTree ORDER BY n", "CREATE MATERIALIZED VIEW counted TO target AS SELECT count() AS n FROM event_log"}},
		{"clickhouse.journal.table_readonly", Warn, setup(), []string{"ALTER TABLE journal MODIFY SETTING table_readonly = 1"}},
		{"clickhouse.journal.columns", Refuse, setup(), []string{"ALTER TABLE journal DROP COLUMN forwarded_to"}},
		{"clickhouse.journal.columns", Refuse, setup(), []string{"ALTER TABLE journal MODIFY COLUMN records UInt32"}},
		{"clickhouse.event_log.columns", Refuse, setup(), []string{"ALTER TABLE event_log MODIFY COLUMN client_event_id LowCardinality(String)"}},
		{"clickhouse.event_log.columns", Warn, setup(), []string{"ALTER TABLE event_log ADD COLUMN extra String"}},
		{"clickhouse.event_log.columns", Warn, setup(), []string{"ALTER TABLE event_log MODIFY COLUMN inserted_at DateTime64(3, 'UTC') DEFAULT now64(3) + 1"}},
		{"clickhouse.journal.exists", Refuse, setup(), []string{"DROP TABLE journal"}},
		{"clickhouse.journal.engine", Refuse, setup(), []string{"DROP TABLE journal", likeJournal("MergeTree", "(topic_id, partition, entry, offset)", "")}},
		{"clickhouse.journal.sorting_key", Refuse, setup(), []string{"DROP TABLE IF EXISTS journal_before", "DROP TABLE journal", likeJournal("ReplacingMergeTree(version)", "(topic_id, partition, entry)", "")}},
		{"clickhouse.journal.partition_key", Refuse, setup(), []string{"DROP TABLE IF EXISTS journal_before", "DROP TABLE journal",
			likeJournal("ReplacingMergeTree(version)", "(topic_id, partition, entry, offset)", "PARTITION BY partition")}},
		{"clickhouse.detached_parts", Warn, setup(), []string{"INSERT INTO journal (offset) VALUES (1)", "ALTER TABLE journal DETACH PARTITION ID 'all'"}},
		{"clickhouse.journal.parts", Warn, setup(), []string{"ALTER TABLE journal MODIFY SETTING parts_to_throw_insert = 4",
			"SYSTEM STOP MERGES journal", "INSERT INTO journal (offset) VALUES (1)", "INSERT INTO journal (offset) VALUES (2)", "INSERT INTO journal (offset) VALUES (3)"}},
		{"clickhouse.event_log.fsync", Refuse, machine, []string{"ALTER TABLE event_log MODIFY SETTING fsync_after_insert = 1, fsync_part_directory = 0"}},
		{"clickhouse.journal.fsync", Refuse, machine, []string{"SELECT 1"}}, // as migrated
		{"clickhouse.event_log.old_parts_lifetime", Refuse, machine, []string{"ALTER TABLE event_log MODIFY SETTING old_parts_lifetime = 1"}},
	} {
		t.Run(fmt.Sprint(fault.check, " ", fault.make[len(fault.make)-1]), func(t *testing.T) {
			for _, statement := range fault.make {
				exec(t, statement)
			}
			r := examine(t, conn, fault.setup)
			f := r.result(t, fault.check)
			require.NotNil(t, f, "not found")
			require.Equal(t, fault.severity, f.Severity, f.What)
			require.NotEmpty(t, f.Breaks)
			if fault.severity == Refuse {
				require.ErrorIs(t, r.Refused(), ErrRefused)
				require.ErrorContains(t, r.Refused(), fault.check)
			}
			mended := 0
			for _, m := range f.Mend {
				if strings.HasSuffix(m, ";") {
					exec(t, m)
					mended++
				}
			}
			require.Positive(t, mended, "no statement mends it: %v", f.Mend)
			require.Nil(t, examine(t, conn, fault.setup).result(t, fault.check))
		})
	}
	t.Run("and all is well again", func(t *testing.T) {
		r := examine(t, conn, setup())
		require.Zero(t, r.Count(Refuse)+r.Count(Warn), "%v", r)
	})

	// What a user's profile would do comes here by the DSN, where the finding
	// says what to put in it.
	for dsnFault, want := range map[string]struct {
		check    string
		severity Severity
		setup    Setup
	}{
		"max_rows_to_read=10000000&read_overflow_mode=break":     {"clickhouse.whole_answers", Refuse, setup()},
		"max_execution_time=600&timeout_overflow_mode=break":     {"clickhouse.whole_answers", Refuse, setup()},
		"max_rows_to_group_by=100000&group_by_overflow_mode=any": {"clickhouse.whole_answers", Refuse, setup()},
		"use_query_cache=1":          {"clickhouse.whole_answers", Refuse, setup()},
		"apply_deleted_mask=0":       {"clickhouse.whole_answers", Refuse, setup()},
		"deduplicate_insert=disable": {"clickhouse.insert_settings", Refuse, setup()},
		"select_sequential_consistency=0&insert_quorum_parallel=1": {"clickhouse.quorum", Refuse, cluster},
	} {
		t.Run(dsnFault, func(t *testing.T) {
			f := examine(t, open(t, dsn+"?"+dsnFault), want.setup).result(t, want.check)
			require.NotNil(t, f, "not found")
			require.Equal(t, want.severity, f.Severity)
			_, mend, ok := strings.Cut(f.Mend[len(f.Mend)-1], "clickhouse.dsn: ?")
			require.True(t, ok, f.Mend)
			mended := dsn + "?" + dsnFault
			for _, setting := range strings.Split(mend, "&") { // takes the place of the fault's
				name, _, _ := strings.Cut(setting, "=")
				var kept []string
				head, query, _ := strings.Cut(mended, "?")
				for _, old := range strings.Split(query, "&") {
					if !strings.HasPrefix(old, name+"=") {
						kept = append(kept, old)
					}
				}
				mended = head + "?" + strings.Join(append(kept, setting), "&")
			}
			require.Nil(t, examine(t, open(t, mended), want.setup).result(t, want.check), mended)
		})
	}
	t.Run("without limits to how they are reached, overflow modes do no harm", func(t *testing.T) {
		require.Nil(t, examine(t, open(t, dsn+"?read_overflow_mode=break"), setup()).result(t, "clickhouse.whole_answers"))
	})
	t.Run("one copy is no cluster", func(t *testing.T) {
		r := examine(t, conn, cluster)
		require.Equal(t, Refuse, r.result(t, "clickhouse.event_log.replicated").Severity)
		require.Equal(t, Refuse, r.result(t, "clickhouse.journal.replicated").Severity)
	})
	t.Run("a schema cut short", func(t *testing.T) {
		exec(t, "TRUNCATE TABLE schema_migrations")
		f := examine(t, conn, setup()).result(t, "clickhouse.schema")
		require.Equal(t, Refuse, f.Severity)
		require.Equal(t, []string{"consumer migrate"}, f.Mend)
		require.NoError(t, migrate.Up(t.Context(), dsn, func(string) {}))
		require.Nil(t, examine(t, conn, setup()).result(t, "clickhouse.schema"))
	})
	t.Run("an engine that is away is not judged", func(t *testing.T) {
		e.Kill()
		c := GatherClickHouse(t.Context(), conn)
		require.Error(t, c.Away)
		r := Judge(setup(), Facts{ClickHouse: c, Kafka: Kafka{Away: errNotAsked}})
		require.Empty(t, r.Results)
		require.Len(t, r.Away, 2)
		e.Restart()
	})
}

// likeJournal is a journal of another shape.
func likeJournal(engine, orderBy, partitionBy string) string {
	return `CREATE TABLE journal (topic_id UUID, partition Int32, entry Enum8('batch' = 1, 'fate' = 2), offset Int64, version UInt64)
		ENGINE = ` + engine + ` ` + partitionBy + ` ORDER BY ` + orderBy + ` SETTINGS non_replicated_deduplication_window = 10000`
}
