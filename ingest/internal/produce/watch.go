package produce

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// probeTimeout bounds one probe. It leaves time for one seed broker that does
// not answer to the dial (3s) and for the next.
const probeTimeout = 5 * time.Second

// Watch asks the log every Config.ProbeInterval whether records could be sent
// to it, until ctx ends: that is what [Producer.Ready] answers from.
func (p *Producer) Watch(ctx context.Context) {
	tick := time.NewTicker(p.cfg.ProbeInterval)
	defer tick.Stop()
	for {
		p.look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look probes once and notes what came of it.
func (p *Producer) look(ctx context.Context) {
	began := time.Now()
	bounded, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	err := p.probe(bounded)
	was := p.away.Load()
	switch {
	case ctx.Err() != nil:
	case err == nil:
		if p.away.Swap(nil) != nil {
			p.log.Info("the log is there", "topic", p.cfg.Topic)
		}
	case was == nil && p.lastAck.Load() > began.UnixNano():
		// It acknowledged while we asked: slow to answer, but not away.
	default:
		if p.away.Swap(&err) == nil || (*was).Error() != err.Error() {
			p.log.Warn("the log cannot be reached; requests are answered with 503 until it can", "topic", p.cfg.Topic, "error", err)
		}
	}
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
		return ErrStopped
	}
	if why := p.away.Load(); why != nil {
		return *why
	}
	return nil
}
