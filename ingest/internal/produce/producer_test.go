package produce

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"sluice/ingest/internal/delivery"
	"sluice/ingest/internal/logtest"
	"sluice/schemas/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const topicName = "events"

// start starts a broker and a producer that watches it, and waits until it is
// ready.
func start(t *testing.T, change func(*Config)) (*Producer, *kfake.Cluster) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, topicName))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	cfg := DefaultConfig(topicName)
	cfg.ProbeInterval = 10 * time.Millisecond
	if change != nil {
		change(&cfg)
	}
	p, err := New(cfg, logtest.New(io.Discard), prometheus.NewRegistry(),
		kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.RetryBackoffFn(func(int) time.Duration { return 10 * time.Millisecond }))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for ctx.Err() == nil {
			_ = p.Check(ctx) // Ready says the same
			time.Sleep(cfg.ProbeInterval)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-watched
		stop, done := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer done()
		_ = p.Stop(stop)
	})
	require.Eventually(t, func() bool { return p.Ready() == nil }, 10*time.Second, time.Millisecond)
	return p, cluster
}

func some(n int) []*delivery.Delivery {
	out := make([]*delivery.Delivery, n)
	for i := range out {
		out[i] = &delivery.Delivery{Record: kgo.Record{Key: []byte{byte(i)}, Value: []byte("value"), Timestamp: time.UnixMilli(1)}} // long ago: it must not matter
	}
	return out
}

// sendOne sends one record and returns its error.
func sendOne(t *testing.T, p *Producer) error {
	ds := some(1)
	require.True(t, p.Send(context.Background(), ds), "nothing was sent")
	return ds[0].Err
}

// TestEverySendSettlesOnce: under a storm of faults every Send returns once, is
// nil only for what the log holds, and in the end nothing is held.
func TestEverySendSettlesOnce(t *testing.T) {
	p, cluster := start(t, func(c *Config) { c.AckTimeout = 300 * time.Millisecond })
	for _, err := range []*kerr.Error{
		kerr.RequestTimedOut, kerr.NotEnoughReplicasAfterAppend, kerr.NotEnoughReplicas, kerr.NotLeaderForPartition,
		kerr.UnknownTopicOrPartition, kerr.LeaderNotAvailable, kerr.KafkaStorageError,
	} {
		var n atomic.Int64
		cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: err, Count: -1,
			When: func(kmsg.Request) bool { return n.Add(1)%13 == 0 }})
	}
	var acked, failed atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 12 {
				size := 1 + i%3
				ds := some(size)
				p.Send(context.Background(), ds)
				for _, d := range ds {
					if d.Err == nil {
						acked.Add(1)
					} else {
						failed.Add(1)
						require.False(t, delivery.Permanent(d.Err), "%v", d.Err)
					}
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, int64(8*4*(1+2+3)), acked.Load()+failed.Load())
	require.Positive(t, acked.Load())
	require.Eventually(t, func() bool { return p.held.Load() == 0 }, 20*time.Second, 10*time.Millisecond, "bytes held for ever")
	inLog := int64(0)
	for part := range int32(2) {
		inLog += cluster.PartitionInfo(topicName, part).HighWatermark
	}
	require.GreaterOrEqual(t, inLog, acked.Load(), "acknowledged, and not in the log")
}

// TestSendErrors: each way in which nothing or not everything is sent.
func TestSendErrors(t *testing.T) {
	t.Run("not seen yet", func(t *testing.T) {
		p, err := New(DefaultConfig(topicName), logtest.New(io.Discard), prometheus.NewRegistry(), kgo.SeedBrokers("127.0.0.1:1"))
		require.NoError(t, err)
		require.ErrorIs(t, sendOne(t, p), delivery.ErrAway)
		require.ErrorContains(t, p.Ready(), "not been reached yet")
		require.NoError(t, p.Stop(context.Background()))
		require.ErrorIs(t, sendOne(t, p), delivery.ErrStopped)
		require.ErrorIs(t, p.Ready(), delivery.ErrStopped)
	})
	t.Run("full", func(t *testing.T) {
		p, _ := start(t, func(c *Config) { c.BufferBytes = BatchBytes })
		p.held.Add(BatchBytes)
		require.ErrorIs(t, sendOne(t, p), delivery.ErrFull)
		require.Equal(t, int64(BatchBytes), p.held.Load(), "what was refused is still counted")
		var m dto.Metric
		require.NoError(t, p.metrics.failures["buffer_full"].Write(&m))
		require.InDelta(t, 1, m.GetCounter().GetValue(), 0)
		p.held.Store(0)
	})
	t.Run("one larger than the bound passes alone", func(t *testing.T) {
		p, _ := start(t, func(c *Config) { c.BufferBytes = BatchBytes })
		ds := some(2 * BatchBytes / RecordOverheadBytes)
		require.True(t, p.Send(context.Background(), ds))
		for _, d := range ds {
			require.NoError(t, d.Err)
		}
		require.Zero(t, p.held.Load())
	})
	t.Run("no answer", func(t *testing.T) {
		p, cluster := start(t, func(c *Config) { c.AckTimeout = 150 * time.Millisecond })
		release := make(chan struct{})
		cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
			cluster.SleepControl(func() { <-release })
			return nil, nil, false
		})
		ds := some(3)
		require.False(t, p.Send(context.Background(), ds))
		for _, d := range ds {
			require.ErrorIs(t, d.Err, delivery.ErrNoAck)
		}
		require.Positive(t, p.held.Load(), "still in the client's hands")
		close(release)
		require.Eventually(t, func() bool { return p.held.Load() == 0 }, 10*time.Second, time.Millisecond)
	})
	t.Run("the caller leaves", func(t *testing.T) {
		p, cluster := start(t, nil)
		release, come := make(chan struct{}), make(chan struct{})
		var first sync.Once
		cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
			cluster.SleepControl(func() { first.Do(func() { close(come) }); <-release })
			return nil, nil, false
		})
		ctx, cancel := context.WithCancel(context.Background())
		go func() { <-come; cancel() }()
		ds := some(1)
		require.False(t, p.Send(ctx, ds))
		require.ErrorIs(t, ds[0].Err, delivery.ErrNoAck)
		close(release)
		require.Eventually(t, func() bool { return p.held.Load() == 0 }, 10*time.Second, time.Millisecond, "the record was sent on")
	})
	t.Run("too large", func(t *testing.T) {
		p, _ := start(t, nil)
		ds := some(2)
		ds[1].Record.Value = make([]byte, BatchBytes+1)
		require.True(t, p.Send(context.Background(), ds))
		require.NoError(t, ds[0].Err)
		require.True(t, delivery.Permanent(ds[1].Err), "%v", ds[1].Err)
	})
}

// TestReason: every error that Kafka can give has a reason of the closed set.
func TestReason(t *testing.T) {
	for code := int16(1); code < 130; code++ {
		require.Contains(t, reasons, reason(kerr.ErrorForCode(code)))
	}
	for _, err := range []error{delivery.ErrFull, delivery.ErrAway, delivery.ErrStopped, delivery.ErrNoAck, kgo.ErrClientClosed, kgo.ErrRecordTimeout, kgo.ErrRecordRetries, kgo.ErrMaxBuffered, context.Canceled} {
		require.Contains(t, reasons, reason(err))
	}
}

// TestPartitioner: the client partitions as Java's default does and as the
// contract says, and keeps the time it was given.
func TestPartitioner(t *testing.T) {
	p, _ := start(t, nil)
	ds := some(50)
	require.True(t, p.Send(context.Background(), ds))
	for _, d := range ds {
		r := &d.Record
		require.NoError(t, d.Err)
		require.Equal(t, event.Partition(r.Key, 2), r.Partition)
		require.Equal(t, time.UnixMilli(1), r.Timestamp)
	}
	theirs := kgo.StickyKeyPartitioner(nil).ForTopic(topicName)
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "key")
		n := rapid.IntRange(1, 64).Draw(t, "partitions")
		require.Equal(t, theirs.Partition(&kgo.Record{Key: key}, n), int(event.Partition(key, int32(n))))
	})
}

func TestConfig(t *testing.T) {
	require.NoError(t, DefaultConfig("t").Validate())
	for name, spoil := range map[string]func(*Config){
		"topic":          func(c *Config) { c.Topic = "" },
		"ack_timeout":    func(c *Config) { c.AckTimeout = time.Millisecond },
		"linger":         func(c *Config) { c.Linger = time.Minute },
		"buffer_bytes":   func(c *Config) { c.BufferBytes = 1 },
		"probe_interval": func(c *Config) { c.ProbeInterval = 0 },
		"compression":    func(c *Config) { c.Compression = "rar" },
	} {
		c := DefaultConfig("t")
		spoil(&c)
		require.ErrorContains(t, c.Validate(), name)
	}
	for _, name := range []string{"none", "snappy", "lz4", "zstd"} {
		c := DefaultConfig("t")
		c.Compression = name
		require.NoError(t, c.Validate())
	}
}

// An edge that stops tells so, while its broker may be stopping too. The client
// keeps a record whose answer was lost until it knows what became of it, whatever
// the record's context says; an edge that waited for that never ended.
func TestTellEndsWithItsContext(t *testing.T) {
	p, cluster := start(t, nil)
	cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		return nil, errors.New("the connection is cut after the request"), true
	})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	told := make(chan error, 1)
	go func() {
		_, err := p.Tell(ctx, topicName, []byte("edge"), []byte("stopped"))
		told <- err
	}()
	select {
	case err := <-told:
		require.ErrorIs(t, err, context.DeadlineExceeded)
	case <-time.After(20 * time.Second):
		t.Fatal("Tell goes on after its context has ended")
	}
}
