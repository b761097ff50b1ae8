package group

import (
	"context"
	"fmt"
	"slices"
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

// ended tells that the incarnation is over: it may commit nothing more.
func (r *commitRequest) ended() bool {
	select {
	case <-r.over:
		return !mutant.On("ended-incarnation-commits")
	default:
		return false
	}
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
		if r.ended() {
			r.answer <- ErrAssignmentOver
			continue
		}
		offsets[r.partition] = kgo.EpochOffset{Epoch: -1, Offset: r.offset}
		metadata[r.partition] = r.metadata
		byPartition[r.partition] = r
	}
	if len(offsets) == 0 {
		return
	}
	// The client calls this when it has read its generation. Until then it may
	// have waited for a rebalance, and an incarnation that ended in it must not
	// be committed for under the generation that came after.
	ctx = kgo.PreCommitFnContext(ctx, func(req *kmsg.OffsetCommitRequest) error {
		if m.leftOut(req.Generation) {
			return ErrAssignmentOver
		}
		for i := range req.Topics {
			t := &req.Topics[i]
			t.Partitions = slices.DeleteFunc(t.Partitions, func(p kmsg.OffsetCommitRequestTopicPartition) bool {
				r := byPartition[p.Partition]
				return r.ended()
			})
			for j := range t.Partitions {
				p := &t.Partitions[j]
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
		case r.ended():
			err = ErrAssignmentOver
		case failed != nil:
			err = failed
		case !ok:
			err = fmt.Errorf("the broker did not answer for partition %d", p)
		}
		r.answer <- err
	}
}
