package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"sluice/consumer/internal/deadletter"
	"sluice/consumer/internal/operations"
	"sluice/consumer/internal/replay"
	"sluice/consumer/internal/tombstone"
	"sluice/consumer/internal/verify"
	"sluice/schemas/topic"
)

// leaseKind is what a replay's lease is of.
const leaseKind = "replay"

// running is a replay on its way.
type running struct {
	*tools
	how    replaying
	op     *operations.Operation
	ranges []planned
	asking *asking // nil: nothing is to be written
	bar    *progressbar.ProgressBar

	mu      sync.Mutex
	results []replayed // of ranges
	at      []int64    // up to where each was compared
}

// replay compares, and has the owners write what is missing: each range as soon as
// it was compared, unless somebody is to be asked first.
func (t *tools) replay(ctx context.Context, how replaying) (results []replayed, err error) {
	r := &running{tools: t, how: how}
	if r.ranges, err = t.plan(ctx, how); err != nil {
		return nil, err
	}
	t.sayGone(ctx, r.ranges)
	r.op = &operations.Operation{ID: uuid.New(), Kind: operations.Replay, State: operations.Running, Who: who(), Detail: how.String(), From: map[int32]int64{}, To: map[int32]int64{}}
	for _, x := range r.ranges {
		r.op.From[x.Self.Partition], r.op.To[x.Self.Partition] = x.From, x.To
		r.results = append(r.results, replayed{Partition: x.Self.Partition, From: x.From, To: x.To, Gone: x.gone})
		r.at = append(r.at, x.From)
	}
	release, err := replay.Take(ctx, t.cfg.Kafka.Options(t.log), t.cfg.Kafka.Control, replay.Lease{Kind: leaseKind, Run: r.op.ID, By: r.op.Who, Since: time.Now().UTC()})
	if err != nil {
		return nil, err
	}
	defer release()
	audit := operations.Log{Conn: t.store.Conn()}
	if err := audit.Write(ctx, r.op); err != nil {
		return nil, err
	}
	defer func() {
		if ended := r.ended(ctx, audit, err); err == nil {
			err = ended
		}
	}()
	if err := r.run(ctx); err != nil || how.dryRun || !how.reprocess || r.sum(func(x replayed) int { return x.GoodNow }) == 0 {
		return r.results, err
	}
	done, err := t.redrive(ctx, redriving{choice: deadletter.Choice{Within: within(r.ranges), Filter: how.filter}, yes: true})
	if err == nil {
		fmt.Fprintf(t.err, "%d dead letters were put through\n", done.Redriven)
	}
	return r.results, err
}

func (r *running) run(ctx context.Context) error {
	var offsets int64
	for _, x := range r.ranges {
		offsets += x.To - x.From
	}
	r.bar = r.progress(offsets, "replay")
	defer r.bar.Finish() //nolint:errcheck // a bar that can't be drawn is no fault
	if r.how.dryRun {
		return r.compare(ctx, alone, func(context.Context, int, []replay.Span, bool) error { return nil })
	}
	r.asking = &asking{running: r, parent: ctx, found: make([]replay.Spans, len(r.ranges)), written: map[uuid.UUID]int{}}
	if r.how.yes || !r.asks() {
		return r.asking.end(r.compare(ctx, beside, r.asking.add))
	}
	missing := make([]replay.Spans, len(r.ranges))
	if err := r.compare(ctx, alone, func(_ context.Context, i int, spans []replay.Span, _ bool) error {
		for _, x := range spans {
			missing[i].AddSpan(x)
		}
		return nil
	}); err != nil {
		return err
	}
	n := r.sum(func(x replayed) int { return x.Missing }) // 0: at most what was erased lacks its fate
	if n > 0 && !r.confirm(fmt.Sprintf("%d records are missing. Have them written?", n)) {
		return errors.New("nothing was written: it was not confirmed (--yes does not ask)")
	}
	each, ctx := errgroup.WithContext(ctx)
	for i := range r.ranges {
		each.Go(func() error { return r.asking.add(ctx, i, missing[i].All(), true) })
	}
	return r.asking.end(each.Wait())
}

func (r *running) sum(n func(replayed) int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return count(r.results, n)
}

// within tells which origins lie in the ranges.
func within(ranges []planned) func(topic.Origin) bool {
	return func(o topic.Origin) bool {
		return slices.ContainsFunc(ranges, func(r planned) bool {
			return o.Partition == r.Self.Partition && o.Offset >= r.From && o.Offset < r.To && r.At(o.Offset) == o
		})
	}
}

// String is how the command was called, for the record of the run.
func (h replaying) String() string {
	var b strings.Builder
	add := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, " --%s %s", name, value)
		}
	}
	add("from", h.from)
	add("from-time", h.fromTime)
	add("to", h.to)
	add("to-time", h.toTime)
	add("sources", strings.Join(h.filter.Sources, ","))
	add("types", strings.Join(h.filter.Types, ","))
	add("actor", h.filter.Actor)
	add("into", h.into)
	if h.rate > 0 {
		add("rate", fmt.Sprint(h.rate))
	}
	if h.dryRun {
		b.WriteString(" --dry-run")
	}
	if h.reprocess {
		b.WriteString(" --reprocess-under-schema")
	}
	return strings.TrimSpace(b.String())
}

// sayGone says what Kafka no longer has, before anything begins.
func (t *tools) sayGone(ctx context.Context, ranges []planned) {
	for _, r := range ranges {
		if r.gone <= 0 {
			continue
		}
		rows := "?"
		var n uint64
		if err := t.store.Conn().QueryRow(ctx, "SELECT count() FROM event_log WHERE topic_id = ? AND partition = ? AND offset < ?", r.Self.TopicID, r.Self.Partition, r.gone).Scan(&n); err == nil {
			rows = fmt.Sprint(n)
		}
		fmt.Fprintf(t.err, "partition %d: offsets before %d are no longer in Kafka and can't be compared or brought back; ClickHouse has %s rows of them\n", r.Self.Partition, r.gone, rows)
	}
}

// pace is how a comparison goes about it.
type pace struct {
	partitions int   // are compared at a time
	offsets    int64 // of each are asked for at a time
	first      int64 // and at first; 0: as many
	inTurn     bool  // one chunk after the other is judged
}

var (
	// beside owners that are asked meanwhile: as many of them have something to do.
	beside = pace{4, replay.ChunkBeside, replay.ChunkBeside / 2, true}
	// alone, ClickHouse answers about one while records of the other are decoded.
	alone = pace{partitions: 2, offsets: replay.ChunkAlone}
)

// compare compares the ranges. lacks is told what is missing of
// each chunk that was compared, and of the last of a range that it is the last.
func (r *running) compare(ctx context.Context, how pace, lacks func(ctx context.Context, i int, missing []replay.Span, last bool) error) error {
	told := findings{to: r.err, path: r.how.findings}
	defer told.close()
	settled, err := deadletter.Settled(ctx, r.store.Conn())
	if err != nil {
		return err
	}
	gone, err := tombstone.Read(ctx, r.store.Conn())
	if err != nil {
		return err
	}
	var limit *rate.Limiter
	if r.how.rate > 0 {
		limit = rate.NewLimiter(rate.Limit(r.how.rate), 1<<30)
		limit.AllowN(time.Now(), 1<<30)
	}
	var judging sync.Locker
	if how.inTurn {
		judging = new(sync.Mutex)
	}
	each, ctx := errgroup.WithContext(ctx)
	each.SetLimit(how.partitions)
	for i, x := range r.ranges {
		each.Go(func() error {
			c := replay.Comparison{
				Open: r.kafka.OpenSmall, Offsets: how.offsets, First: how.first, Judging: judging, Conn: r.store.Conn(), Filter: r.how.filter,
				Settled: func(o topic.Origin) bool { _, ok := settled[o]; return ok },
				Taken:   gone.Fate,
				Found: func(f replay.Found) {
					r.mu.Lock()
					defer r.mu.Unlock()
					told.add(verify.Finding{Kind: f.Kind, Origin: f.Origin, Key: f.Key, What: f.What})
				},
				Compared: func(ctx context.Context, chunk replay.Chunk) error {
					if limit != nil {
						if err := limit.WaitN(ctx, min(chunk.Records, 1<<30)); err != nil {
							return err
						}
					}
					if err := lacks(ctx, i, chunk.Missing, chunk.Next >= x.To); err != nil {
						return err
					}
					r.reached(i, chunk.Next)
					return nil
				},
			}
			d, next, err := c.Run(ctx, replay.Range{Partition: x.Self.Partition, Partitions: x.Partitions, From: x.From, To: x.To, Parts: parts(x.Range)})
			r.compared(i, d)
			if err != nil {
				return fmt.Errorf("partition %d, from offset %d: %w", x.Self.Partition, next, err)
			}
			return nil
		})
	}
	return each.Wait()
}

// reached notes up to where a range was compared.
func (r *running) reached(i int, next int64) {
	r.mu.Lock()
	r.at[i] = next
	r.mu.Unlock()
	r.show()
}

// compared notes what was found.
func (r *running) compared(i int, d replay.Diff) {
	r.mu.Lock()
	defer r.mu.Unlock()
	x := &r.results[i]
	x.Records, x.Present, x.Missing, x.Different, x.GoodNow, x.Expired, x.Erased = d.Records, d.Present, d.Missing, d.Different, d.GoodNow, d.Expired, d.Erased
}

// next is the first offset of a range that is not done: not compared, or asked for
// and not written.
func (r *running) next(i int) int64 {
	r.mu.Lock()
	next := r.at[i]
	r.mu.Unlock()
	if r.asking != nil {
		next = min(next, r.asking.undone(i))
	}
	return next
}

// show draws how much is done.
func (r *running) show() {
	var n int64
	for i, x := range r.ranges {
		n += r.next(i) - x.From
	}
	r.bar.Set64(n) //nolint:errcheck // a bar that can't be drawn is no fault
}

// ended writes down how the run ended, and says where to go on.
func (r *running) ended(ctx context.Context, audit operations.Log, cause error) error {
	op := r.op
	op.Found = map[string]int64{}
	for _, x := range r.results {
		op.Found["records"] += int64(x.Records)
		op.Found["present"] += int64(x.Present)
		op.Found["missing"] += int64(x.Missing)
		op.Found["different"] += int64(x.Different)
		op.Found["expired"] += int64(x.Expired)
		op.Found["erased"] += int64(x.Erased)
		op.Found["good_now"] += int64(x.GoodNow)
		op.Written += uint64(x.Written)
	}
	op.State, op.Outcome = operations.Done, fmt.Sprintf("%d of %d records were missing, %d written", op.Found["missing"], op.Found["records"], op.Written)
	if cause != nil {
		op.State, op.Outcome = operations.Failed, cause.Error()
		if ctx.Err() != nil {
			op.State = operations.Interrupted
		}
		if from := r.resume(); from != "" {
			op.Outcome += "; go on with --from " + from
			fmt.Fprintf(r.err, "stopped; go on with: consumer replay --from %s\n", from)
		}
	}
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return audit.Write(bound, op)
}

// resume is --from for what is not done.
func (r *running) resume() string {
	var out []string
	for i, x := range r.ranges {
		if next := r.next(i); next < x.To {
			out = append(out, fmt.Sprintf("%d:%d", x.Self.Partition, next))
		}
	}
	return strings.Join(out, ",")
}
