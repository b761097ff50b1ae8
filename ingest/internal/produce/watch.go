package produce

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"sluice/ingest/internal/delivery"
)

// probeTimeout bounds one probe. It leaves time for one seed broker that does
// not answer to the dial (3s) and for the next.
const probeTimeout = 5 * time.Second

// CheckTimeout bounds one [Producer.Check], with room for its own bound.
const CheckTimeout = probeTimeout + time.Second

// Check asks the log whether records could be sent to it, within five seconds,
// and returns what [Producer.Ready] answers from then on. It must be called
// again and again, one call at a time.
func (p *Producer) Check(ctx context.Context) error {
	began := time.Now()
	bounded, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	err := p.probe(bounded)
	p.log.Debug("asked for the log", "topic", p.cfg.Topic, "took", time.Since(began), "error", err)
	was := p.away.Load()
	switch {
	case ctx.Err() != nil:
	case err == nil:
		p.away.Store(nil)
	case was == nil && p.lastAck.Load() > int64(began.Sub(p.begun)):
		// It acknowledged while we asked: slow to answer, but not away.
	default:
		p.away.Store(&err)
	}
	return p.Ready()
}

// TopicID is the topic's id when it was last asked for; zero before.
func (p *Producer) TopicID() uuid.UUID {
	if id := p.topicID.Load(); id != nil {
		return uuid.UUID(*id)
	}
	return uuid.UUID{}
}

// probe asks for the topic's metadata. nil means that at least one partition
// has a leader.
func (p *Producer) probe(ctx context.Context) error {
	req := kmsg.NewPtrMetadataRequest()
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = kmsg.StringPtr(p.cfg.Topic)
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, p.client)
	if err != nil {
		return fmt.Errorf("asking for the topic %s: %w", p.cfg.Topic, err)
	}
	if len(resp.Topics) != 1 {
		return fmt.Errorf("asking for the topic %s: the answer has %d topics", p.cfg.Topic, len(resp.Topics))
	}
	if err := kerr.ErrorForCode(resp.Topics[0].ErrorCode); err != nil {
		if errors.Is(err, kerr.UnknownTopicOrPartition) {
			return fmt.Errorf("the topic %s does not exist: create it", p.cfg.Topic)
		}
		return fmt.Errorf("the topic %s: %w", p.cfg.Topic, err)
	}
	p.topicID.Store(&resp.Topics[0].TopicID)
	for i := range resp.Topics[0].Partitions {
		if resp.Topics[0].Partitions[i].Leader >= 0 {
			return nil
		}
	}
	return fmt.Errorf("no partition of the topic %s has a leader", p.cfg.Topic)
}

// Ready tells, without asking anyone, why a record could not be sent now.
func (p *Producer) Ready() error {
	if p.stopped.Load() {
		return delivery.ErrStopped
	}
	if why := p.away.Load(); why != nil {
		return *why
	}
	return nil
}
