package produce

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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

	held    atomic.Int64 // bytes of records not settled
	lastAck atomic.Int64 // when the log last acknowledged, Unix nanoseconds
	away    atomic.Pointer[error]
	stopped atomic.Bool

	flights sync.Pool // *flight for one record
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
	p := &Producer{cfg: cfg, client: client, log: log}
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
	settled = p.send(ctx, ds)
	p.metrics.count(ds)
	return settled
}

func (p *Producer) send(ctx context.Context, ds []*delivery.Delivery) bool {
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
		p.client.Produce(detached, &d.Record, f.promise(i))
	}
	f.timer.Reset(p.cfg.AckTimeout)
	select {
	case <-f.done:
		f.timer.Stop()
		p.metrics.acked.Observe(time.Since(begin).Seconds())
		f.tell(ds)
		p.recycle(f)
		return true
	case <-f.timer.C:
	case <-ctx.Done():
		f.timer.Stop()
	}
	return f.tell(ds)
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
