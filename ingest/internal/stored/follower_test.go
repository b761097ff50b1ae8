package stored

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"sluice/ingest/internal/delivery"
	"sluice/ingest/internal/logtest"
	"sluice/schemas/commit"
	"sluice/schemas/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	topicID = uuid.UUID{1}
	cutID   = uuid.UUID{2}
)

func at(next int64) Commit {
	return Commit{commit.Mark{Log: topicID, Topic: topicID, Partitions: 1}, next}
}

// timeline is a source that says, at each time since it was made, what the last
// entry up to then says.
type timeline struct {
	begun   time.Time
	entries []entry

	mu    sync.Mutex
	looks int
}

type entry struct {
	from time.Duration
	view map[int32]Commit
	err  error
}

func (s *timeline) Look(context.Context) (map[int32]Commit, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looks++
	var now entry
	for _, e := range s.entries {
		if time.Since(s.begun) >= e.from {
			now = e
		}
	}
	return now.view, now.err
}

func queuedAt(partition int32, offset int64) *delivery.Delivery {
	return &delivery.Delivery{Record: kgo.Record{Key: []byte("k"), Partition: partition, Offset: offset}}
}

// follow runs body with a follower of entries, in a bubble of its own.
func follow(t *testing.T, entries []entry, body func(*testing.T, *Follower, *timeline)) {
	synctest.Test(t, func(t *testing.T) {
		source := &timeline{begun: time.Now(), entries: entries}
		f := New(source, logtest.New(io.Discard), prometheus.NewRegistry())
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { f.Run(ctx) })
		body(t, f, source)
		stop()
		wg.Wait()
	})
}

func TestWait(t *testing.T) {
	one := func(c Commit) map[int32]Commit { return map[int32]Commit{0: c} }
	cut := Commit{commit.Mark{Log: cutID, Topic: topicID, Partitions: 1}, 100}
	elsewhere := at(100)
	for elsewhere.Partitions = 2; event.Partition([]byte("k"), elsewhere.Partitions) == 0; {
		elsewhere.Partitions++
	}
	for name, row := range map[string]struct {
		entries []entry
		want    delivery.Status
		after   time.Duration // how long the wait lasts, to within one interval
	}{
		"passed already":                  {[]entry{{0, one(at(8)), nil}}, delivery.Stored, 0},
		"at the record is not past it":    {[]entry{{0, one(at(7)), nil}}, delivery.Queued, time.Second},
		"passed later":                    {[]entry{{0, one(at(7)), nil}, {300 * time.Millisecond, one(at(8)), nil}}, delivery.Stored, 300 * time.Millisecond},
		"no commit of ours":               {[]entry{{0, nil, nil}}, delivery.Queued, time.Second},
		"none in this partition":          {[]entry{{0, map[int32]Commit{1: at(8)}, nil}}, delivery.Queued, time.Second},
		"the brokers are away for a time": {[]entry{{0, nil, errors.New("away")}, {200 * time.Millisecond, one(at(8)), nil}}, delivery.Stored, 200 * time.Millisecond},
		"away":                            {[]entry{{0, nil, errors.New("away")}}, delivery.Queued, time.Second},
		"a log that was cut before":       {[]entry{{0, one(cut), nil}}, delivery.Stored, 0},
		"cut during the wait":             {[]entry{{0, one(at(7)), nil}, {100 * time.Millisecond, one(cut), nil}}, delivery.Queued, time.Second},
		"only forwarded":                  {[]entry{{0, one(elsewhere), nil}}, delivery.Queued, 0},
	} {
		t.Run(name, func(t *testing.T) {
			follow(t, row.entries, func(t *testing.T, f *Follower, _ *timeline) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				d := queuedAt(0, 7)
				begun := time.Now()
				f.Wait(ctx, []*delivery.Delivery{d})
				require.Equal(t, row.want, d.Status)
				took := time.Since(begun)
				require.True(t, took >= row.after && took <= row.after+2*Interval, "it took %v", took)
			})
		})
	}
}

// TestWaitForMany: those that are stored when the wait ends are called so, and no
// others; what failed or is spooled is not waited for.
func TestWaitForMany(t *testing.T) {
	view := map[int32]Commit{0: at(8), 1: at(3)}
	for p, c := range view { // as if every key belonged where it lies
		for c.Partitions = 1; event.Partition([]byte("k"), c.Partitions) != p; {
			c.Partitions++
		}
		view[p] = c
	}
	follow(t, []entry{{0, view, nil}}, func(t *testing.T, f *Follower, _ *timeline) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		failed, spooled := queuedAt(0, 1), queuedAt(0, 1)
		failed.Err, spooled.Status = delivery.ErrNoAck, delivery.Spooled
		ds := []*delivery.Delivery{queuedAt(0, 7), queuedAt(1, 2), queuedAt(1, 3), failed, spooled}
		f.Wait(ctx, ds)
		got := make([]delivery.Status, len(ds))
		for i, d := range ds {
			got[i] = d.Status
		}
		require.Equal(t, []delivery.Status{delivery.Stored, delivery.Stored, delivery.Queued, delivery.Queued, delivery.Spooled}, got)
		begun := time.Now()
		f.Wait(t.Context(), []*delivery.Delivery{failed, spooled})
		require.Zero(t, time.Since(begun), "there is nothing to wait for")
	})
}

// gated is a source whose every look waits for what it is to answer.
type gated struct {
	begun   chan struct{}
	answers chan map[int32]Commit
}

func (s *gated) Look(ctx context.Context) (map[int32]Commit, error) {
	s.begun <- struct{}{}
	select {
	case v := <-s.answers:
		return v, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// TestLookUnderWay: a look that was under way when a wait began had asked before
// the record was acknowledged. Between its two questions the topic may have been
// made again, so that the commits of the earlier one, of the same name, made a
// record "stored" that no consumer had seen. Only a look that begins later counts.
func TestLookUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &gated{begun: make(chan struct{}), answers: make(chan map[int32]Commit)}
		f := New(source, logtest.New(io.Discard), prometheus.NewRegistry())
		ctx, stop := context.WithCancel(t.Context())
		var running, waits sync.WaitGroup
		running.Go(func() { f.Run(ctx) })
		first, d := queuedAt(0, 7), queuedAt(0, 7)
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		waits.Go(func() { f.Wait(short, []*delivery.Delivery{first}) })
		<-source.begun
		waits.Go(func() { f.Wait(short, []*delivery.Delivery{d}) })
		synctest.Wait()
		source.answers <- map[int32]Commit{0: at(8)}
		<-source.begun
		source.answers <- map[int32]Commit{0: at(7)}
		go func() {
			for range source.begun {
			}
		}()
		waits.Wait()
		stop()
		running.Wait()
		close(source.begun)
		require.Equal(t, delivery.Stored, first.Status)
		require.Equal(t, delivery.Queued, d.Status)
	})
}

// TestNobodyWaits: nobody asks.
func TestNobodyWaits(t *testing.T) {
	follow(t, []entry{{0, map[int32]Commit{0: at(8)}, nil}}, func(t *testing.T, f *Follower, s *timeline) {
		time.Sleep(time.Minute)
		require.Zero(t, s.looks)
		for range 3 {
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(func() { f.Wait(t.Context(), []*delivery.Delivery{queuedAt(0, 7)}) })
			}
			wg.Wait()
			time.Sleep(time.Minute)
		}
		require.LessOrEqual(t, s.looks, 9, "a hundred who wait share the looks, and they end with the wait")
	})
}

// TestKafka: what counts of what the brokers say.
func TestKafka(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, "events"), kfake.SeedTopics(1, "other"))
	require.NoError(t, err)
	defer cluster.Close()
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	require.NoError(t, err)
	defer client.Close()
	source := NewKafka(client, "sluice", "events")
	got, err := source.Look(t.Context())
	require.NoError(t, err)
	require.Empty(t, got, "no group yet")

	adm := kadm.NewClient(client)
	topics, err := adm.ListTopics(t.Context(), "events")
	require.NoError(t, err)
	id := uuid.UUID(topics["events"].ID)
	text := func(log uuid.UUID) string {
		return commit.Prefix + `{"topic_id":"` + log.String() + `","partitions":4}`
	}
	var offsets kadm.Offsets
	offsets.Add(kadm.Offset{Topic: "events", Partition: 0, At: 7, LeaderEpoch: -1, Metadata: text(id)})
	offsets.Add(kadm.Offset{Topic: "events", Partition: 1, At: 7, LeaderEpoch: -1, Metadata: text(uuid.UUID{9})}) // the topic of that name before
	offsets.Add(kadm.Offset{Topic: "events", Partition: 2, At: 7, LeaderEpoch: -1})                               // set by hand
	offsets.Add(kadm.Offset{Topic: "other", Partition: 0, At: 7, LeaderEpoch: -1, Metadata: text(id)})
	done, err := adm.CommitOffsets(t.Context(), "sluice", offsets)
	require.NoError(t, err)
	require.NoError(t, done.Error())
	got, err = source.Look(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[int32]Commit{0: {commit.Mark{Log: id, Topic: id, Partitions: 4}, 7}}, got)

	_, err = NewKafka(client, "sluice", "absent").Look(t.Context())
	require.ErrorContains(t, err, "absent")
}
