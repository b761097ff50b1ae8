package produce

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/ingest/internal/delivery"
)

// RecordOverheadBytes is what a record counts for beyond its key, value and
// headers: about what the client and we allocate for it.
const RecordOverheadBytes = 512

// Producer sends records to one topic. It is safe for concurrent use.
type Producer struct {
	cfg     Config
	client  *kgo.Client
	log     *slog.Logger
	metrics *metrics

	begun   time.Time    // what lastAck counts from: the wall clock may jump
	held    atomic.Int64 // bytes of records not settled
	lastAck atomic.Int64 // when the log last acknowledged, nanoseconds after begun
	away    atomic.Pointer[error]
	topicID atomic.Pointer[[16]byte] // as last asked for
	stopped atomic.Bool

	singles sync.Pool // *flight of one record
	flights sync.Pool // *flight of more
}

// New returns a producer whose client has the options given, besides its own.
// [Producer.Check] must be called beside it: until the log was seen,
// [Producer.Send] refuses.
func New(cfg Config, log *slog.Logger, reg *prometheus.Registry, common ...kgo.Opt) (*Producer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("produce: %w", err)
	}
	own, err := cfg.options()
	if err != nil {
		return nil, fmt.Errorf("produce: %w", err)
	}
	client, err := kgo.NewClient(append(common, own...)...)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	p := &Producer{cfg: cfg, client: client, log: log, begun: time.Now()}
	p.metrics = newMetrics(reg, p)
	unseen := errors.New("the log has not been reached yet")
	p.away.Store(&unseen)
	return p, nil
}

// Send is [delivery.Log]'s: it writes to the log and nowhere else. Besides ctx,
// Config.AckTimeout bounds the wait.
//
// Err is nil when the log has acknowledged the record; [delivery.ErrFull],
// [delivery.ErrAway] or [delivery.ErrStopped] of all, at once, when none was
// sent; [delivery.ErrNoAck], or the log's own error.
func (p *Producer) Send(ctx context.Context, ds []*delivery.Delivery) (settled bool) {
	return p.SendWithin(ctx, ds, p.cfg.AckTimeout, nil)
}

// SendWithin is [Producer.Send] with a wait of its own, which also ends when
// leave is closed.
func (p *Producer) SendWithin(ctx context.Context, ds []*delivery.Delivery, wait time.Duration, leave <-chan struct{}) (settled bool) {
	settled = p.send(ctx, ds, wait, leave)
	p.metrics.count(ds)
	return settled
}

func (p *Producer) send(ctx context.Context, ds []*delivery.Delivery, wait time.Duration, leave <-chan struct{}) bool {
	size := int64(0)
	for _, d := range ds {
		size += recordBytes(&d.Record)
	}
	if err := p.admit(size); err != nil {
		delivery.Fail(ds, err)
		return true
	}
	begin := time.Now()
	f := p.flight(len(ds), size)
	// Cancelling a record's context fails others of its partition, too.
	detached := context.WithoutCancel(ctx)
	for i, d := range ds {
		p.client.Produce(detached, &d.Record, f.promises[i])
	}
	f.timer.Reset(wait)
	select {
	case <-f.done:
		f.timer.Stop()
		p.metrics.acked.Observe(time.Since(begin).Seconds())
		f.tell(ds)
		p.recycle(f)
		return true
	case <-f.timer.C:
	case <-leave:
		f.timer.Stop()
	case <-ctx.Done():
		f.timer.Stop()
	}
	return f.tell(ds)
}

// Deliver sends records in order and returns once each is settled, however long
// that takes; [Producer.Stop] settles what is left. It returns an error for each
// record that was not acknowledged; nil when all are. The bound on what is held
// does not bind it: it is for one caller, with little at a time.
func (p *Producer) Deliver(records []*kgo.Record) []error {
	size := int64(0)
	for _, r := range records {
		size += recordBytes(r)
	}
	p.held.Add(size)
	f := p.flight(len(records), size)
	for i, r := range records {
		p.client.Produce(context.Background(), r, f.promises[i])
	}
	<-f.done
	defer p.recycle(f)
	for _, err := range f.state {
		if err != nil {
			return slices.Clone(f.state)
		}
	}
	return nil
}

// Tell writes one record to another topic and waits until it is acknowledged, or
// ctx ends; it returns the record's offset. It may be written all the same when ctx has ended: the client gives
// up no record whose answer it waits for, however long the broker is gone, so
// that is not waited for here.
func (p *Producer) Tell(ctx context.Context, topic string, key, value []byte) (offset int64, err error) {
	type told struct {
		offset int64
		err    error
	}
	done := make(chan told, 1)
	p.client.Produce(ctx, &kgo.Record{Topic: topic, Key: key, Value: value}, func(r *kgo.Record, err error) { done <- told{r.Offset, err} })
	var t told
	select {
	case t = <-done:
	case <-ctx.Done():
		t.err = ctx.Err()
	}
	if t.err != nil {
		return 0, fmt.Errorf("writing to %s: %w", topic, t.err)
	}
	return t.offset, nil
}

// admit takes size bytes of the buffer, or says why not.
func (p *Producer) admit(size int64) error {
	if p.stopped.Load() {
		return delivery.ErrStopped
	}
	if why := p.away.Load(); why != nil {
		return fmt.Errorf("%w: %w", delivery.ErrAway, *why)
	}
	if held := p.held.Add(size); held > p.cfg.BufferBytes && held != size {
		p.held.Add(-size)
		return delivery.ErrFull
	}
	return nil
}

func recordBytes(r *kgo.Record) int64 {
	n := RecordOverheadBytes + len(r.Key) + len(r.Value)
	for i := range r.Headers {
		n += len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
	return int64(n)
}

// Stop refuses further records, waits until those held are settled or ctx ends,
// and closes the client. An error says how many records were given up. When no
// Send is under way, none of them is one that a caller was told is in the log.
func (p *Producer) Stop(ctx context.Context) error {
	p.stopped.Store(true)
	err := p.client.Flush(ctx)
	left := p.client.BufferedProduceRecords()
	p.client.Close()
	if err != nil {
		return fmt.Errorf("flushing the producer: %d records not acknowledged: %w", left, err)
	}
	return nil
}
