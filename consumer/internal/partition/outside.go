package partition

import (
	"context"
	"time"

	"github.com/google/uuid"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/store"
	"sluice/schemas/topic"
)

// Store is ClickHouse, as *store.Store has it.
type Store interface {
	Seen(ctx context.Context, self topic.Origin) (store.Seen, error)
	Keys(ctx context.Context, from, to time.Time, partition, count int32, add func(minute int32, id uuid.UUID)) error
	FirstOf(ctx context.Context, records []*batch.Record) (map[uuid.UUID]dedup.First, error)
	RowsIn(ctx context.Context, self topic.Origin, first, last int64) (map[int64]uuid.UUID, error)
	FatesIn(ctx context.Context, self topic.Origin, first, last int64) (map[int64]dedup.Fate, error)
	// Counted is how many records that retention has counted lie where the journal
	// has lost its ranges, less those of its ranges that lack a row or a fate; counted is
	// false where retention has counted none.
	Counted(ctx context.Context, self topic.Origin) (n int, counted bool, err error)
	Rows(ctx context.Context, token string, self topic.Origin, rows []*batch.Record) error
	Journal(ctx context.Context, token, topicName string, self topic.Origin, entries []store.Entry) error
	// Stop ends every statement of a log that still runs, whoever began it.
	Stop(ctx context.Context, self topic.Origin) error
	// Barriers are the highest partition count journaled by each partition.
	Barriers(ctx context.Context, topicID uuid.UUID) (map[int32]int32, error)
	// Cuts are the logs that followed self's, in order.
	Cuts(ctx context.Context, self topic.Origin) ([]store.Cut, error)
	// LastBatch is the journaled batch with records that ends highest.
	LastBatch(ctx context.Context, self topic.Origin) (store.LastBatch, bool, error)
}

// Log is the partition in Kafka.
type Log interface {
	// Where tells the topic's id and partition count, the log's first offset
	// and its end, and the group's commit for this partition.
	Where(ctx context.Context) (Where, error)
	// EpochEnd is the offset at which a leader epoch ended (KIP-320); known is
	// false when the broker can't tell.
	EpochEnd(ctx context.Context, epoch int32) (end int64, known bool, err error)
	// Open reads the partition from an offset on.
	Open(from int64) (Reader, error)
	// Commit commits offset for the group, with metadata, as a member of it:
	// it fails when the assignment is over.
	Commit(ctx context.Context, offset int64, metadata string) error
	// DeadLetter and Forward return when the broker has acknowledged all.
	DeadLetter(ctx context.Context, self topic.Origin, letters []*batch.Record) error
	Forward(ctx context.Context, self topic.Origin, records []*batch.Record) error
}

// Reader reads records in offset order. It is for one goroutine.
type Reader interface {
	// Next waits for what comes next and returns its records: none when it
	// was transaction markers only. The error is the context's, or means that
	// reading can't go on.
	Next(ctx context.Context) ([]batch.Raw, error)
	// Position is the first offset not yet read, markers included.
	Position() int64
	Close()
}

// Where is where a partition stands in Kafka.
type Where struct {
	TopicID    uuid.UUID
	Partitions int32
	Start, End int64 // End is past the last record
	Committed  int64 // -1: no commit
	Metadata   string
}

// Observer is told what the owner does; its methods must return at once.
type Observer interface {
	// Decided: a batch is journaled (or re-read).
	Decided(partition int32, counts map[dedup.Fate]int, written int, next int64)
	// Halted: the partition does not move, and why; nil when it does again.
	Halted(partition int32, err error)
}
