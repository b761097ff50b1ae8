package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/kafka"
	"sluice/consumer/internal/store"
	"sluice/deploy/local/enginetest"
	"sluice/schemas/event"
	"sluice/schemas/topic"
)

// rig is what all checks of a test share: a broker, an engine with the schema,
// and clients. Each check has topics of its own and begins with empty tables.
type rig struct {
	cfg      config
	engine   *enginetest.Engine
	store    *store.Store
	producer *kgo.Client // puts a record into the partition it names
	admin    *kadm.Client
	worlds   int
	stats    *stats
}

func newRig(t *testing.T) *rig {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	r := &rig{cfg: defaults(), engine: migratedEngine(t), stats: &stats{counts: map[string]int{}}}
	r.cfg.Kafka.Brokers = cluster.ListenAddrs()
	r.cfg.ClickHouse.DSN = r.engine.URL + "/sluice"
	r.store, err = store.Open(r.cfg.ClickHouse.DSN)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.store.Close()) })
	r.producer, err = kgo.NewClient(kgo.SeedBrokers(r.cfg.Kafka.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0), kgo.MetadataMinAge(10*time.Millisecond))
	require.NoError(t, err)
	t.Cleanup(r.producer.Close)
	r.admin = kadm.NewClient(r.producer)
	return r
}

// world is one check's topic, group and tables, with the partitions' owners and
// all that is under way between them. Owners move only while the gate is open,
// which is inside an action; so between two actions nothing changes.
type world struct {
	t     rapid.TB
	ctx   context.Context
	rig   *rig
	cfg   config
	store *store.Store
	id    uuid.UUID
	log   *slog.Logger
	said  *lockedBuffer // what the owners logged
	trace []string

	kafka    *kafka.Log
	closing  []*kafka.Log
	reader   *kgo.Client
	position []int64
	records  [][]seenRecord // all that was ever in the log, by partition
	start    []int64        // the log's first offsets

	// What the oracle must know of the past.
	counts    []int32                // partition counts, in the order they were in force
	disturbed map[uuid.UUID]bool     // keys of which rows were deleted
	gone      map[topic.Origin]bool  // rows and fates that were deleted
	copied    bool                   // there is a copy of the tables
	owed      bool                   // what was deleted is to be brought back: the offsets stand at 0 for it
	copyOwed  bool                   // of the copy
	told      atomic.Int32           // the partition count as owners hear of it
	incs      int                    // incarnations so far
	owners    map[int32]*incarnation // that run
	holder    map[int32]*incarnation // whose commits the group takes
	late      []*lateEffect          // sent, and not arrived yet
	frozen    []*incarnation         // stopped in the middle of something
	mu        sync.Mutex             // for holder, late and frozen
	gateMu    sync.Mutex
	gate      chan struct{} // closed: open
	effects   sync.RWMutex  // held by what is being done outside
}

// seenRecord is a record of the log.
type seenRecord struct {
	batch.Record
	key       []byte // the event's key
	forwarded string // the origin it was forwarded from
}

// home is where the record's key belongs among count partitions.
func (r *seenRecord) home(count int32) int32 { return event.Partition(r.key, count) }

func newWorld(t rapid.TB, ctx context.Context, r *rig) *world {
	t.Helper()
	r.worlds++
	if live() {
		t = liveT{t}
	}
	w := &world{
		t: t, ctx: ctx, rig: r, cfg: r.cfg, store: r.store, said: &lockedBuffer{},
		disturbed: map[uuid.UUID]bool{}, gone: map[topic.Origin]bool{},
		owners: map[int32]*incarnation{}, holder: map[int32]*incarnation{}, gate: make(chan struct{}),
	}
	w.log = slog.New(slog.NewTextHandler(w.said, nil))
	w.cfg.Kafka.Topic = fmt.Sprintf("events-%d", r.worlds)
	w.cfg.Kafka.DeadLetters = fmt.Sprintf("dead-%d", r.worlds)
	w.cfg.Kafka.Control = fmt.Sprintf("control-%d", r.worlds)
	w.cfg.Group.ID = fmt.Sprintf("group-%d", r.worlds)
	w.cfg.Topics.Partitions = 2
	require.NoError(t, ensureTopics(ctx, r.admin, w.cfg, io.Discard))
	for _, q := range []string{"SYSTEM START MERGES", "TRUNCATE TABLE event_log", "TRUNCATE TABLE journal", "SYSTEM STOP MERGES"} {
		w.exec(q)
	}
	w.reader = w.client(kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.FetchMaxWait(100*time.Millisecond),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{}))
	w.connect()
	w.counted(w.cfg.Topics.Partitions)
	return w
}

func (w *world) client(opts ...kgo.Opt) *kgo.Client {
	w.t.Helper()
	c, err := kgo.NewClient(append(opts, kgo.SeedBrokers(w.cfg.Kafka.Brokers...), kgo.MetadataMinAge(10*time.Millisecond))...)
	require.NoError(w.t, err)
	return c
}

// connect makes the owners to come a new process: clients that know today's
// partitions.
func (w *world) connect() {
	w.t.Helper()
	k, err := kafka.New(w.cfg.Kafka.Options(w.log), kafka.Names{Topic: w.cfg.Kafka.Topic, DeadLetters: w.cfg.Kafka.DeadLetters, Group: w.cfg.Group.ID})
	require.NoError(w.t, err)
	w.kafka, w.closing = k, append(w.closing, k)
	w.id, _, err = k.Topic(w.ctx)
	require.NoError(w.t, err)
}

// counted takes the model to n partitions.
func (w *world) counted(n int32) {
	from := map[int32]kgo.Offset{}
	for p := int32(len(w.records)); p < n; p++ {
		w.records, w.position, w.start = append(w.records, nil), append(w.position, 0), append(w.start, 0)
		from[p] = kgo.NewOffset().At(0)
	}
	w.reader.AddConsumePartitions(map[string]map[int32]kgo.Offset{w.cfg.Kafka.Topic: from})
	w.counts = append(w.counts, n)
	w.told.Store(n)
}

func (w *world) count() int32 { return w.counts[len(w.counts)-1] }

// close ends everything, whatever state it is in.
func (w *world) close() {
	w.crashAll()
	for _, inc := range w.sleepers() {
		inc.thaw(true)
	}
	for _, k := range w.closing {
		k.Close()
	}
	w.reader.Close()
	_, err := w.rig.admin.DeleteTopics(context.Background(), w.cfg.Kafka.Topic, w.cfg.Kafka.DeadLetters, w.cfg.Kafka.Control)
	require.NoError(w.t, err)
}

// note writes one line of the trace.
func (w *world) note(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	w.trace = append(w.trace, line)
	w.log.Info("ACTION " + line)
	if live() {
		fmt.Fprintf(os.Stderr, "%s %s: %s\n", time.Now().Format("15:04:05.000"), w.cfg.Kafka.Topic, line)
	}
}

func (w *world) exec(query string, args ...any) {
	w.t.Helper()
	for _, q := range map[bool][]string{false: {query}, true: {query + " event_log", query + " journal"}}[query == "SYSTEM START MERGES" || query == "SYSTEM STOP MERGES"] {
		require.NoError(w.t, w.store.Conn().Exec(w.ctx, q, args...), q)
	}
}

func (w *world) scalar(query string, args ...any) (n int64) {
	w.t.Helper()
	require.NoError(w.t, w.store.Conn().QueryRow(w.ctx, "SELECT toInt64(("+query+"))", args...).Scan(&n), query)
	return n
}

// live tells that actions and failures are to be printed as they happen: rapid
// prints those of the shortest history alone, in the end.
func live() bool { return os.Getenv("SLUICE_MODEL_LOG") == "live" }

type liveT struct{ rapid.TB }

func (t liveT) Errorf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	t.TB.Errorf(format, args...)
}

// read brings the model's copy of the log up to date, and returns where each
// partition's last record ends.
func (w *world) read() []int64 {
	w.t.Helper()
	decoder := batch.NewDecoder(1)
	ends, err := w.rig.admin.ListCommittedOffsets(w.ctx, w.cfg.Kafka.Topic)
	require.NoError(w.t, err)
	behind := func() bool {
		for p := range w.position {
			if end, ok := ends.Lookup(w.cfg.Kafka.Topic, int32(p)); ok && w.position[p] < end.Offset {
				return true
			}
		}
		return false
	}
	ctx, cancel := context.WithTimeout(w.ctx, 30*time.Second)
	defer cancel()
	for behind() {
		fetches := w.reader.PollFetches(ctx)
		require.NoError(w.t, fetches.Err(), "reading the log")
		fetches.EachRecord(func(r *kgo.Record) {
			w.position[r.Partition] = r.Offset + 1
			if r.Attrs.IsControl() {
				return
			}
			raw := batch.Raw{Offset: r.Offset, Timestamp: r.Timestamp, Key: r.Key, Value: r.Value}
			rec := seenRecord{Record: decoder.Decode(raw)}
			if rec.Reason == "" {
				rec.key = rec.Event.AppendKey(nil)
			}
			for _, h := range r.Headers {
				if h.Key == topic.HeaderForwardedFrom {
					rec.forwarded = string(h.Value)
				}
			}
			w.records[r.Partition] = append(w.records[r.Partition], rec)
		})
	}
	out := make([]int64, len(w.records))
	for p, records := range w.records {
		out[p] = w.start[p]
		if n := len(records); n > 0 {
			out[p] = max(out[p], records[n-1].Offset+1)
		}
	}
	return out
}

// lockedBuffer keeps what the owners logged.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// stats counts what was done, for the report: by the model, and by owners that meet
// their faults when it no longer waits for them.
type stats struct {
	mu     sync.Mutex
	counts map[string]int
}

func (s *stats) count(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[what]++
}
