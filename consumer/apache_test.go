//go:build apachekafka

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"sluice/consumer/internal/group"
	"sluice/deploy/local/apache"
)

// The suite on Apache Kafka itself; "make test-kafka" runs it. All cases of a
// size share one cluster, and each has topics and a group of its own. After each
// the log, ClickHouse and what was sent agree, and no row was written twice.

// protocols are the group protocols that a case with every is run in.
var protocols = []group.Protocol{group.Classic, group.Eager, group.Broker}

type apacheCase struct {
	name  string
	every bool // in each group protocol, else in the first alone
	run   func(s *apacheStack)
}

func runApache(t *testing.T, brokers int, cases []apacheCase) {
	kafka := apacheCluster(t, brokers)
	for _, c := range cases {
		for i, p := range protocols {
			if i > 0 && !c.every {
				break
			}
			t.Run(fmt.Sprintf("%s/%s", c.name, p), func(t *testing.T) {
				s := newApacheStack(t, kafka, p)
				c.run(s)
				s.waitInSync()
			})
		}
	}
}

func apacheCluster(t *testing.T, brokers int) *apache.Nodes {
	t.Helper()
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	library, err := apache.Ensure(t.Context(), apache.Dir(root), os.Stderr)
	require.NoError(t, err)
	ports, err := apache.FreePorts(brokers)
	require.NoError(t, err)
	begun := time.Now()
	kafka, err := apache.Run(t.Context(), apache.Config{
		Library: library, Dir: t.TempDir(), Ports: ports, HeapMegabytes: 384, Quick: true,
		Settings: map[string]string{ // a broker's death is noticed sooner than in production
			"broker.session.timeout.ms": "4000", "broker.heartbeat.interval.ms": "500",
			"controller.quorum.fetch.timeout.ms": "2000", "replica.lag.time.max.ms": "5000",
		},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, kafka.Close()) })
	t.Logf("%d brokers after %s", brokers, time.Since(begun).Round(time.Millisecond))
	return kafka
}

// apacheStack is a stack on real brokers.
type apacheStack struct {
	*stack
	kafka *apache.Nodes
	admin *kadm.Client
	sent  tally
}

// stacks tells the topics and groups of cases apart.
var stacks atomic.Int64

func newApacheStack(t *testing.T, kafka *apache.Nodes, p group.Protocol) *apacheStack {
	t.Helper()
	n := stacks.Add(1)
	s := &apacheStack{kafka: kafka, stack: newStackOn(t, kafka.Addresses(), func(c *config) {
		c.Kafka.Topic = fmt.Sprintf("events-%d", n)
		c.Kafka.DeadLetters = fmt.Sprintf("events-%d.dlq", n)
		c.Kafka.Control = fmt.Sprintf("events-%d.control", n)
		c.Group.ID = fmt.Sprintf("sluice-%d", n)
		c.Group.Protocol = p
		c.Topics.Replication = int16(len(kafka.Nodes()))
		c.Log.Level = "warn"
	})}
	s.admin = kadm.NewClient(s.producer)
	s.exec("SYSTEM STOP MERGES event_log") // else a merge would hide a row written twice
	return s
}

// tally is what a test has sent, and what must come of it. It is counted from
// what was sent alone.
type tally struct {
	records, keys, conflicts, garbage int
}

func (c tally) want() report {
	return report{
		OK: true, RollupsEqual: true, Records: c.records, Rows: c.keys,
		Conflicts: c.conflicts, DeadLettered: c.garbage,
		Duplicates: c.records - c.keys - c.conflicts - c.garbage,
	}
}

// next are n more records: a fifth of them repeats, a few conflicts and garbage.
func (c *tally) next(n int) (records []*kgo.Record) {
	for range n {
		c.records++
		switch {
		case c.records%53 == 0:
			c.garbage++
			records = append(records, &kgo.Record{Value: []byte("garbage")})
		case c.records%31 == 0:
			c.conflicts++
			records = append(records, record(c.keys/3, `{"n":2}`))
		case c.records%5 == 0:
			records = append(records, record(c.keys/2, `{"n":1}`))
		default:
			records = append(records, record(c.keys, `{"n":1}`))
			c.keys++
		}
	}
	return records
}

// some produces n records.
func (s *apacheStack) some(n int) { s.t.Helper(); s.produce(s.sent.next(n)...) }

// producing produces, some 1,000 records a second, until the returned function
// is called. Meanwhile s.sent is its own.
func (s *apacheStack) producing() (stop func()) {
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan error, 1)
	go func() {
		for tick := time.NewTicker(20 * time.Millisecond); ; {
			records := s.sent.next(20)
			for _, r := range records {
				r.Topic = s.cfg.Kafka.Topic
			}
			// Not ctx: what was begun is written, or the tally would be wrong.
			if err := s.producer.ProduceSync(s.t.Context(), records...).FirstErr(); err != nil {
				done <- err
				return
			}
			select {
			case <-ctx.Done():
				done <- nil
				return
			case <-tick.C:
			}
		}
	}()
	return func() {
		s.t.Helper()
		cancel()
		require.NoError(s.t, <-done)
	}
}

// settleBound is how long the consumer may take to get over anything done here:
// sessions of 10 s end, partitions find new leaders.
const settleBound = 90 * time.Second

// settled waits until verify finds what was sent and nothing else, checks the
// sheet, and counts the rows that are physically there.
func (s *apacheStack) settled() {
	s.t.Helper()
	want := s.sent.want()
	var got report
	for deadline := time.Now().Add(settleBound); got != want && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		got = s.verified()
	}
	require.Equal(s.t, want, got)
	s.balanced(want)
	s.onceEach(want.Rows)
}

func (s *apacheStack) onceEach(rows int) {
	s.t.Helper()
	require.EqualValues(s.t, rows, s.scalar("SELECT uniqExact(event_id) FROM event_log"))
	require.EqualValues(s.t, rows, s.scalar("SELECT count() FROM event_log"), "a row was written twice")
}

// until polls what must become true.
func (s *apacheStack) until(what string, ok func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(settleBound); !ok(); time.Sleep(100 * time.Millisecond) {
		require.True(s.t, time.Now().Before(deadline), what)
	}
}

// grows waits until n more rows are stored.
func (s *apacheStack) grows(n uint64) {
	s.t.Helper()
	from := s.scalar("SELECT count() FROM event_log")
	s.until("the table grows", func() bool { return s.scalar("SELECT count() FROM event_log") >= from+n })
}

// leader is the node that leads partition p of the events topic; -1: none, or it
// could not be told.
func (s *apacheStack) leader(p int32) int {
	topics, err := s.admin.ListTopics(s.t.Context(), s.cfg.Kafka.Topic)
	if err != nil {
		return -1
	}
	return int(topics[s.cfg.Kafka.Topic].Partitions[p].Leader)
}

// controller is the node that leads the metadata quorum, or -1 as with leader.
// The controller that a broker names to clients is any broker.
func (s *apacheStack) controller() int {
	q := kmsg.NewPtrDescribeQuorumRequest()
	q.Topics = []kmsg.DescribeQuorumRequestTopic{{
		Topic: "__cluster_metadata", Partitions: []kmsg.DescribeQuorumRequestTopicPartition{{Partition: 0}},
	}}
	resp, err := q.RequestWith(s.t.Context(), s.producer)
	if err != nil || len(resp.Topics) == 0 || len(resp.Topics[0].Partitions) == 0 {
		return -1
	}
	return int(resp.Topics[0].Partitions[0].LeaderID)
}

// waitInSync waits until every replica of every partition is in sync, so that
// the next node may go.
func (s *apacheStack) waitInSync() {
	s.t.Helper()
	require.NoError(s.t, s.kafka.Ready(s.t.Context()))
	s.until("all replicas are in sync", func() bool {
		topics, err := s.admin.ListTopicsWithInternal(s.t.Context())
		if err != nil {
			return false
		}
		whole := true
		topics.EachPartition(func(p kadm.PartitionDetail) {
			whole = whole && p.Leader >= 0 && len(p.ISR) == len(p.Replicas)
		})
		return whole
	})
}

// tool runs one of Kafka's own tools.
func (s *apacheStack) tool(class string, args ...string) string {
	s.t.Helper()
	out, err := s.kafka.Tool(s.t.Context(), class, append([]string{"--bootstrap-server", s.kafka.Address(1)}, args...)...)
	require.NoError(s.t, err)
	return out
}

// groups is kafka-consumer-groups.
func (s *apacheStack) groups(args ...string) string {
	s.t.Helper()
	return s.tool("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", append(args, "--group", s.cfg.Group.ID)...)
}
