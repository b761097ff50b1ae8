package watermark

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"sluice/consumer/internal/store"
	"sluice/schemas/topic"
)

// Log is the topic in Kafka.
type Log interface {
	// Topic tells the topic's id and partition count.
	Topic(ctx context.Context) (uuid.UUID, int32, error)
	// Ends are where the partitions end now: past whatever was acknowledged
	// before the call.
	Ends(ctx context.Context) (map[int32]int64, error)
}

// Store is ClickHouse, as [Tables] has it.
type Store interface {
	// Now is ClickHouse's clock, which stamps the journal.
	Now(ctx context.Context) (time.Time, error)
	// Begin is a partition's log id of now, and its journal's contiguous end.
	Begin(ctx context.Context, self topic.Origin) (uuid.UUID, int64, error)
	// Progress moves ends on to where the journal has got, and tells when the
	// last record of what was passed was journaled as forwarded (zero: none).
	Progress(ctx context.Context, at map[int32]Place) (forwarded time.Time, err error)
	// Forwarded is when a record of these logs was last journaled as forwarded
	// (zero: none was).
	Forwarded(ctx context.Context, at map[int32]Place) (time.Time, error)
	// Complete writes down that the data is whole up to b.LowWater.
	Complete(ctx context.Context, topicID uuid.UUID, b topic.Watermark, edges int) error
}

// Place is where the journal of a partition has got.
type Place struct {
	LogID uuid.UUID
	End   int64
}

// Config configures a prover.
type Config struct {
	// Interval is from one look to the next. Default 1 second.
	Interval time.Duration
	// Waiting bounds how many bounds wait for the journal at a time. Default
	// 600. When there are more every second one is let go, so that the oldest
	// still comes through as soon as the journal has caught up so far.
	Waiting int
	// Afresh is how long a bound may wait before the journal's ends are looked
	// for anew: the log may have been cut, or the journal have had a gap.
	// Default 30 seconds.
	Afresh time.Duration
	// Mine tells whether this process is to prove anything now: one of a group
	// is enough. It may be nil: always.
	Mine func() bool
	// Tell passes what was proved on to those that can't ask ClickHouse; it
	// never falls, whoever told it before. It may be nil: nobody is told.
	Tell func(context.Context, topic.Completeness) error
}

// Prover follows the edges' marks and the journal, and writes down up to when
// the data is whole. It is for one Run.
type Prover struct {
	cfg    Config
	edges  *Edges
	log    Log
	store  Store
	logger *slog.Logger

	topicID   uuid.UUID
	at        map[int32]Place
	since     time.Time // when at was last made anew
	forwarded time.Time
	waiting   []claim
	written   time.Time // the last bound that was written down
	ahead     string    // the edge of which it was said that its clock is ahead

	unregister func()
	through    prometheus.Gauge
	live       prometheus.Gauge
	spooled    prometheus.Gauge
}

// claim is a bound that holds once the journal has passed ends.
type claim struct {
	bound topic.Watermark
	edges int
	asked time.Time // by ClickHouse's clock, before the ends were asked for
	ends  map[int32]int64
	// rounds is how often ends were asked for again since records of what was
	// passed had been forwarded, so that copies of them may lie beyond.
	rounds int
}

// mostRounds is after how many rounds nothing that a claim is about can be on its
// way any more: a copy lies in its key's partition, and is forwarded again only if
// partitions were added meanwhile, which would have to happen each time. Without this
// bound nothing was ever proved while some producer kept on writing where keys do not
// belong.
const mostRounds = 3

// NewProver reports to reg; nothing happens until Run.
func NewProver(cfg Config, edges *Edges, log Log, st Store, reg prometheus.Registerer, logger *slog.Logger) *Prover {
	cfg.Interval = cmp.Or(cfg.Interval, time.Second)
	cfg.Waiting = cmp.Or(cfg.Waiting, 600)
	cfg.Afresh = cmp.Or(cfg.Afresh, 30*time.Second)
	if cfg.Mine == nil {
		cfg.Mine = func() bool { return true }
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "sluice_consumer_" + name, Help: help})
	}
	p := &Prover{
		cfg: cfg, edges: edges, log: log, store: st, logger: logger,
		through: gauge("complete_through_timestamp_seconds", "Up to when the data is proved to be whole; only the member that has partition 0 moves it."),
		live:    gauge("edges", "Edges that are not retired."),
		spooled: gauge("edges_spooled_records", "Records on the disks of edges, as they last said."),
	}
	reg.MustRegister(p.through, p.live, p.spooled)
	p.unregister = func() {
		for _, c := range []prometheus.Collector{p.through, p.live, p.spooled} {
			reg.Unregister(c)
		}
	}
	return p
}

// Close takes the metrics back, so that another prover can report.
func (p *Prover) Close() { p.unregister() }

// Run proves until ctx ends, once read is closed. What can't be asked is logged
// and tried again: the moment stands still meanwhile.
func (p *Prover) Run(ctx context.Context, read <-chan struct{}) {
	select {
	case <-read:
	case <-ctx.Done():
		return
	}
	failing := false
	for {
		if p.cfg.Mine() {
			err := p.Step(ctx)
			if err != nil && ctx.Err() == nil && !failing {
				p.logger.Warn("up to when the data is whole can't be told; it is tried again", "error", err)
			}
			failing = err != nil
		} else {
			p.waiting, p.at = nil, nil // another does it; what was known grows old
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(p.cfg.Interval):
		}
	}
}

// Step claims the edges' bound of now and writes down the highest that has come
// to hold.
func (p *Prover) Step(ctx context.Context) error {
	if err := p.claim(ctx); err != nil {
		return err
	}
	if len(p.waiting) == 0 {
		return nil
	}
	if p.at == nil || time.Since(p.since) > p.cfg.Afresh && p.stuck() {
		if err := p.afresh(ctx); err != nil {
			return err
		}
	}
	forwarded, err := p.store.Progress(ctx, p.at)
	if err != nil {
		return err
	}
	if forwarded.After(p.forwarded) {
		p.forwarded = forwarded
	}
	best := -1
	for i, c := range p.waiting {
		if p.holds(c) {
			best = i
		}
	}
	if best < 0 {
		return p.again(ctx)
	}
	c := p.waiting[best]
	if err := p.store.Complete(ctx, p.topicID, c.bound, c.edges); err != nil {
		return err
	}
	p.waiting = p.waiting[best+1:]
	p.written = c.bound.LowWater
	p.through.Set(float64(c.bound.LowWater.UnixMilli()) / 1000)
	p.tell(ctx, c)
	return p.again(ctx)
}

// tell passes a claim that holds on. A failure is no failure of the proof, which
// is written down: the next claim is told again.
func (p *Prover) tell(ctx context.Context, c claim) {
	said := topic.Completeness{CompleteThrough: c.bound.LowWater, HeldBy: c.bound.Edge, Edges: c.edges, At: time.Now().UTC()}
	if p.cfg.Tell == nil || !p.edges.tell(said) {
		return
	}
	if err := p.cfg.Tell(ctx, said); err != nil && ctx.Err() == nil {
		p.logger.Warn("the edges are not told up to when the data is whole", "error", err)
	}
}

// claim adds the bound of now to those that wait. The order matters: the marks
// first, then the clock, then the ends.
func (p *Prover) claim(ctx context.Context) error {
	bound, live, ok := p.edges.Bound()
	spooled := 0
	for _, w := range p.edges.All() {
		if !w.Retired {
			spooled += w.Spooled
		}
	}
	p.live.Set(float64(live))
	p.spooled.Set(float64(spooled))
	last := p.written
	if n := len(p.waiting); n > 0 {
		last = p.waiting[n-1].bound.LowWater
	}
	if !ok || !bound.LowWater.After(last) {
		return nil
	}
	id, count, err := p.log.Topic(ctx)
	if err != nil {
		return err
	}
	if id != p.topicID {
		p.topicID, p.at, p.waiting = id, nil, nil
	}
	asked, err := p.store.Now(ctx)
	if err != nil {
		return err
	}
	if p.bounded(&bound, asked); !bound.LowWater.After(last) {
		return nil
	}
	ends, err := p.log.Ends(ctx)
	if err != nil {
		return err
	}
	if int32(len(ends)) < count {
		return fmt.Errorf("the broker gives the ends of %d of %d partitions", len(ends), count)
	}
	p.waiting = append(p.waiting, claim{bound: bound, edges: live, asked: asked, ends: ends})
	if len(p.waiting) > p.cfg.Waiting {
		thin := p.waiting[:0]
		for i := range p.waiting {
			if i%2 == 0 {
				thin = append(thin, p.waiting[i])
			}
		}
		p.waiting = thin
	}
	return nil
}

// stuck tells that the oldest claim does not hold.
func (p *Prover) stuck() bool { return !p.holds(p.waiting[0]) }

func (p *Prover) holds(c claim) bool {
	return p.passed(c) && (c.rounds >= mostRounds || p.forwarded.Before(c.asked))
}

func (p *Prover) passed(c claim) bool {
	for partition, end := range c.ends {
		at, ok := p.at[partition]
		if end > 0 && (!ok || at.End < end) {
			return false
		}
	}
	return true
}

// again asks for the ends anew for claims whose ends were passed: what was forwarded
// on the way was acknowledged before the journal said so, and lies below.
func (p *Prover) again(ctx context.Context) error {
	var ends map[int32]int64
	for i := range p.waiting {
		if c := &p.waiting[i]; p.passed(*c) {
			if ends == nil {
				var err error
				if ends, err = p.log.Ends(ctx); err != nil {
					return err
				}
				if len(ends) < len(c.ends) {
					return fmt.Errorf("the broker gives the ends of %d of %d partitions", len(ends), len(c.ends))
				}
			}
			c.ends, c.rounds = ends, c.rounds+1
		}
	}
	return nil
}

// afresh asks where each partition's journal has got, over cuts and gaps.
func (p *Prover) afresh(ctx context.Context) error {
	at := map[int32]Place{}
	for partition := range p.waiting[len(p.waiting)-1].ends {
		id, end, err := p.store.Begin(ctx, topic.Origin{TopicID: p.topicID, Partition: partition})
		if err != nil {
			return err
		}
		at[partition] = Place{id, end}
	}
	forwarded, err := p.store.Forwarded(ctx, at)
	if err != nil {
		return err
	}
	if forwarded.After(p.forwarded) {
		p.forwarded = forwarded
	}
	p.at, p.since = at, time.Now()
	return nil
}

var _ Store = Tables{}

// Tables implements [Store].
type Tables struct{ Store *store.Store }
