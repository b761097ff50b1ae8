package doctor

import (
	"github.com/google/uuid"
)

// Facts are what was found, before anything is made of it.
type Facts struct {
	ClickHouse ClickHouse
	Kafka      Kafka
}

// Known is a fact, or why it cannot be learnt from this server by this user.
type Known[T any] struct {
	Value T
	Err   error
}

// of judges a fact if it is known.
func of[T any](k Known[T], judge func(T) *Finding) *Finding {
	if k.Err != nil {
		return unknown(k.Err)
	}
	return judge(k.Value)
}

// ClickHouse is what a server says of itself, as seen over the consumer's own
// connection.
type ClickHouse struct {
	// Away: it could not be asked; nothing else is set.
	Away error

	Version  Known[string]
	User     Known[string]
	Database string
	// Schema is what migrate.Check says; the value nil means it is ours.
	Schema Known[error]
	// Expected are the tables as this program's migrations make them.
	Expected map[string]Definition
	// Tables are the tables of ours that are there.
	Tables Known[map[string]Table]
	// Settings are in effect for a query; Inserts for an INSERT of the
	// consumer's, or InsertsRefused says why the server refuses its settings.
	Settings       Known[map[string]string]
	Inserts        Known[map[string]string]
	InsertsRefused string
	// MergeTree and Replicated are the server's defaults for tables.
	MergeTree, Replicated Known[map[string]string]
	Policies              Known[[]Policy]
	Detached              Known[[]Detached]
	// Parts is, for each table, the table partition with the most parts.
	Parts Known[map[string]Parts]
	Disks Known[[]Disk]
	// Barriers are the partition counts that the journal records.
	Barriers Known[[]Commit]
	// Groups are the consumer groups that write rows of a topic, by its id.
	Groups Known[[]Writer]
	// Access are the statements of roles and rights that are missing.
	Access Known[[]string]
	// ReadOnly are the replicated tables that take no writes.
	ReadOnly Known[[]string]
}

// Table is one table as it stands in the server.
type Table struct {
	Definition
	// Readers are the materialized views that every INSERT feeds too.
	Readers []string
	// Unreadable says why its definition could not be read.
	Unreadable error
}

// Policy is a row policy on a table of ours.
type Policy struct{ Name, Filter string }

// Detached is a part that lies in a table's directory and is no part of it.
type Detached struct{ Table, Part, Reason string }

// Parts is how many active parts a table partition has.
type Parts struct {
	PartitionID string
	Count       uint64
}

// Disk is where ClickHouse stores.
type Disk struct {
	Name, Path       string
	Free, Total      uint64
	ReadOnly, Broken bool
}

// Kafka is what a cluster says of itself.
type Kafka struct {
	// Away: it could not be asked; nothing else is set.
	Away error

	// Topics are those that exist, of the three of ours.
	Topics map[string]Known[Topic]
	// Configs are the topics' configurations in effect, Brokers the brokers'.
	Configs map[string]Known[map[string]string]
	Brokers map[int32]Known[map[string]string]
	// Commits are what the group's commits of ours say.
	Commits Known[[]Commit]
	// Groups are the groups that have members.
	Groups Known[[]string]
}

// Topic is a topic's shape.
type Topic struct {
	ID         uuid.UUID
	Partitions int32
	// Replicas is the least number of replicas of any partition.
	Replicas int
}

// Writer is the consumer group that wrote rows of a topic last.
type Writer struct{ TopicID, Group string }

// Commit is what a commit of ours, or a barrier in the journal, says of the
// topic it was made for.
type Commit struct {
	Partition  int32
	TopicID    uuid.UUID
	Partitions int32
}
