package doctor

import (
	"errors"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	schema "sluice/schemas/clickhouse"
)

var errHidden = errors.New("code 497: not enough privileges")

// What neither the embedded engine nor kfake can be made to do.
func TestJudge(t *testing.T) {
	cluster := setup()
	cluster.Durability = Cluster
	id := uuid.New()
	// writers: a group writes a topic, and these have members.
	writers := func(topicID uuid.UUID, writer string, active ...string) func(*Facts) {
		return func(f *Facts) {
			f.Kafka.Topics["events"] = Known[Topic]{Value: Topic{ID: id, Partitions: 3, Replicas: 1}}
			f.ClickHouse.Groups.Value = []Writer{{topicID.String(), writer}}
			f.Kafka.Groups.Value = active
		}
	}
	topicOf := func(id uuid.UUID, partitions int32, replicas int) func(*Facts) {
		return func(f *Facts) { f.Kafka.Topics["events"] = Known[Topic]{Value: Topic{id, partitions, replicas}} }
	}
	broker := func(name, value string) func(*Facts) {
		return func(f *Facts) {
			f.Kafka.Brokers = map[int32]Known[map[string]string]{
				1: {Err: errHidden}, 2: {Value: map[string]string{name: value}},
			}
		}
	}
	settings := func(values map[string]string) func(*Facts) {
		return func(f *Facts) {
			f.ClickHouse.Settings = Known[map[string]string]{Value: values}
			f.ClickHouse.Tables = Known[map[string]Table]{Value: map[string]Table{}}
		}
	}
	replica := func(engine string, table map[string]string, args ...string) func(*Facts) {
		return func(f *Facts) {
			want := Definition{Engine: "ReplacingMergeTree", EngineArgs: []string{"version"}}
			got := Table{Definition: Definition{Engine: engine, EngineArgs: args, Settings: table}}
			f.ClickHouse.Expected = map[string]Definition{schema.EventLog: want, schema.Journal: want}
			f.ClickHouse.Tables = Known[map[string]Table]{Value: map[string]Table{schema.EventLog: got, schema.Journal: got}}
			f.ClickHouse.Replicated = Known[map[string]string]{Value: map[string]string{"replicated_deduplication_window": "10000"}}
			f.ClickHouse.MergeTree = Known[map[string]string]{Err: errHidden}
		}
	}
	for _, c := range []struct {
		name   string
		setup  Setup
		change func(*Facts)
		check  string
		want   Severity // "": nothing is found
		mend   string   // is part of what is printed
	}{
		{"the version tested", setup(), func(f *Facts) { f.ClickHouse.Version = Known[string]{Value: "26.7.3.1"} }, "clickhouse.version", "", ""},
		{"a newer version", setup(), func(f *Facts) { f.ClickHouse.Version = Known[string]{Value: "26.10.1.1"} }, "clickhouse.version", Warn, ""},
		{"an older version", setup(), func(f *Facts) { f.ClickHouse.Version = Known[string]{Value: "25.12.1.1"} }, "clickhouse.version", Warn, ""},
		{"a version too old", setup(), func(f *Facts) { f.ClickHouse.Version = Known[string]{Value: "25.3.2.1"} }, "clickhouse.version", Refuse, "26.7"},
		{"no version", setup(), func(*Facts) {}, "clickhouse.version", Unknown, ""},

		{"a profile forbids our settings", setup(), func(f *Facts) {
			f.ClickHouse.InsertsRefused = "Setting async_insert shouldn't be less than 1"
			f.ClickHouse.User = Known[string]{Value: "sluice"}
		}, "clickhouse.insert_settings", Refuse, "ALTER USER sluice SETTINGS async_insert = 0 WRITABLE"},
		{"a profile changes our settings", setup(), func(f *Facts) {
			f.ClickHouse.Inserts = Known[map[string]string]{Value: map[string]string{"async_insert": "1"}}
		}, "clickhouse.insert_settings", Refuse, "async_insert=0"},
		{"our settings arrive", setup(), func(f *Facts) { f.ClickHouse.Inserts = Known[map[string]string]{Value: insertWants()} }, "clickhouse.insert_settings", "", ""},

		{"no row policies", setup(), func(f *Facts) { f.ClickHouse.Policies = Known[[]Policy]{} }, "clickhouse.row_policies", "", ""},
		{"a row policy", setup(), func(f *Facts) {
			f.ClickHouse.Policies = Known[[]Policy]{Value: []Policy{{"mine ON sluice.event_log", "source = 'a'"}}}
		}, "clickhouse.row_policies", Refuse, "DROP ROW POLICY mine ON sluice.event_log;"},
		{"a broken part", setup(), func(f *Facts) {
			f.ClickHouse.Detached = Known[[]Detached]{Value: []Detached{{"event_log", "broken-on-start_x", "broken-on-start"}}}
		}, "clickhouse.detached_parts", Warn, "DROP DETACHED PART"},
		{"a disk nearly full", setup(), func(f *Facts) {
			f.ClickHouse.Disks = Known[[]Disk]{Value: []Disk{{Name: "a", Free: 90 << 30, Total: 100 << 30}, {Name: "b", Path: "/b/", Free: 3 << 30, Total: 100 << 30}}}
		}, "clickhouse.disks", Warn, "/b/"},
		{"a broken disk", setup(), func(f *Facts) {
			f.ClickHouse.Disks = Known[[]Disk]{Value: []Disk{{Name: "a", Path: "/a/", Free: 90 << 30, Total: 100 << 30, Broken: true}}}
		}, "clickhouse.disks", Warn, "/a/"},
		{"a disk with room", setup(), func(f *Facts) {
			f.ClickHouse.Disks = Known[[]Disk]{Value: []Disk{{Name: "a", Free: 9 << 30, Total: 100 << 30}}}
		}, "clickhouse.disks", "", ""},
		{"a replica without its Keeper", setup(), func(f *Facts) { f.ClickHouse.ReadOnly = Known[[]string]{Value: []string{"event_log"}} },
			"clickhouse.read_only", Warn, "SYSTEM RESTART REPLICA event_log;"},

		{"a replicated table", cluster, replica("ReplicatedReplacingMergeTree", nil, "'/path'", "'{replica}'", "version"), "clickhouse.event_log.engine", "", ""},
		{"a replicated table is a cluster's", cluster, replica("ReplicatedReplacingMergeTree", nil, "'/path'", "'{replica}'", "version"), "clickhouse.event_log.replicated", "", ""},
		{"a shared table is a cluster's", cluster, replica("SharedReplacingMergeTree", nil, "'/path'", "'{replica}'", "version"), "clickhouse.journal.replicated", "", ""},
		{"a replicated table without version", cluster, replica("ReplicatedReplacingMergeTree", nil, "'/path'", "'{replica}'"), "clickhouse.event_log.engine", Refuse, "RENAME TABLE event_log"},
		{"a replicated window is the server's", cluster, replica("ReplicatedReplacingMergeTree", nil, "version"), "clickhouse.event_log.deduplication_window", "", ""},
		{"a replicated window of nothing", cluster, replica("ReplicatedReplacingMergeTree", map[string]string{"replicated_deduplication_window": "0"}, "version"),
			"clickhouse.event_log.deduplication_window", Refuse, "MODIFY SETTING replicated_deduplication_window = "},
		{"the server hides its defaults", setup(), replica("ReplacingMergeTree", nil, "version"), "clickhouse.event_log.deduplication_window", Unknown, ""},

		{"quorum as it should be", cluster, settings(map[string]string{"insert_quorum": "auto", "insert_quorum_parallel": "0", "select_sequential_consistency": "1"}), "clickhouse.quorum", "", ""},
		{"a quorum of one", cluster, settings(map[string]string{"insert_quorum": "1", "insert_quorum_parallel": "0", "select_sequential_consistency": "1"}), "clickhouse.quorum", Refuse, "insert_quorum = 'auto'"},
		{"parallel quorum", cluster, settings(map[string]string{"insert_quorum": "2", "insert_quorum_parallel": "1", "select_sequential_consistency": "1"}), "clickhouse.quorum", Refuse, "insert_quorum_parallel=0"},
		{"in the cloud reads alone are to be asked for", cluster, func(f *Facts) {
			replica("SharedReplacingMergeTree", nil, "version")(f)
			f.ClickHouse.Settings = Known[map[string]string]{Value: map[string]string{"insert_quorum": "0", "insert_quorum_parallel": "1", "select_sequential_consistency": "1"}}
		}, "clickhouse.quorum", "", ""},

		{"a topic without an id", setup(), topicOf(uuid.Nil, 3, 1), "kafka.events.id", Refuse, "2.8"},
		{"three copies", cluster, topicOf(id, 3, 3), "kafka.events.replication", "", ""},
		{"two copies, one broker known", cluster, topicOf(id, 3, 2), "kafka.events.replication", Refuse, "start brokers"},
		{"no room for an intent", setup(), broker("offset.metadata.max.bytes", "100"), "kafka.offset_metadata_max_bytes", Refuse, "server.properties"},
		{"one broker has room, one is silent", setup(), broker("offset.metadata.max.bytes", "4096"), "kafka.offset_metadata_max_bytes", Unknown, ""},
		{"a topic that may not be described", setup(), func(f *Facts) { f.Kafka.Topics["events"] = Known[Topic]{Err: errHidden} }, "kafka.events.exists", Unknown, ""},
		{"a count the journal has", setup(), func(f *Facts) {
			topicOf(id, 3, 1)(f)
			f.ClickHouse.Barriers = Known[[]Commit]{Value: []Commit{{0, id, 3}, {1, uuid.New(), 12}}}
		}, "kafka.partition_count", "", ""},
		{"another group wrote here, and is gone", setup(), writers(id, "old", setup().Group), "one_group", "", ""},
		{"this group writes here", setup(), writers(id, setup().Group, setup().Group, "tool"), "one_group", "", ""},
		{"another group writes here", setup(), writers(id, "old", "old"), "one_group", Refuse, "set group.id to old"},
		{"another group writes another topic", setup(), writers(uuid.New(), "old", "old"), "one_group", "", ""},
		{"groups are hidden", setup(), func(f *Facts) { f.Kafka.Groups.Err = errHidden }, "one_group", Unknown, ""},
		{"partitions added since the journal's barriers", setup(), func(f *Facts) {
			topicOf(id, 6, 1)(f)
			f.ClickHouse.Barriers = Known[[]Commit]{Value: []Commit{{0, id, 3}, {1, id, 3}}}
		}, "kafka.partition_count", Warn, "nothing to mend"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := well().facts
			c.change(&f)
			r := Judge(c.setup, f)
			got := r.result(t, c.check)
			if c.want == "" {
				require.Nil(t, got, "%+v", got)
				return
			}
			require.NotNil(t, got, "nothing is found")
			require.Equal(t, c.want, got.Severity, got.What)
			if c.mend != "" {
				require.Contains(t, mendLine(got.Mend), c.mend)
			}
			require.Equal(t, c.want == Refuse, errors.Is(r.Refused(), ErrRefused))
		})
	}
}

// Every name is given once: people and alerts go by it.
func TestNamesAreUnique(t *testing.T) {
	for _, d := range []Durability{Process, Machine, Cluster} {
		s := setup()
		s.Durability = d
		seen := map[string]bool{}
		for _, x := range Judge(s, well().facts).Results {
			require.False(t, seen[x.Check], x.Check)
			seen[x.Check] = true
		}
	}
}
