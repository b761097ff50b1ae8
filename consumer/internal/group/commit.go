package group

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"sluice/consumer/internal/failure"
	"sluice/consumer/internal/mutant"
)

type commitRequest struct {
	partition int32
	offset    int64
	metadata  string
	over      <-chan struct{} // the incarnation's end
	answer    chan error      // of capacity 1
}

// request hands a commit to the process's one committer and waits. While the
// group is between two generations it is handed over again: with the cooperative
// protocols a partition that stays does not stop, and an incarnation that ends
// ends this too.
func (m *Member) request(ctx, incarnation context.Context, partition int32, offset int64, metadata string) error {
	for {
		err := m.once(ctx, incarnation, partition, offset, metadata)
		if err == nil || !failure.Regrouping(err) {
			return err
		}
		select {
		case <-incarnation.Done():
			return ErrAssignmentOver
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (m *Member) once(ctx, incarnation context.Context, partition int32, offset int64, metadata string) error {
	r := commitRequest{partition, offset, metadata, incarnation.Done(), make(chan error, 1)}
	select {
	case m.commits <- r:
	case <-incarnation.Done():
		return ErrAssignmentOver
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-r.answer:
		return err
	case <-incarnation.Done():
		return ErrAssignmentOver
	case <-ctx.Done():
		return ctx.Err()
	}
}

// gather adds the commits that wait already, so that all partitions share a
// request. A second commit of one partition waits for the first's answer
// before it is asked for, so none can overtake another.
func (m *Member) gather(first commitRequest) []commitRequest {
	rs := []commitRequest{first}
	for {
		select {
		case r := <-m.commits:
			rs = append(rs, r)
		default:
			return rs
		}
	}
}

// commit sends one commit request and answers each partition for itself: a
// commit in flight must not be joined by another, which would cancel it.
func (m *Member) commit(ctx context.Context, rs []commitRequest) {
	offsets, metadata := map[int32]kgo.EpochOffset{}, map[int32]string{}
	byPartition := map[int32]commitRequest{}
	for _, r := range rs {
		select {
		case <-r.over: // the incarnation is over: it may commit nothing more
			if !mutant.On("ended-incarnation-commits") {
				r.answer <- ErrAssignmentOver
				continue
			}
		default:
		}
		offsets[r.partition] = kgo.EpochOffset{Epoch: -1, Offset: r.offset}
		metadata[r.partition] = r.metadata
		byPartition[r.partition] = r
	}
	if len(offsets) == 0 {
		return
	}
	ctx = kgo.PreCommitFnContext(ctx, func(req *kmsg.OffsetCommitRequest) error {
		for i := range req.Topics {
			for j := range req.Topics[i].Partitions {
				p := &req.Topics[i].Partitions[j]
				text := metadata[p.Partition]
				p.Metadata = &text
			}
		}
		return nil
	})
	answered := map[int32]error{}
	var failed error
	m.client.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{m.cfg.Topic: offsets},
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
			if failed = err; err != nil || resp == nil {
				return
			}
			for _, t := range resp.Topics {
				for _, p := range t.Partitions {
					answered[p.Partition] = kerr.ErrorForCode(p.ErrorCode)
				}
			}
		})
	for p, r := range byPartition {
		err, ok := answered[p]
		switch {
		case failed != nil:
			err = failed
		case !ok:
			err = fmt.Errorf("the broker did not answer for partition %d", p)
		}
		r.answer <- err
	}
}
