package doctor

import (
	"context"
	"fmt"
	"regexp"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"sluice/consumer/internal/intent"
)

// broker is a kfake cluster with the three topics as "topics ensure" makes them.
func broker(t *testing.T) (*kfake.Cluster, *kadm.Client) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(3))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	require.NoError(t, err)
	t.Cleanup(client.Close)
	admin := kadm.NewClient(client)
	for name, configs := range map[string]map[string]string{
		"events":         {"cleanup.policy": "delete", "max.message.bytes": "2097152"},
		"events.dlq":     {"cleanup.policy": "delete", "max.message.bytes": "4194304", "retention.ms": "-1"},
		"events.control": {"cleanup.policy": "compact"},
	} {
		create(t, admin, name, 1, configs)
	}
	return cluster, admin
}

func create(t *testing.T, admin *kadm.Client, name string, replicas int16, configs map[string]string) {
	t.Helper()
	values := map[string]*string{}
	for k, v := range configs {
		values[k] = &v
	}
	_, err := admin.CreateTopic(t.Context(), 3, replicas, values, name)
	require.NoError(t, err)
}

// examineKafka asks with a client of its own: one keeps what it knows of topics
// for up to 5 s.
func examineKafka(t *testing.T, c *kfake.Cluster, s Setup) Report {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
	require.NoError(t, err)
	defer client.Close()
	k := GatherKafka(t.Context(), kadm.NewClient(client), s)
	require.NoError(t, k.Away)
	return Judge(s, Facts{ClickHouse: ClickHouse{Away: errNotAsked}, Kafka: k})
}

var kafkaConfigs = regexp.MustCompile(`^kafka-configs.sh --bootstrap-server localhost:9092 --alter --entity-type topics --entity-name (\S+) --add-config ([a-z.]+)=(\S+)$`)

// run does what a printed command does: kafka-configs.sh needs a JVM, and sends
// this very request.
func run(t *testing.T, admin *kadm.Client, command string) {
	t.Helper()
	parts := kafkaConfigs.FindStringSubmatch(command)
	require.NotNil(t, parts, command)
	set(t, admin, parts[1], parts[2], parts[3])
}

func set(t *testing.T, admin *kadm.Client, topic, name, value string) {
	t.Helper()
	got, err := admin.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: name, Value: &value}}, topic)
	require.NoError(t, err)
	require.NoError(t, got[0].Err)
}

// Each fault is made, found, mended as its finding says, and found gone.
func TestFaultsOfKafka(t *testing.T) {
	c, admin := broker(t)
	machine, cluster := setup(), setup()
	machine.Durability, cluster.Durability = Machine, Cluster

	healthy := examineKafka(t, c, setup())
	for _, x := range healthy.Results {
		if x.Finding != nil { // kfake does not have it; Apache Kafka does
			require.Equal(t, "kafka.offset_metadata_max_bytes", x.Check)
			require.Equal(t, Unknown, x.Severity)
		}
	}
	for _, fault := range []struct {
		check, topic, name, value string
		severity                  Severity
		setup                     Setup
	}{
		{"kafka.events.cleanup_policy", "events", "cleanup.policy", "compact", Refuse, setup()},
		{"kafka.events.cleanup_policy", "events", "cleanup.policy", "delete,compact", Refuse, setup()},
		{"kafka.events.retention_ms", "events", "retention.ms", "3600000", Refuse, setup()},
		{"kafka.events.retention_bytes", "events", "retention.bytes", "1000000", Warn, setup()},
		{"kafka.events.max_message_bytes", "events", "max.message.bytes", "1048588", Warn, setup()},
		{"kafka.events.max_message_bytes", "events", "max.message.bytes", "104857600", Warn, setup()},
		{"kafka.events.timestamp_type", "events", "message.timestamp.type", "LogAppendTime", Warn, setup()},
		{"kafka.events.min_insync_replicas", "events", "min.insync.replicas", "2", Warn, setup()},
		{"kafka.events.dlq.max_message_bytes", "events.dlq", "max.message.bytes", "2097152", Warn, setup()},
		{"kafka.events.dlq.retention_ms", "events.dlq", "retention.ms", "604800000", Warn, setup()},
		{"kafka.events.dlq.cleanup_policy", "events.dlq", "cleanup.policy", "compact", Warn, setup()},
		{"kafka.events.control.cleanup_policy", "events.control", "cleanup.policy", "delete", Warn, setup()},
		{"kafka.events.flush", "events", "flush.messages", "9223372036854775807", Refuse, machine},
		{"kafka.events.unclean_leader_election", "events", "unclean.leader.election.enable", "true", Refuse, cluster},
		{"kafka.events.dlq.unclean_leader_election", "events.dlq", "unclean.leader.election.enable", "true", Refuse, cluster},
		{"kafka.events.dlq.min_insync_replicas", "events.dlq", "min.insync.replicas", "1", Refuse, cluster},
	} {
		t.Run(fmt.Sprint(fault.check, " ", fault.value), func(t *testing.T) {
			if fault.setup.Durability == Cluster { // three copies, so that two can be asked for
				for _, topic := range []string{"events", "events.dlq"} {
					_, err := admin.DeleteTopics(t.Context(), topic)
					require.NoError(t, err)
					create(t, admin, topic, 3, nil)
				}
			}
			set(t, admin, fault.topic, fault.name, fault.value)
			f := examineKafka(t, c, fault.setup).result(t, fault.check)
			require.NotNil(t, f, "not found")
			require.Equal(t, fault.severity, f.Severity, f.What)
			require.NotEmpty(t, f.Breaks)
			for _, command := range f.Mend {
				run(t, admin, command)
			}
			require.Nil(t, examineKafka(t, c, fault.setup).result(t, fault.check))
		})
	}
}

func TestTopicsOfTheWrongShape(t *testing.T) {
	c, admin := broker(t)
	cluster := setup()
	cluster.Durability = Cluster
	f := examineKafka(t, c, cluster).result(t, "kafka.events.replication")
	require.Equal(t, Refuse, f.Severity)
	require.Contains(t, f.Mend[0], `{"topic":"events","partition":2,"replicas":[2,0,1]}`)

	_, err := admin.DeleteTopics(t.Context(), "events.dlq")
	require.NoError(t, err)
	r := examineKafka(t, c, setup())
	f = r.result(t, "kafka.events.dlq.exists")
	require.Equal(t, Refuse, f.Severity)
	require.Equal(t, []string{"consumer topics ensure"}, f.Mend)
	require.ErrorIs(t, r.Refused(), ErrRefused)
}

// What the brokers hide is unknown and stops nothing; that they are away is no
// finding at all.
func TestBrokersThatDoNotTell(t *testing.T) {
	c, admin := broker(t)
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeConfigs}, Err: kerr.ClusterAuthorizationFailed, Count: -1})
	r := examineKafka(t, c, setup())
	require.Equal(t, Unknown, r.result(t, "kafka.events.cleanup_policy").Severity)
	require.Equal(t, Unknown, r.result(t, "kafka.offsets_retention").Severity)
	require.NoError(t, r.Refused())

	c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	require.Error(t, GatherKafka(ctx, admin, setup()).Away)
}

func TestBrokerSettingsAndRecordedCounts(t *testing.T) {
	c, admin := broker(t)
	short := "60"
	_, err := admin.AlterBrokerConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "offsets.retention.minutes", Value: &short}}, 1)
	require.NoError(t, err)
	r := examineKafka(t, c, setup())
	require.Equal(t, Warn, r.result(t, "kafka.offsets_retention").Severity)
	require.Nil(t, r.result(t, "kafka.partition_count"), "no commit: nothing was recorded")

	topics, err := admin.ListTopics(t.Context(), "events")
	require.NoError(t, err)
	id := uuid.UUID(topics["events"].ID)
	commit := func(p int32, metadata string) {
		var o kadm.Offsets
		o.Add(kadm.Offset{Topic: "events", Partition: p, At: 0, LeaderEpoch: -1, Metadata: metadata})
		_, err := admin.CommitOffsets(t.Context(), "sluice", o)
		require.NoError(t, err)
	}
	commit(0, intent.ClosedAt(0, id, 3).Metadata())
	commit(1, "of another tool")
	commit(2, intent.ClosedAt(0, uuid.New(), 12).Metadata()) // of the topic before
	require.Nil(t, examineKafka(t, c, setup()).result(t, "kafka.partition_count"))
	_, err = admin.CreatePartitions(t.Context(), 2, "events")
	require.NoError(t, err)
	f := examineKafka(t, c, setup()).result(t, "kafka.partition_count")
	require.Equal(t, Warn, f.Severity)
	require.Contains(t, f.What, "5 partitions")
}
