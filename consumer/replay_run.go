package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
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

// wanting is a range of which something is missing.
type wanting struct {
	topic.Origin
	replay.Span
}

// replay compares, and has the owners write what is missing.
func (t *tools) replay(ctx context.Context, how replaying) (results []replayed, err error) {
	ranges, err := t.plan(ctx, how)
	if err != nil {
		return nil, err
	}
	t.sayGone(ctx, ranges)
	op := &operations.Operation{ID: uuid.New(), Kind: operations.Replay, State: operations.Running, Who: who(), Detail: how.String(), From: map[int32]int64{}, To: map[int32]int64{}}
	for _, r := range ranges {
		op.From[r.Self.Partition], op.To[r.Self.Partition] = r.From, r.To
	}
	release, err := replay.Take(ctx, t.cfg.Kafka.Options(t.log), t.cfg.Kafka.Control, replay.Lease{Kind: leaseKind, Run: op.ID, By: op.Who, Since: time.Now().UTC()})
	if err != nil {
		return nil, err
	}
	defer release()
	audit := operations.Log{Conn: t.store.Conn()}
	if err := audit.Write(ctx, op); err != nil {
		return nil, err
	}
	at := map[int32]int64{}
	defer func() {
		if ended := t.ended(ctx, audit, op, results, at, err); err == nil {
			err = ended
		}
	}()
	results, missing, err := t.compare(ctx, how, ranges, at)
	if err != nil || how.dryRun {
		return results, err
	}
	if len(missing) > 0 {
		if !how.yes && !t.confirm(fmt.Sprintf("%d records are missing. Have them written?", count(results, func(r replayed) int { return r.Missing }))) {
			return results, errors.New("nothing was written: it was not confirmed (--yes does not ask)")
		}
		if err := t.ask(ctx, how, op.ID, missing, results); err != nil {
			return results, err
		}
	}
	if how.reprocess && count(results, func(r replayed) int { return r.GoodNow }) > 0 {
		done, err := t.redrive(ctx, redriving{choice: deadletter.Choice{Within: within(ranges), Filter: how.filter}, yes: true})
		if err != nil {
			return results, err
		}
		fmt.Fprintf(t.err, "%d dead letters were put through\n", done.Redriven)
	}
	return results, nil
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

// compare compares all ranges; at is how far each partition has come.
func (t *tools) compare(ctx context.Context, how replaying, ranges []planned, at map[int32]int64) ([]replayed, []wanting, error) {
	told := findings{to: t.err, path: how.findings}
	defer told.close()
	settled, err := deadletter.Settled(ctx, t.store.Conn())
	if err != nil {
		return nil, nil, err
	}
	gone, err := tombstone.Read(ctx, t.store.Conn())
	if err != nil {
		return nil, nil, err
	}
	var all []verify.Range
	for _, r := range ranges {
		all = append(all, r.Range)
		at[r.Self.Partition] = r.From
	}
	bar := t.bar(all, "compare")
	defer bar.Finish() //nolint:errcheck // a bar that can't be drawn is no fault
	var limit *rate.Limiter
	if how.rate > 0 {
		limit = rate.NewLimiter(rate.Limit(how.rate), 1<<30)
		limit.AllowN(time.Now(), 1<<30)
	}
	c := replay.Comparison{
		Open: t.kafka.Open, Conn: t.store.Conn(), Filter: how.filter,
		Settled: func(o topic.Origin) bool { _, ok := settled[o]; return ok },
		Taken:   gone.Fate,
		Found: func(f replay.Found) {
			told.add(verify.Finding{Kind: f.Kind, Origin: f.Origin, Key: f.Key, What: f.What})
		},
	}
	var results []replayed
	var missing []wanting
	for _, r := range ranges {
		p := r.Self.Partition
		c.Progress = func(next int64, records int) {
			bar.Add64(next - at[p]) //nolint:errcheck // as above
			at[p] = next
			if limit != nil {
				limit.WaitN(ctx, min(records, 1<<30)) //nolint:errcheck // the context's end is seen by what comes next
			}
		}
		d, lacks, next, err := c.Run(ctx, replay.Range{Partition: p, Partitions: r.Partitions, From: r.From, To: r.To, Parts: parts(r.Range)})
		results = append(results, replayed{
			Partition: p, From: r.From, To: r.To, Gone: r.gone,
			Records: d.Records, Present: d.Present, Missing: d.Missing, Different: d.Different, GoodNow: d.GoodNow, Expired: d.Expired, Erased: d.Erased,
		})
		if err != nil {
			return results, nil, fmt.Errorf("partition %d, from offset %d: %w", p, next, err)
		}
		for _, span := range lacks {
			missing = append(missing, wanting{topic.Origin{TopicID: r.Self.TopicID, Partition: p}, span})
		}
	}
	return results, missing, nil
}

// ended writes down how the run ended, and says where to go on.
func (t *tools) ended(ctx context.Context, audit operations.Log, op *operations.Operation, results []replayed, at map[int32]int64, cause error) error {
	op.Found = map[string]int64{}
	for _, r := range results {
		op.Found["records"] += int64(r.Records)
		op.Found["present"] += int64(r.Present)
		op.Found["missing"] += int64(r.Missing)
		op.Found["different"] += int64(r.Different)
		op.Found["expired"] += int64(r.Expired)
		op.Found["erased"] += int64(r.Erased)
		op.Found["good_now"] += int64(r.GoodNow)
		op.Written += uint64(r.Written)
	}
	op.State, op.Outcome = operations.Done, fmt.Sprintf("%d of %d records were missing, %d written", op.Found["missing"], op.Found["records"], op.Written)
	if cause != nil {
		op.State, op.Outcome = operations.Failed, cause.Error()
		if ctx.Err() != nil {
			op.State = operations.Interrupted
		}
		if from := resume(at, op.To); from != "" {
			op.Outcome += "; go on with --from " + from
			fmt.Fprintf(t.err, "stopped; go on with: consumer replay --from %s\n", from)
		}
	}
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return audit.Write(bound, op)
}

// resume is --from for what has not been compared.
func resume(at, to map[int32]int64) string {
	var out []string
	for p, next := range at {
		if next < to[p] {
			out = append(out, fmt.Sprintf("%d:%d", p, next))
		}
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}

// ask has the owners do it; if there are none, it becomes the owner.
func (t *tools) ask(ctx context.Context, how replaying, op uuid.UUID, missing []wanting, results []replayed) error {
	orders, err := replay.Look(ctx, t.cfg.Kafka.Options(t.log), t.cfg.Kafka.Control)
	if err != nil {
		return err
	}
	spread := map[int32]bool{}
	var offsets int64
	for _, m := range missing {
		spread[m.Partition] = true
		offsets += m.To - m.From
		if p, paused := orders.Pauses[m.Partition]; paused {
			return fmt.Errorf("partition %d is %s; nothing is written there until \"consumer resume --partitions %d\"", m.Partition, p, m.Partition)
		}
	}
	var requests []replay.Request
	for i, m := range missing {
		requests = append(requests, replay.Request{
			Run: uuid.NewSHA1(op, fmt.Append(nil, i)), Operation: op, TopicID: m.TopicID, Partition: m.Partition, From: m.From, To: m.To,
			Filter: how.filter, Rate: how.rate / float64(len(spread)), By: who(), At: time.Now().UTC(),
		})
	}
	ctx, done, err := t.owned(ctx)
	if err != nil {
		return err
	}
	bar := t.progress(offsets, "write")
	at, written := map[uuid.UUID]int64{}, map[uuid.UUID]int{}
	silent := time.AfterFunc(silence, func() { fmt.Fprintln(t.err, "no owner has answered yet; \"consumer status\" shows what holds them up") })
	err = replay.Ask(ctx, t.cfg.Kafka.Options(t.log), t.cfg.Kafka.Control, requests, func(p replay.Progress) {
		silent.Reset(silence)
		if p.Error != "" {
			fmt.Fprintf(t.err, "partition %d: %s; it recovers and goes on\n", p.Partition, p.Error)
			return
		}
		from := at[p.Run]
		if from == 0 {
			from = requests[slices.IndexFunc(requests, func(r replay.Request) bool { return r.Run == p.Run })].From
		}
		bar.Add64(max(p.Next-from, 0)) //nolint:errcheck // a bar that can't be drawn is no fault
		at[p.Run] = p.Next
		for i := range results {
			if results[i].Partition == p.Partition { // an owner that took over counts from where it began
				results[i].Written += max(p.Written+p.Journaled-written[p.Run], 0)
			}
		}
		written[p.Run] = p.Written + p.Journaled
	})
	silent.Stop()
	bar.Finish() //nolint:errcheck // as above
	return done(err)
}

// silence is after how long a command says that nobody answers it.
const silence = 20 * time.Second

// owned makes sure that somebody owns the partitions: if no consumer runs, this
// process does until done is called, which passes on the error of either.
func (t *tools) owned(ctx context.Context) (owning context.Context, done func(error) error, err error) {
	var s status
	s.Topic, s.Group = t.cfg.Kafka.Topic, t.cfg.Group.ID
	if _, err := s.askGroup(ctx, t.kafka.Admin()); err != nil {
		return nil, nil, fmt.Errorf("looking for the partitions' owners: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	owned := make(chan error, 1)
	if len(s.Members) == 0 {
		fmt.Fprintln(t.err, "no consumer runs: joining the group to do it here")
		go func() {
			err := consume(ctx, t.cfg, t.log, unregistered())
			if err != nil {
				cancel()
			}
			owned <- err
		}()
	} else {
		owned <- nil
	}
	return ctx, func(err error) error {
		ended := ctx.Err() != nil
		cancel()
		if own := <-owned; own != nil {
			return errors.Join(own, dropCanceled(err))
		}
		if ended && err == nil {
			return nil
		}
		return err
	}, nil
}

func dropCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// confirm asks the person at the terminal; where there is none, it is taken for
// granted.
func (t *tools) confirm(question string) bool {
	if !term.IsTerminal(int(os.Stdin.Fd())) || !t.terminal() {
		return true
	}
	fmt.Fprintf(t.err, "%s [y/N] ", question)
	answer, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	return strings.EqualFold(strings.TrimSpace(answer), "y")
}

func (t *tools) terminal() bool {
	file, ok := t.err.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// progress is a bar over so many records, with their rate and the time that
// remains, drawn only on a terminal.
func (t *tools) progress(n int64, what string) *progressbar.ProgressBar {
	return progressbar.NewOptions64(n,
		progressbar.OptionSetDescription(what), progressbar.OptionSetWriter(t.err),
		progressbar.OptionSetVisibility(t.terminal()), progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetPredictTime(true),
		progressbar.OptionSetItsString("records"), progressbar.OptionClearOnFinish())
}

func count[T any](all []T, n func(T) int) int {
	sum := 0
	for _, x := range all {
		sum += n(x)
	}
	return sum
}
