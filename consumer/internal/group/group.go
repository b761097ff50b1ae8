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
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"sluice/consumer/internal/failure"
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
	// Protocol is how the group agrees on who owns what. Default [Classic].
	Protocol Protocol
	// Admin asks the brokers what they speak.
	Admin *kadm.Client
	// RevokeTimeout is how long a partition taken from us may finish its batch
	// before it is abandoned. Default 5 s; less than the rebalance timeout.
	RevokeTimeout time.Duration
	// OnJoined is called when the group has answered with an assignment, be
	// it an empty one. It may be nil.
	OnJoined func()
	// OnError is called when membership is in trouble: until OnJoined is called
	// again, this member may own nothing. It may be nil.
	OnError func(error)
}

// Protocol is how a group agrees on who owns which partition.
type Protocol string

// The protocols. All members of a group must speak the same.
const (
	// Classic is the members' own protocol with cooperative hand-over
	// (KIP-429): a rebalance stops only the partitions that move.
	Classic Protocol = "classic"
	// Eager is the classic protocol as of old: every rebalance stops all.
	Eager Protocol = "eager"
	// Broker is KIP-848: the broker assigns, one partition at a time. The
	// session timeout is the broker's then (group.consumer.session.timeout.ms).
	Broker Protocol = "broker"
	// Auto is Broker where the broker supports it, else Classic.
	Auto Protocol = "auto"
)

// Validate tells whether p is one of them.
func (p Protocol) Validate() error {
	switch p {
	case Classic, Eager, Broker, Auto:
		return nil
	}
	return fmt.Errorf("group.protocol is %q: want auto, broker, classic or eager", p)
}

// options are those of the client that speaks p.
func (p Protocol) options() []kgo.Opt {
	switch p {
	case Eager:
		return []kgo.Opt{kgo.Balancers(kgo.StickyBalancer())}
	case Broker:
		return []kgo.Opt{kgo.Balancers(kgo.StickyBalancer()), kgo.ServerSideBalancer()}
	case Classic, Auto:
	}
	return []kgo.Opt{kgo.Balancers(kgo.CooperativeStickyBalancer())}
}

// settle finds out which protocol is spoken, by asking the brokers.
func (p Protocol) settle(ctx context.Context, admin *kadm.Client) (Protocol, error) {
	if p != Auto && p != Broker {
		return p, nil
	}
	versions, err := admin.ApiVersions(ctx)
	if err != nil {
		return p, fmt.Errorf("asking the brokers which group protocols they speak: %w", err)
	}
	can := len(versions) > 0
	for _, v := range versions {
		newest, ok := v.KeyMaxVersion(kmsg.ConsumerGroupHeartbeat.Int16())
		can = can && ok && newest >= 1 // version 1 is KIP-848 as it was released (Kafka 4.0)
	}
	switch {
	case can:
		return Broker, nil
	case p == Auto:
		return Classic, nil
	}
	return p, fmt.Errorf("group.protocol is %q and the brokers do not speak KIP-848 (Kafka 4.0 and newer do): set auto or classic", p)
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
	// generation is the last that is known to have had this member; 0 before
	// the first, and always in [Broker], where a partition moves only when its
	// owner has given it up.
	generation int32
	classic    bool
	fenced     bool // another process has this one's instance id
}

// CommitFunc commits an offset with metadata for one partition, as long as the
// assignment it was made for lasts.
type CommitFunc func(ctx context.Context, offset int64, metadata string) error

// ErrAssignmentOver is the answer to a commit of an assignment that ended.
var ErrAssignmentOver = failure.ErrOver

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
		kgo.SessionTimeout(cfg.SessionTimeout),
		// A member that died while joining is waited for this long.
		kgo.RebalanceTimeout(2*cfg.SessionTimeout),
		kgo.HeartbeatInterval(cfg.SessionTimeout/5),
		kgo.WithHooks(trouble{m}),
		kgo.DisableAutoCommit(),
		// Partitions that were added are shared out when the leader hears of them.
		kgo.MetadataMaxAge(10*time.Second),
		kgo.OnPartitionsAssigned(m.assigned),
		kgo.OnPartitionsRevoked(m.revoked),
		kgo.OnPartitionsLost(m.lost),
		// This client is for membership and commits alone: each partition's
		// owner reads for itself, from where ClickHouse says.
		kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()),
	)
	protocol, err := cfg.Protocol.settle(ctx, cfg.Admin)
	if err != nil {
		return nil, err
	}
	m.classic = protocol != Broker
	opts = append(opts, protocol.options()...)
	if cfg.InstanceID != "" {
		opts = append(opts, kgo.InstanceID(cfg.InstanceID))
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("joining the group %s: %w", cfg.ID, err)
	}
	log.Info("joining the group", "group", cfg.ID, "protocol", protocol)
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
	m.mu.Lock()
	fenced := m.fenced
	m.mu.Unlock()
	if m.cfg.InstanceID != "" && !fenced { // the client leaves static membership standing
		ctx, cancel := context.WithTimeout(m.ctx, 2*time.Second)
		defer cancel()
		leave := kadm.LeaveGroup(m.cfg.ID).InstanceIDs(m.cfg.InstanceID)
		if _, err := kadm.NewClient(m.client).LeaveGroup(ctx, leave); err != nil {
			m.log.Warn("leaving the group: the broker will notice by itself", "error", err, "after", m.cfg.SessionTimeout)
		}
	}
	m.client.Close()
}

// trouble hears of errors of the membership.
type trouble struct{ m *Member }

// OnGroupManageError implements [kgo.HookGroupManageError].
func (t trouble) OnGroupManageError(err error) {
	if errors.Is(err, kerr.FencedInstanceID) { // leaving would throw the other out
		t.m.mu.Lock()
		t.m.fenced = true
		t.m.mu.Unlock()
	}
	if t.m.cfg.OnError != nil {
		t.m.cfg.OnError(err)
	}
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

func (m *Member) assigned(_ context.Context, client *kgo.Client, got map[string][]int32) {
	if m.cfg.OnJoined != nil {
		m.cfg.OnJoined()
	}
	_, generation := client.GroupMetadata()
	if m.leftOut(generation) {
		// What stays with us may have been another's meanwhile: its owner ends
		// as if it were lost, and the next one recovers.
		kept := m.held()
		if len(kept) > 0 {
			m.log.Warn("the group went on without this member for a while: recovering what it kept", "partitions", kept, "generation", generation)
		}
		m.end(kept, false)
		for _, p := range kept {
			m.begin(p)
		}
	}
	m.mu.Lock()
	m.generation = generation
	m.mu.Unlock()
	for _, p := range got[m.cfg.Topic] {
		m.begin(p)
	}
}

// leftOut tells whether there has been a generation without this member. A group
// whose coordinator lost its memory, or the latest of it, goes on with whoever
// joins first, and gives away what an absent member still works on; that one is
// taken in later under the id it had, and is told only then what it no longer has.
func (m *Member) leftOut(generation int32) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.classic && m.generation > 0 && generation != m.generation && generation != m.generation+1
}

// begin starts an incarnation. Its context must outlive the client's callback; it
// ends when the assignment does, or with the process.
func (m *Member) begin(p int32) {
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

func (m *Member) revoked(_ context.Context, client *kgo.Client, taken map[string][]int32) {
	_, generation := client.GroupMetadata()
	grace := !m.leftOut(generation)
	if !grace {
		m.log.Warn("the group went on without this member for a while: what it gives up may be another's already", "partitions", taken[m.cfg.Topic], "generation", generation)
	}
	m.end(taken[m.cfg.Topic], grace)
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
