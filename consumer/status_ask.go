package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"sluice/consumer/internal/intent"
	"sluice/consumer/internal/operations"
	"sluice/consumer/internal/store"
	"sluice/consumer/internal/verify"
	"sluice/schemas/topic"
)

// askKafka fills in the log's bounds, the commits and the group's members.
func (s *status) askKafka(ctx context.Context, t *tools) error {
	id, count, err := t.kafka.Topic(ctx)
	if err != nil {
		return err
	}
	s.TopicID = id
	admin := t.kafka.Admin()
	starts, err := admin.ListStartOffsets(ctx, s.Topic)
	if err != nil {
		return fmt.Errorf("the log's starts: %w", err)
	}
	ends, err := admin.ListCommittedOffsets(ctx, s.Topic)
	if err != nil {
		return fmt.Errorf("the log's ends: %w", err)
	}
	commits, err := admin.FetchOffsets(ctx, s.Group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return fmt.Errorf("the group's commits: %w", err)
	}
	owners, err := s.askGroup(ctx, admin)
	if err != nil {
		return err
	}
	for p := range count {
		line := partitionStatus{Partition: p, Gaps: []gap{}, CommitIs: "none", Member: owners[p], State: "unowned"}
		if o, ok := starts.Lookup(s.Topic, p); ok && o.Err == nil {
			line.LogStart = &o.Offset
		}
		if o, ok := ends.Lookup(s.Topic, p); ok && o.Err == nil {
			line.LogEnd = &o.Offset
		} else {
			s.Problems = append(s.Problems, fmt.Sprintf("partition %d: the log's end is not known: %v", p, o.Err))
		}
		if o, ok := commits.Lookup(s.Topic, p); ok && o.Err == nil && o.At >= 0 {
			line.Commit, line.CommitIs = &o.At, commitIs(o.Metadata, id)
		}
		if line.Member != "" {
			line.State = "assigned"
		}
		s.Partitions = append(s.Partitions, line)
	}
	return nil
}

// commitIs says whose a commit is, by its metadata.
func commitIs(metadata string, id uuid.UUID) string {
	in, ours, err := intent.Parse(metadata)
	switch {
	case err != nil:
		return "unreadable"
	case !ours:
		return "foreign"
	case in.TopicID != id:
		return "other topic"
	case in.Closed:
		return "closed"
	case in.Reread > 0:
		return fmt.Sprintf("reread to %d", in.Reread)
	}
	return fmt.Sprintf("open to %d", in.Last)
}

// askGroup lists the group's members and tells which owns each partition, in
// the classic protocol or KIP-848's.
func (s *status) askGroup(ctx context.Context, admin *kadm.Client) (map[int32]string, error) {
	owners := map[int32]string{}
	add := func(instance *string, client, host string, owned []int32) {
		name := client + "@" + strings.TrimPrefix(host, "/")
		if instance != nil && *instance != "" {
			name = *instance
		}
		s.Members = append(s.Members, name)
		for _, p := range owned {
			owners[p] = name
		}
	}
	classic, err := admin.DescribeGroups(ctx, s.Group)
	if err != nil {
		return nil, fmt.Errorf("describing the group %s: %w", s.Group, err)
	}
	for _, m := range classic[s.Group].Members {
		var owned []int32
		if a, ok := m.Assigned.AsConsumer(); ok {
			for _, topic := range a.Topics {
				if topic.Topic == s.Topic {
					owned = append(owned, topic.Partitions...)
				}
			}
		}
		add(m.InstanceID, m.ClientID, m.ClientHost, owned)
	}
	if len(s.Members) > 0 {
		return owners, nil
	}
	// A broker that does not know KIP-848 has no such group either.
	if groups, err := admin.DescribeConsumerGroups(ctx, s.Group); err == nil {
		for _, m := range groups[s.Group].Members {
			var owned []int32
			for p := range m.Assignment[s.Topic] {
				owned = append(owned, p)
			}
			add(m.InstanceID, m.ClientID, m.ClientHost, owned)
		}
	}
	return owners, nil
}

// askClickHouse fills in where the journal ends and the balance.
func (s *status) askClickHouse(ctx context.Context, st *store.Store) error {
	for i := range s.Partitions {
		line := &s.Partitions[i]
		seen, err := st.Seen(ctx, topic.Origin{TopicID: s.TopicID, Partition: line.Partition})
		if err != nil {
			return err
		}
		line.Difference = new(int64) // of a partition of which nothing is journaled
		end := max(seen.End, 0)
		if line.LogStart != nil && seen.End < 0 {
			end = *line.LogStart // nothing is journaled: the owner begins here
		}
		line.JournalEnd = &end
		if line.LogEnd != nil {
			lag := max(0, *line.LogEnd-end)
			line.Lag = &lag
		}
		before := end
		for _, island := range seen.Islands {
			line.Gaps = append(line.Gaps, gap{before, island.First})
			before = island.End
		}
	}
	var proved uint64
	var through time.Time
	err := st.Conn().QueryRow(ctx, "SELECT count(), max(complete_through), argMax(held_by, complete_through) FROM completeness").Scan(&proved, &through, &s.HeldBy)
	if err != nil {
		return fmt.Errorf("up to when the data is whole: %w", err)
	}
	if proved > 0 {
		s.CompleteThrough = &through
	}
	rows, err := st.Conn().Query(ctx, "SELECT partition, difference FROM balance WHERE topic_id = ?", s.TopicID)
	if err != nil {
		return fmt.Errorf("the balance: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err below tells
	for rows.Next() {
		var p int32
		var difference int64
		if err := rows.Scan(&p, &difference); err != nil {
			return fmt.Errorf("the balance: %w", err)
		}
		if i := slices.IndexFunc(s.Partitions, func(l partitionStatus) bool { return l.Partition == p }); i >= 0 {
			s.Partitions[i].Difference = &difference
		}
	}
	return rows.Err()
}

// noted are the operations that status explains for a day.
var noted = []string{operations.Jump, operations.Reread, operations.Skip, operations.SetOffsets}

// askOldest fills in the age of what waits, and what happened lately.
func (s *status) askOldest(ctx context.Context, t *tools) {
	for i := range s.Partitions {
		l := &s.Partitions[i]
		if l.Lag == nil || l.LogEnd == nil {
			continue
		}
		if *l.Lag == 0 {
			l.OldestSeconds = new(float64)
			continue
		}
		r := verify.Range{Self: topic.Origin{TopicID: s.TopicID, Partition: l.Partition}, To: *l.LogEnd}
		l.OldestSeconds = t.oldest(ctx, r, *l.JournalEnd)
	}
	lately, err := operations.Log{Conn: t.store.Conn()}.List(ctx, 10, noted...)
	if err != nil {
		s.Errors = append(s.Errors, err.Error())
		return
	}
	for _, o := range lately {
		if time.Since(o.Started) < 24*time.Hour {
			s.Notes = append(s.Notes, fmt.Sprintf("%s, %s by %s: %s", o.Started.UTC().Format(time.RFC3339), o.Kind, o.Who, o.Outcome))
		}
	}
}
