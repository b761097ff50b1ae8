package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/consumer/internal/kafka"
	"sluice/consumer/internal/migrate"
	"sluice/consumer/internal/monitor"
	"sluice/consumer/internal/store"
	"sluice/deploy/local/enginetest"
	"sluice/schemas/event"
	"sluice/schemas/topic"
)

// stack is a broker, a ClickHouse and a consumer between them, all real but
// for the broker, which is kfake.
type stack struct {
	t        testing.TB
	cfg      config
	engine   *enginetest.Engine
	producer *kgo.Client
	store    *store.Store
	log      *slog.Logger
}

// migrated is what an engine left that had the schema made, and nothing else: nearly
// every test begins with that.
var migrated struct {
	once sync.Once
	dir  string
}

// migratedEngine is an engine with the schema in the database sluice.
func migratedEngine(t testing.TB) *enginetest.Engine {
	t.Helper()
	migrated.once.Do(func() {
		e := enginetest.Start(t)
		require.NoError(t, migrate.Up(t.Context(), e.URL+"/sluice", func(string) {}))
		e.Stop()
		dir, err := os.MkdirTemp("", "sluice-consumer-test-") // TestMain removes it
		require.NoError(t, err)
		require.NoError(t, os.CopyFS(dir, os.DirFS(e.Dir)))
		migrated.dir = dir
	})
	require.NotEmpty(t, migrated.dir, "there is no schema: the first test that needed it says why")
	return enginetest.StartFrom(t, migrated.dir)
}

func newStack(t testing.TB) *stack {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	return newStackOn(t, cluster.ListenAddrs())
}

// newStackOn is a stack on brokers that run already. adjust changes the
// configuration before the topics are made.
func newStackOn(t testing.TB, brokers []string, adjust ...func(*config)) *stack {
	t.Helper()
	engine := migratedEngine(t)
	cfg := defaults()
	cfg.Kafka.Brokers = brokers
	cfg.ClickHouse.DSN = engine.URL + "/sluice"
	cfg.Batch.Age = 50 * time.Millisecond
	cfg.Topics.Partitions = 3
	if _, bench := t.(*testing.B); bench {
		cfg.Topics.Partitions = 1
		cfg.Batch.Age = 200 * time.Millisecond
	}
	for _, f := range adjust {
		f(&cfg)
	}
	s := &stack{t: t, cfg: cfg, engine: engine, log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	var err error
	s.producer, err = kgo.NewClient(kgo.SeedBrokers(cfg.Kafka.Brokers...), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)))
	require.NoError(t, err)
	t.Cleanup(s.producer.Close)
	require.NoError(t, ensureTopics(t.Context(), kadm.NewClient(s.producer), cfg, &strings.Builder{}))
	s.store, err = store.Open(cfg.ClickHouse.DSN)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.store.Close()) })
	return s
}

// consuming runs a consumer until the returned function is called.
func (s *stack) consuming() (stop func()) { return s.consumingShown(unregistered()) }

// consumingShown is consuming, and mon shows how far it is.
func (s *stack) consumingShown(mon *monitor.Monitor) (stop func()) {
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan error, 1)
	go func() { done <- consume(ctx, s.cfg, s.log, mon) }()
	require.Eventually(s.t, func() bool { return mon.Ready() == nil }, 30*time.Second, time.Millisecond)
	return func() {
		cancel()
		require.NoError(s.t, <-done)
	}
}

func (s *stack) produce(records ...*kgo.Record) {
	s.t.Helper()
	for _, r := range records {
		r.Topic = s.cfg.Kafka.Topic
	}
	require.NoError(s.t, s.producer.ProduceSync(s.t.Context(), records...).FirstErr())
}

// record is an event as the edge would write it; n makes it distinct.
func record(n int, payload string) *kgo.Record {
	e := event.Event{
		Source: "test:source", EventType: "typ%e", ActorID: fmt.Sprint("actor-", n%7),
		OccurredAt: time.Date(2026, 1, 2, 3, 4, 5, n*1000, time.UTC), Payload: []byte(payload),
	}
	return &kgo.Record{Key: e.AppendKey(nil), Value: e.AppendJSON(nil)}
}

func (s *stack) scalar(query string) (n uint64) {
	s.t.Helper()
	require.NoError(s.t, s.store.Conn().QueryRow(s.t.Context(), query).Scan(&n))
	return n
}

func (s *stack) verified() report {
	s.t.Helper()
	cmd := command()
	cmd.SetErr(os.Stderr)
	t, err := openTools(cmd, s.cfg)
	require.NoError(s.t, err)
	defer t.close()
	r, err := t.verify(s.t.Context(), 90*time.Second)
	require.NoError(s.t, err)
	return r
}

// settles waits until verify says want: what was forwarded, for one, takes a
// while to arrive.
func (s *stack) settles(want report) {
	s.t.Helper()
	var got report
	for deadline := time.Now().Add(90 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if got = s.verified(); got == want {
			return
		}
	}
	require.Equal(s.t, want, got)
}

// balanced checks that the sheet agrees with the log's own count, fate by fate.
// Nothing may be under way.
func (s *stack) balanced(r report) {
	s.t.Helper()
	require.Zero(s.t, s.scalar("SELECT toUInt64(sum(abs(difference))) FROM balance"))
	for column, want := range map[string]int{
		"records": r.Records, "rows": r.Rows, "duplicates": r.Duplicates,
		"conflicts": r.Conflicts, "dead_lettered": r.DeadLettered, "forwarded": r.Forwarded,
	} {
		require.EqualValues(s.t, want, s.scalar("SELECT toUInt64(sum("+column+")) FROM balance"), column)
	}
}

func TestEachRecordOnce(t *testing.T) {
	s := newStack(t)
	stop := s.consuming()
	var sent []*kgo.Record
	for i := range 1000 {
		sent = append(sent, record(i, fmt.Sprintf(`{"n":%d}`, i)))
	}
	s.produce(sent...)
	for i := range 300 { // repeats, with the members in another order of writing
		s.produce(record(i, fmt.Sprintf(`{ "n" : %d }`, i)))
	}
	for i := range 20 {
		s.produce(record(i, `{"n":"other"}`))
	}
	s.produce(&kgo.Record{Value: []byte("garbage")}, &kgo.Record{Key: []byte("x"), Value: nil})
	r := s.verified()
	require.Equal(t, report{OK: true, Records: 1322, Rows: 1000, Duplicates: 300, Conflicts: 20, DeadLettered: 2, RollupsEqual: true}, r)
	s.balanced(r)
	require.EqualValues(t, 20, s.scalar("SELECT count() FROM event_conflicts"))
	require.EqualValues(t, 1000, s.scalar("SELECT count() FROM events"))
	stop()

	// Started again, it goes on where it was and writes nothing twice.
	stop = s.consuming()
	s.produce(record(5000, `{}`))
	require.Equal(t, 1001, s.verified().Rows)
	require.EqualValues(t, 1001, s.scalar("SELECT count() FROM event_log"))
	stop()
}

func (s *stack) log0() *kafka.Log {
	s.t.Helper()
	k, err := kafka.New(s.cfg.Kafka.Options(s.log), kafka.Names{Topic: s.cfg.Kafka.Topic, DeadLetters: s.cfg.Kafka.DeadLetters, Group: s.cfg.Group.ID})
	require.NoError(s.t, err)
	return k
}

func (s *stack) topicID() (uuid.UUID, error) {
	k := s.log0()
	defer k.Close()
	id, _, err := k.Topic(s.t.Context())
	return id, err
}

// bounds are those of partition 0.
func (s *stack) bounds() (start, end int64, err error) {
	k := s.log0()
	defer k.Close()
	return k.Bounds(s.t.Context(), 0)
}

// journalTo journals everything before end as one batch of no records.
func (s *stack) journalTo(id uuid.UUID, end int64) error {
	if end == 0 {
		return nil
	}
	return s.store.Journal(s.t.Context(), uuid.NewString(), s.cfg.Kafka.Topic, topic.Origin{TopicID: id},
		[]store.Entry{{Kind: store.Batch, Offset: 0, Last: end - 1}})
}
