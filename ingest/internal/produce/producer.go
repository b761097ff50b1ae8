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

// Send sends records, in order, and waits until the log has acknowledged them
// all. ctx and Config.AckTimeout bound the wait, not the sending: a record once
// sent is tried on, whoever leaves.
//
// It returns nil when all are acknowledged; [ErrFull], [ErrAway] or [ErrStopped]
// at once when none was sent; otherwise a [*Failure]. The records must not be
// changed until then, nor after a Failure that is not Settled.
func (p *Producer) Send(ctx context.Context, records []*kgo.Record) error {
	err := p.send(ctx, records)
	p.metrics.count(err)
	return err
}

func (p *Producer) send(ctx context.Context, records []*kgo.Record) error {
	if p.stopped.Load() {
		return ErrStopped
	}
	if why := p.away.Load(); why != nil {
		return fmt.Errorf("%w: %w", ErrAway, *why)
	}
	size := int64(0)
	for i := range records {
		size += recordBytes(records[i])
	}
	if held := p.held.Add(size); held > p.cfg.BufferBytes && held != size {
		p.held.Add(-size)
		return ErrFull
	}
	begin := time.Now()
	f := p.flight(len(records), size)
	// Cancelling a record's context fails others of its partition, too.
	detached := context.WithoutCancel(ctx)
	for i := range records {
		p.client.Produce(detached, records[i], f.promise(i))
	}
	f.timer.Reset(p.cfg.AckTimeout)
	select {
	case <-f.done:
		f.timer.Stop()
		p.metrics.acked.Observe(time.Since(begin).Seconds())
		errs := f.failed()
		p.recycle(f)
		if errs == nil {
			return nil
		}
		return &Failure{Errs: errs, Settled: true}
	case <-f.timer.C:
	case <-ctx.Done():
		f.timer.Stop()
	}
	errs := f.soFar()
	if errs == nil {
		return nil
	}
	return &Failure{Errs: errs}
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
