// Package group is the consumer group: it learns which partitions are ours,
// starts and ends their owners, and commits for all of them. It is where the
// partition package meets Kafka.
package group

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Config configures membership.
type Config struct {
	// Topic is consumed by the group ID.
	Topic, ID string
	// InstanceID, when set, makes the membership static (KIP-345): a process
	// that is killed and started again within SessionTimeout takes its own
	// partitions over, with no rebalance. It must be this process's alone.
	InstanceID string
	// SessionTimeout is how long the broker waits for a silent member before
	// it gives its partitions away. Default 10 s.
	SessionTimeout time.Duration
	// RevokeTimeout is how long a partition taken from us may finish its batch
	// before it is abandoned. Default 5 s; less than the rebalance timeout.
	RevokeTimeout time.Duration
	// OnJoined is called when the group has answered with an assignment, be
	// it an empty one. It may be nil.
	OnJoined func()
}

// Member is one process's membership in the group.
type Member struct {
	cfg     Config
	client  *kgo.Client
	log     *slog.Logger
	start   func(ctx context.Context, stop <-chan struct{}, partition int32, commit CommitFunc)
	commits chan commitRequest

	ctx    context.Context // ends with the process; see Join
	mu     sync.Mutex
	owners map[int32]*owner
}

// CommitFunc commits an offset with metadata for one partition, as long as the
// assignment it was made for lasts.
type CommitFunc func(ctx context.Context, offset int64, metadata string) error

// ErrAssignmentOver is the answer to a commit of an assignment that ended.
var ErrAssignmentOver = errors.New("the partition's assignment to this member is over")

// owner is one incarnation: one assignment of one partition to this member.
type owner struct {
	cancel context.CancelFunc
	stop   chan struct{}
	done   chan struct{}
}

// Join joins the group. For every partition assigned it calls start in a
// goroutine of its own, which must return soon after its context ends (nothing
// more may be written) or stop is closed (finish and give up). Leave ends it.
func Join(ctx context.Context, cfg Config, opts []kgo.Opt, log *slog.Logger,
	start func(ctx context.Context, stop <-chan struct{}, partition int32, commit CommitFunc)) (*Member, error) {
	m := &Member{
		cfg: cfg, log: log, start: start, ctx: ctx,
		commits: make(chan commitRequest), owners: map[int32]*owner{},
	}
	opts = append(opts,
		kgo.ConsumerGroup(cfg.ID),
		kgo.ConsumeTopics(cfg.Topic),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(cfg.SessionTimeout),
		// A member that died while joining is waited for this long.
		kgo.RebalanceTimeout(2*cfg.SessionTimeout),
		kgo.HeartbeatInterval(cfg.SessionTimeout/5),
		kgo.DisableAutoCommit(),
		kgo.OnPartitionsAssigned(m.assigned),
		kgo.OnPartitionsRevoked(m.revoked),
		kgo.OnPartitionsLost(m.lost),
		// This client is for membership and commits alone: each partition's
		// owner reads for itself, from where ClickHouse says.
		kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()),
	)
	if cfg.InstanceID != "" {
		opts = append(opts, kgo.InstanceID(cfg.InstanceID))
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("joining the group %s: %w", cfg.ID, err)
	}
	client.PauseFetchTopics(cfg.Topic)
	m.client = client
	return m, nil
}

// Run commits for all owners until ctx ends.
func (m *Member) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-m.commits:
			m.commit(ctx, m.gather(r))
		}
	}
}

// Leave gives every partition up, in order, and leaves the group. Run must
// still be running, so that the last commits go out.
func (m *Member) Leave() {
	m.end(m.held(), true)
	if m.cfg.InstanceID != "" { // the client leaves static membership standing
		ctx, cancel := context.WithTimeout(m.ctx, 2*time.Second)
		defer cancel()
		leave := kadm.LeaveGroup(m.cfg.ID).InstanceIDs(m.cfg.InstanceID)
		if _, err := kadm.NewClient(m.client).LeaveGroup(ctx, leave); err != nil {
			m.log.Warn("leaving the group: the broker will notice by itself", "error", err, "after", m.cfg.SessionTimeout)
		}
	}
	m.client.Close()
}

// Owned are the partitions assigned at the moment.
func (m *Member) Owned() []int32 { return m.held() }

func (m *Member) held() []int32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	var ps []int32
	for p := range m.owners {
		ps = append(ps, p)
	}
	return ps
}

func (m *Member) assigned(_ context.Context, _ *kgo.Client, got map[string][]int32) {
	if m.cfg.OnJoined != nil {
		m.cfg.OnJoined()
	}
	for _, p := range got[m.cfg.Topic] {
		// The incarnation's context must outlive this callback; it ends when
		// the assignment does, or with the process.
		ctx, cancel := context.WithCancel(m.ctx)
		o := &owner{cancel: cancel, stop: make(chan struct{}), done: make(chan struct{})}
		m.mu.Lock()
		m.owners[p] = o
		m.mu.Unlock()
		go func() {
			defer close(o.done)
			m.start(ctx, o.stop, p, func(cctx context.Context, offset int64, metadata string) error {
				return m.request(cctx, ctx, p, offset, metadata)
			})
		}()
	}
}

func (m *Member) revoked(_ context.Context, _ *kgo.Client, taken map[string][]int32) {
	m.end(taken[m.cfg.Topic], true)
}

func (m *Member) lost(_ context.Context, _ *kgo.Client, taken map[string][]int32) {
	m.log.Warn("partitions lost: the group went on without this member", "partitions", taken[m.cfg.Topic])
	m.end(taken[m.cfg.Topic], false)
}

// end ends incarnations and returns when their owners have. With grace each may
// finish its batch first.
func (m *Member) end(partitions []int32, grace bool) {
	var ending []*owner
	m.mu.Lock()
	for _, p := range partitions {
		if o := m.owners[p]; o != nil {
			ending = append(ending, o)
			delete(m.owners, p)
		}
	}
	m.mu.Unlock()
	for _, o := range ending {
		if grace {
			close(o.stop)
		} else {
			o.cancel()
		}
	}
	bound := time.After(m.cfg.RevokeTimeout)
	for _, o := range ending {
		select {
		case <-o.done:
		case <-bound:
			bound = time.After(0)
			o.cancel()
			<-o.done
		}
		o.cancel()
	}
}
