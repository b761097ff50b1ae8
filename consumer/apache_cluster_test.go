//go:build apachekafka

package main

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
)

// Replication 3, min.insync.replicas 2, no unclean elections: the figures that
// production stands on.
func TestApacheThreeBrokers(t *testing.T) {
	runApache(t, 3, []apacheCase{
		{"members come and go", false, membersComeAndGo},
		{"a partition's leader killed", true, leaderKilled},
		{"the controller killed", false, controllerKilled},
		{"a leader frozen and awake again", false, leaderFrozen},
		{"rolling restart", false, rollingRestart},
		{"a partition reassigned", false, reassigned},
	})
}

// underLoad runs a consumer and a producer around what is done, and looks at
// what came of it.
func (s *apacheStack) underLoad(do func()) {
	s.t.Helper()
	stopConsumer := s.consuming()
	stop := s.producing()
	s.grows(300)
	do()
	s.grows(300)
	stop()
	s.settled()
	stopConsumer()
}

func (s *apacheStack) restart(node int) {
	s.t.Helper()
	require.NoError(s.t, s.kafka.Start(node))
	s.waitInSync()
}

// leaderKilled kills the leader of partition 0, which may be the group's
// coordinator or the controller too.
func leaderKilled(s *apacheStack) {
	s.underLoad(func() {
		old := s.leader(0)
		require.NoError(s.t, s.kafka.Kill(old))
		s.until("another leader", func() bool { l := s.leader(0); return l >= 0 && l != old })
		s.grows(300) // with two of three
		s.restart(old)
	})
}

func controllerKilled(s *apacheStack) {
	s.underLoad(func() {
		old := s.controller()
		require.NoError(s.t, s.kafka.Kill(old))
		s.until("another controller", func() bool { c := s.controller(); return c >= 0 && c != old })
		s.grows(300)
		s.restart(old)
	})
}

// leaderFrozen stops the leader past its session, so that others take over, and
// lets it go on in the belief that it leads.
func leaderFrozen(s *apacheStack) {
	s.underLoad(func() {
		old := s.leader(0)
		require.NoError(s.t, s.kafka.Pause(old))
		s.until("another leader", func() bool { l := s.leader(0); return l >= 0 && l != old })
		require.NoError(s.t, s.kafka.Resume(old))
		s.waitInSync()
	})
}

func rollingRestart(s *apacheStack) {
	s.underLoad(func() {
		for _, node := range s.kafka.Nodes() {
			require.NoError(s.t, s.kafka.Stop(node))
			s.restart(node)
		}
	})
}

// reassigned moves partition 0 away from its leader, and back with another one
// preferred.
func reassigned(s *apacheStack) {
	s.underLoad(func() {
		old := s.leader(0)
		var others []int32
		for _, node := range s.kafka.Nodes() {
			if node != old {
				others = append(others, int32(node))
			}
		}
		s.reassign(others)
		require.NotEqual(s.t, old, s.leader(0))
		s.grows(300)
		s.reassign(append(others, int32(old)))
	})
}

func (s *apacheStack) reassign(replicas []int32) {
	s.t.Helper()
	var req kadm.AlterPartitionAssignmentsReq
	req.Assign(s.cfg.Kafka.Topic, 0, replicas)
	resp, err := s.admin.AlterPartitionAssignments(s.t.Context(), req)
	require.NoError(s.t, err)
	require.NoError(s.t, resp.Error())
	s.until("the partition is where it was sent", func() bool {
		topics, err := s.admin.ListTopics(s.t.Context(), s.cfg.Kafka.Topic)
		if err != nil {
			return false
		}
		p := topics[s.cfg.Kafka.Topic].Partitions[0]
		return len(p.Replicas) == len(replicas) && len(p.ISR) == len(replicas) && p.Replicas[0] == replicas[0] && p.Leader >= 0
	})
}
