package doctor

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// letterRoom is what a dead letter may hold beyond the record it copies: key,
// reason, detail and origin as headers.
const letterRoom = 64 << 10

// metadataBytes is the room an intent needs in a commit: about 150 bytes now.
const metadataBytes = 512

func judgeKafka(r *Report, s Setup, k Kafka, barriers []Commit) {
	for _, t := range []struct {
		name  string
		judge func(*Report, Setup, Kafka, string)
	}{{s.Topic, judgeEvents}, {s.DeadLetters, judgeLetters}, {s.Control, judgeControl}} {
		topic, there := k.Topics[t.name]
		switch check := "kafka." + t.name + ".exists"; {
		case !there:
			r.add(check, refuse("the topic "+t.name+" does not exist", "there is nothing to read from, or nowhere to write to", "consumer topics ensure"))
			continue
		case topic.Err != nil:
			r.add(check, unknown(topic.Err))
		default:
			r.add(check, nil)
		}
		t.judge(r, s, k, t.name)
	}
	r.add("kafka.offset_metadata_max_bytes", metadataMax(k))
	r.add("kafka.offsets_retention", offsetsRetention(s, k))
	r.add("kafka.partition_count", of(k.Commits, func(all []Commit) *Finding {
		return partitionCount(k.Topics[s.Topic], append(all[:len(all):len(all)], barriers...))
	}))
}

// of judges one value of a topic's configuration; a value that the broker does
// not show cannot be judged.
func (k Kafka) of(topic, name string, judge func(string) *Finding) *Finding {
	return of(k.Configs[topic], func(values map[string]string) *Finding {
		v, ok := values[name]
		if !ok {
			return unknown(fmt.Errorf("the brokers do not show %s", name))
		}
		return judge(v)
	})
}

func (s Setup) alter(topic, config string) string {
	return fmt.Sprintf("kafka-configs.sh --bootstrap-server %s --alter --entity-type topics --entity-name %s --add-config %s",
		strings.Join(s.Brokers, ","), topic, config)
}

func judgeEvents(r *Report, s Setup, k Kafka, topic string) {
	add := func(what string, f *Finding) { r.add("kafka."+topic+"."+what, f) }
	add("id", of(k.Topics[topic], func(t Topic) *Finding { return topicID(t) }))
	add("cleanup_policy", k.of(topic, "cleanup.policy", func(v string) *Finding { return cleanup(s, topic, v) }))
	add("retention_ms", k.of(topic, "retention.ms", func(v string) *Finding { return retention(s, topic, v) }))
	add("retention_bytes", k.of(topic, "retention.bytes", func(v string) *Finding { return retentionBytes(s, topic, v) }))
	add("max_message_bytes", k.of(topic, "max.message.bytes", func(v string) *Finding { return messageBytes(s, topic, v) }))
	add("timestamp_type", k.of(topic, "message.timestamp.type", func(v string) *Finding { return timestampType(s, topic, v) }))
	judgeCopies(r, s, k, topic)
}

func judgeLetters(r *Report, s Setup, k Kafka, topic string) {
	add := func(what string, f *Finding) { r.add("kafka."+topic+"."+what, f) }
	add("cleanup_policy", k.of(topic, "cleanup.policy", func(v string) *Finding {
		if !contains(v, "compact") {
			return nil
		}
		return warn("cleanup.policy is "+v, "a dead letter that had no value is a tombstone, and deleted before anybody has dealt with it",
			s.alter(topic, "cleanup.policy=delete"))
	}))
	add("retention_ms", k.of(topic, "retention.ms", func(v string) *Finding {
		if number(v) < 0 {
			return nil
		}
		return warn("retention.ms is "+v, "dead letters are deleted whether or not anybody has dealt with them", s.alter(topic, "retention.ms=-1"))
	}))
	add("max_message_bytes", k.of(s.Topic, "max.message.bytes", func(largest string) *Finding {
		return k.of(topic, "max.message.bytes", func(v string) *Finding { return letterBytes(s, topic, largest, v) })
	}))
	judgeCopies(r, s, k, topic)
}

func judgeControl(r *Report, s Setup, k Kafka, topic string) {
	r.add("kafka."+topic+".cleanup_policy", k.of(topic, "cleanup.policy", func(v string) *Finding {
		if contains(v, "compact") && !contains(v, "delete") {
			return nil
		}
		return warn("cleanup.policy is "+v, "requests to the owners are deleted by age, done or not, and the topic grows",
			s.alter(topic, "cleanup.policy=compact"))
	}))
}

// topicID: a topic is known by its id, which tells one from another of the same
// name. KIP-516, brokers from 2.8 on.
func topicID(t Topic) *Finding {
	if t.ID != uuid.Nil {
		return nil
	}
	return refuse("the brokers give topics no id", "a topic deleted and made again is taken for the one before, and its records for ones that were decided",
		"upgrade the brokers to 2.8 or newer")
}

// cleanup: compaction keeps the last record of a key, and the first is the one
// that counts. https://kafka.apache.org/documentation/#topicconfigs_cleanup.policy
func cleanup(s Setup, topic, v string) *Finding {
	if strings.TrimSpace(v) == "delete" {
		return nil
	}
	mend := s.alter(topic, "cleanup.policy=delete")
	if contains(v, "compact") {
		return refuse("cleanup.policy is "+v, "of two records with one key the first, which counts, is deleted from the log, read or not", mend)
	}
	return warn("cleanup.policy is "+v, "the log is never deleted and fills the brokers' disks", mend)
}

// retention: https://kafka.apache.org/documentation/#topicconfigs_retention.ms
func retention(s Setup, topic, v string) *Finding {
	n := number(v)
	if n < 0 || time.Duration(n) > time.Duration(1<<62)/time.Millisecond || time.Duration(n)*time.Millisecond >= s.LongestOutage {
		return nil
	}
	return refuse(fmt.Sprintf("retention.ms is %s (%s), less than the longest outage (doctor.longest_outage, %s)", v, time.Duration(n)*time.Millisecond, s.LongestOutage),
		"events are deleted from the log before they are read: they are lost", s.alter(topic, "retention.ms="+strconv.FormatInt(2*s.LongestOutage.Milliseconds(), 10)))
}

// retentionBytes: https://kafka.apache.org/documentation/#topicconfigs_retention.bytes
func retentionBytes(s Setup, topic, v string) *Finding {
	if number(v) < 0 {
		return nil
	}
	return warn("retention.bytes is "+v, "a burst during an outage deletes events before they are read, whatever retention.ms says", s.alter(topic, "retention.bytes=-1"))
}

// messageBytes: https://kafka.apache.org/documentation/#topicconfigs_max.message.bytes
func messageBytes(s Setup, topic, v string) *Finding {
	n := number(v)
	switch {
	case n < s.RecordBytes:
		return warn(fmt.Sprintf("max.message.bytes is %d, and an event takes up to %d", n, s.RecordBytes), "the edge takes events that the brokers refuse",
			s.alter(topic, "max.message.bytes="+strconv.FormatInt(s.RecordBytes, 10)))
	case n+letterRoom > s.ProduceBytes:
		return warn(fmt.Sprintf("max.message.bytes is %d, and the consumer writes dead letters and forwards of up to %d", n, s.ProduceBytes),
			"a record that is larger and cannot become a row halts its partition", s.alter(topic, "max.message.bytes="+strconv.FormatInt(s.ProduceBytes-letterRoom, 10)))
	}
	return nil
}

func letterBytes(s Setup, topic, largest, v string) *Finding {
	need := number(largest) + letterRoom
	if number(v) >= need {
		return nil
	}
	return warn(fmt.Sprintf("max.message.bytes is %s, and a dead letter of the topic %s takes up to %d", v, s.Topic, need),
		"a large record that cannot become a row halts its partition", s.alter(topic, "max.message.bytes="+strconv.FormatInt(need, 10)))
}

// timestampType: with LogAppendTime the broker's clock replaces what the edge
// wrote. Decisions go on in log order, and a re-read sees the same
// times, so nothing is lost or doubled; only received_at is no longer the edge's.
// https://kafka.apache.org/documentation/#topicconfigs_message.timestamp.type (KIP-32)
func timestampType(s Setup, topic, v string) *Finding {
	if v == "CreateTime" {
		return nil
	}
	return warn("message.timestamp.type is "+v, "received_at says when the log took the record, not when the edge did",
		s.alter(topic, "message.timestamp.type=CreateTime"))
}

// judgeCopies judges what a claim beyond the process needs of a topic that holds
// what no one else has.
func judgeCopies(r *Report, s Setup, k Kafka, topic string) {
	add := func(what string, f *Finding) { r.add("kafka."+topic+"."+what, f) }
	copies := func(judge func(replicas int, least int64) *Finding) *Finding {
		return of(k.Topics[topic], func(t Topic) *Finding {
			return k.of(topic, "min.insync.replicas", func(v string) *Finding { return judge(t.Replicas, number(v)) })
		})
	}
	add("min_insync_replicas", copies(func(replicas int, least int64) *Finding { return inSync(s, topic, replicas, least) }))
	switch s.Durability {
	case Process:
	case Machine:
		add("flush", copies(func(replicas int, least int64) *Finding {
			if replicas >= 2 && least >= 2 {
				return nil // another machine holds it
			}
			return k.of(topic, "flush.messages", func(v string) *Finding { return flush(s, topic, v) })
		}))
	case Cluster:
		add("replication", of(k.Topics[topic], func(t Topic) *Finding { return replication(s, k, topic, t) }))
		add("unclean_leader_election", k.of(topic, "unclean.leader.election.enable", func(v string) *Finding { return unclean(s, topic, v) }))
	}
}

// inSync: acks=all waits for as many as are in sync, be it one.
// https://kafka.apache.org/documentation/#topicconfigs_min.insync.replicas
func inSync(s Setup, topic string, replicas int, least int64) *Finding {
	what := fmt.Sprintf("min.insync.replicas is %d, of %d replicas", least, replicas)
	switch {
	case s.Durability == Cluster && least < 2:
		return refuse(what, "an event is acknowledged with one copy, and lost with its machine", s.alter(topic, "min.insync.replicas=2"))
	case least > int64(replicas):
		return warn(what, "nothing can be written to the topic", s.alter(topic, "min.insync.replicas="+strconv.Itoa(max(1, replicas-1))))
	}
	return nil
}

// flush: a lone broker acknowledges what is in its page cache.
// https://kafka.apache.org/documentation/#topicconfigs_flush.messages
func flush(s Setup, topic, v string) *Finding {
	if v == "1" {
		return nil
	}
	return refuse("flush.messages is "+v+", and no second replica has to have a record", "a power failure takes what was acknowledged",
		s.alter(topic, "flush.messages=1"))
}

func replication(s Setup, k Kafka, topic string, t Topic) *Finding {
	if t.Replicas >= 3 {
		return nil
	}
	mend := []string{"start brokers until there are 3"}
	if ids := sortedKeys(k.Brokers); len(ids) >= 3 {
		var all []string
		for p := range t.Partitions {
			n := len(ids)
			at := int(p)
			all = append(all, fmt.Sprintf(`{"topic":"%s","partition":%d,"replicas":[%d,%d,%d]}`, topic, p, ids[at%n], ids[(at+1)%n], ids[(at+2)%n]))
		}
		mend = []string{
			fmt.Sprintf(`echo '{"version":1,"partitions":[%s]}' > replicas.json`, strings.Join(all, ",")),
			fmt.Sprintf("kafka-reassign-partitions.sh --bootstrap-server %s --reassignment-json-file replicas.json --execute", strings.Join(s.Brokers, ",")),
		}
	}
	return refuse(fmt.Sprintf("a partition has %d replicas, not 3", t.Replicas), "a second machine's loss, or one's during maintenance, takes events or stops the topic", mend...)
}

// unclean: an election of a replica that was not in sync cuts the log short,
// and other records come to stand at offsets that were decided.
// https://kafka.apache.org/documentation/#topicconfigs_unclean.leader.election.enable
func unclean(s Setup, topic, v string) *Finding {
	if switchValue(v) == "0" {
		return nil
	}
	return refuse("unclean.leader.election.enable is "+v, "a replica that was behind may lead: what was acknowledged is cut from the log",
		s.alter(topic, "unclean.leader.election.enable=false"))
}

// brokers judges a configuration value of every broker and returns the first
// that is wrong, else the first that is unknown.
func (k Kafka) brokers(name string, judge func(id int32, v string) *Finding) *Finding {
	var unsure *Finding
	for _, id := range sortedKeys(k.Brokers) {
		f := of(k.Brokers[id], func(values map[string]string) *Finding {
			v, ok := values[name]
			if !ok {
				return unknown(fmt.Errorf("broker %d does not show %s", id, name))
			}
			return judge(id, v)
		})
		if f != nil && f.Severity != Unknown {
			return f
		}
		if unsure == nil {
			unsure = f
		}
	}
	return unsure
}

// metadataMax: https://kafka.apache.org/documentation/#brokerconfigs_offset.metadata.max.bytes
func metadataMax(k Kafka) *Finding {
	const name = "offset.metadata.max.bytes"
	return k.brokers(name, func(id int32, v string) *Finding {
		if number(v) >= metadataBytes {
			return nil
		}
		return refuse(fmt.Sprintf("%s of broker %d is %s, and an intent takes up to %d", name, id, v, metadataBytes), "no intent can be committed, so nothing can be written",
			"in every broker's server.properties: "+name+"=4096", "restart the brokers, one after the other")
	})
}

// offsetsRetention: the commit is a hint; the journal says where to start. What
// is lost with it costs a comparison of the whole log.
// https://kafka.apache.org/documentation/#brokerconfigs_offsets.retention.minutes (KIP-186)
func offsetsRetention(s Setup, k Kafka) *Finding {
	const name = "offsets.retention.minutes"
	return k.brokers(name, func(id int32, v string) *Finding {
		if time.Duration(number(v))*time.Minute >= s.LongestOutage {
			return nil
		}
		return warn(fmt.Sprintf("%s of broker %d is %s, less than the longest outage (%s)", name, id, v, s.LongestOutage),
			"the group's commits are gone after an outage, and all that the log holds is compared again",
			fmt.Sprintf("in every broker's server.properties: %s=%d", name, int64(2*s.LongestOutage/time.Minute)), "restart the brokers, one after the other")
	})
}

// oneGroup: the intents of one group are not seen by the members of another, so two
// groups that write to one database decide the same records both.
func oneGroup(s Setup, f Facts) *Finding {
	return of(f.ClickHouse.Groups, func(writers []Writer) *Finding {
		return of(f.Kafka.Groups, func(active []string) *Finding {
			for _, w := range writers {
				if w.TopicID == f.Kafka.Topics[s.Topic].Value.ID.String() && w.Group != s.Group && slices.Contains(active, w.Group) {
					return refuse(fmt.Sprintf("the group %q writes the topic %s to this database, has members, and is not this one, %q", w.Group, s.Topic, s.Group),
						"two groups decide the same records, and the balance never adds up again",
						fmt.Sprintf("stop the consumers of one of the two, or set group.id to %s, or clickhouse.dsn to a database of its own", w.Group))
				}
			}
			return nil
		})
	})
}

// partitionCount: with partitions added, keys belong to other partitions than
// their first records are in. The owners wait for each other's barriers.
func partitionCount(topic Known[Topic], commits []Commit) *Finding {
	return of(topic, func(t Topic) *Finding {
		var recorded int32
		for _, c := range commits {
			if c.TopicID == t.ID {
				recorded = max(recorded, c.Partitions)
			}
		}
		if recorded == 0 || recorded == t.Partitions {
			return nil
		}
		return warn(fmt.Sprintf("the topic has %d partitions, and was last decided with %d", t.Partitions, recorded),
			"keys move to other partitions: nothing is decided until every older partition has journaled a barrier with the new count",
			"nothing to mend by hand: it passes when an owner of each partition has run")
	})
}
