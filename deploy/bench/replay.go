package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	replayRecords = 2_000_000
	replayPosts   = 20 * time.Second
	verifyRecords = 10_000_000
	replayBound   = 10 * time.Minute
	// liveExpected is for how long, and a little, owners expect others after a live record.
	liveExpected = 6 * time.Second
)

// ran is one run of a consumer's command.
type ran struct {
	took time.Duration
	cpu  time.Duration
	peak int // resident memory, in bytes
	out  []byte
}

// timed runs one of the consumer's commands to its end.
func (s *stack) timed(args ...string) (r ran, err error) {
	ctx, cancel := context.WithTimeout(s.ctx, replayBound)
	defer cancel()
	cmd := command(filepath.Join(s.bin, "consumer"), args, s.consumerEnv())
	words, err := os.Create(filepath.Join(s.dir, "timed.log"))
	if err != nil {
		return r, err
	}
	defer words.Close()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, words
	begun := time.Now()
	if err := s.spawner.Start(cmd); err != nil {
		return r, err
	}
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })()
	if err := cmd.Wait(); err != nil {
		return r, fmt.Errorf("consumer %v: %w: %s", args, err, lastWords(words.Name()))
	}
	r.took, r.out = time.Since(begun), out.Bytes()
	if used, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		r.peak = int(used.Maxrss) << 10
	}
	r.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return r, nil
}

// written is how the live consumer wrote a topic.
type written struct {
	rate        float64       // records a second
	most        int           // the most memory it had, in bytes
	cpu, engine time.Duration // taken by it and by ClickHouse
}

// filled is a topic of so many records, every twentieth a repeat, and how the live
// consumer wrote it.
func (s *stack) filled(total int) (m *member, w written, err error) {
	base, step := time.Now().Add(-6*time.Hour).Truncate(time.Second), 6*time.Hour/time.Duration(2*total)
	if err := s.fill(total, func(n int) *kgo.Record {
		which := original(n)
		return s.sample.record(which, base.Add(time.Duration(which)*step), time.Time{}, s.partitions)
	}); err != nil {
		return nil, w, err
	}
	if m, err = s.consume(1); err != nil {
		return nil, w, err
	}
	if err := s.balanced(); err != nil {
		return nil, w, err
	}
	stop := m.peak()
	defer stop()
	before, err := s.reading()
	if err != nil {
		return nil, w, err
	}
	if err := s.drained(total, replayBound); err != nil {
		return nil, w, err
	}
	after, err := s.reading()
	return m, written{
		float64(after.journaled()-before.journaled()) / after.at.Sub(before.at).Seconds(), stop(),
		after.cpu - before.cpu, after.engine - before.engine,
	}, err
}

// diffed is the sum of a replay's answer.
type diffed struct{ Records, Present, Missing, Written int }

func (r ran) diffed() (sum diffed, err error) {
	lines := bufio.NewScanner(bytes.NewReader(r.out))
	for lines.Scan() {
		var d diffed
		if err := json.Unmarshal(lines.Bytes(), &d); err != nil {
			return sum, fmt.Errorf("%q: %w", lines.Bytes(), err)
		}
		sum.Records += d.Records
		sum.Present += d.Present
		sum.Missing += d.Missing
		sum.Written += d.Written
	}
	return sum, lines.Err()
}

// empty takes all rows, as a lost table does.
func (s *stack) empty() error { return s.conn.Exec(s.ctx, "TRUNCATE TABLE event_log") }

// replay has a diff made where nothing is missing, and everything written again
// that was lost, of two sizes; and then looks at what posts notice of it.
func replay(ctx context.Context, b *bench) (*table, error) {
	const mib = 1 << 20
	t := newTable(
		column{"what", "", "%s"}, column{"records", "records", "%d"}, column{"took_seconds", "took", "%v"}, column{"records_per_second", "records/s", "%.0f"},
		column{"live_ratio", "of the live rate", "%.2f"}, column{"peak_bytes", "the command's peak, MiB", "%d"}, column{"consumer_bytes", "the consumer's", "%d"},
		column{"engine_cpu_seconds", "CPU of ClickHouse", "%v"}, column{"consumer_cpu_seconds", "of the consumer", "%v"}, column{"command_cpu_seconds", "of the command", "%v"},
		column{"p99_seconds", "posted to queryable P99", "%v"}, column{"p99_ratio", "ratio", "%.2f"},
	)
	t.note("One consumer, %d partitions, every twentieth record a repeat. \"diff\" is replay --from earliest --dry-run with nothing missing; \"lost table\" is the same without --dry-run after TRUNCATE TABLE event_log, %v after the last live record. Times are the whole command's, its start included.", freshPartitions, liveExpected)
	for i, size := range []int{b.cfg.count(replayRecords) / 4, b.cfg.count(replayRecords)} {
		if err := b.replayed(ctx, t, size, i == 1, mib); err != nil {
			return t, err
		}
	}
	return t, nil
}

func (b *bench) replayed(ctx context.Context, t *table, size int, posts bool, mib int) (err error) {
	s, err := b.start(ctx, freshPartitions)
	defer func() { err = errors.Join(err, s.stop()) }()
	if err != nil {
		return err
	}
	b.say("replay: %d records", size)
	m, live, err := s.filled(size)
	if err != nil {
		return err
	}
	t.add("live", size, time.Duration(float64(size)/live.rate*float64(time.Second)), live.rate, 1.0, nil, live.most/mib, live.engine, live.cpu, nil, nil, nil)
	diff := func(name string, missing bool, args ...string) error {
		b.say("replay: %s", name)
		stop := m.peak()
		defer stop()
		before, err := s.reading()
		if err != nil {
			return err
		}
		profiled := b.profile(s.ctx, m.admin, fmt.Sprintf("replay-%s-%d", name, size), 10*time.Second)
		r, err := s.timed(append([]string{"replay", "--from", "earliest", "--json", "--findings", filepath.Join(s.dir, name)}, args...)...)
		if err = errors.Join(err, <-profiled); err != nil {
			return err
		}
		sum, err := r.diffed()
		if err != nil {
			return err
		}
		if sum.Records != size || (sum.Missing > 0) != missing || sum.Written != sum.Missing && args == nil {
			return fmt.Errorf("%s: %+v of %d records", name, sum, size)
		}
		after, err := s.reading()
		if err != nil {
			return err
		}
		rate := float64(size) / r.took.Seconds()
		t.add(name, size, r.took, rate, rate/live.rate, r.peak/mib, stop()/mib, after.engine-before.engine, after.cpu-before.cpu, r.cpu, nil, nil)
		return nil
	}
	if err := diff("diff", false, "--dry-run"); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(liveExpected): // or an owner would take small steps, as beside live records
	}
	if err := errors.Join(s.empty(), diff("lost table", true, "--yes")); err != nil || !posts {
		return err
	}
	return b.postsBeside(s, t)
}

// postsBeside measures posts alone, and posts while a lost table comes back.
func (b *bench) postsBeside(s *stack, t *table) error {
	if err := s.ingest(); err != nil {
		return err
	}
	lasting := max(replayPosts, b.cfg.lasting(replayPosts)) // of fewer posts, P99 is one moment's
	b.say("replay: %d posts a second, nothing beside them", freshRate)
	alone, err := s.posted(time.Now(), lasting)
	if err != nil {
		return err
	}
	before := quantile(alone.queryable, 0.99)
	t.add("posts alone", len(alone.queryable), lasting, float64(freshRate), nil, nil, nil, nil, nil, nil, before, 1.0)
	if err := s.empty(); err != nil {
		return err
	}
	b.say("replay: %d posts a second beside a replay", freshRate)
	type ending struct {
		ran
		err error
		at  time.Time
	}
	ended := make(chan ending, 1)
	begun := time.Now()
	go func() {
		r, err := s.timed("replay", "--from", "earliest", "--json", "--yes", "--findings", filepath.Join(s.dir, "beside"))
		ended <- ending{r, err, time.Now()}
	}()
	beside, err := s.posted(time.Now(), lasting)
	through := time.Now()
	e := <-ended
	if err = errors.Join(err, e.err); err != nil {
		return err
	}
	after := quantile(beside.queryable, 0.99)
	t.add("posts beside it", len(beside.queryable), e.took, nil, nil, e.peak/(1<<20), nil, nil, nil, e.cpu, after, float64(after)/float64(before))
	t.note("Posts beside a replay: %d a second for %v; the replay ended %v after the posts began, they %v after.", freshRate, lasting, e.at.Sub(begun).Round(100*time.Millisecond), through.Sub(begun).Round(100*time.Millisecond))
	return nil
}

// peak looks at a program's memory until it is asked, and again, for the most.
func (m *member) peak() func() int {
	enough, most := make(chan struct{}), make(chan int, 1)
	go func() {
		var rss []int
		ticker := time.NewTicker(memoryEvery)
		defer ticker.Stop()
		for {
			if _, now, err := m.used(); err == nil {
				rss = append(rss, now)
			}
			select {
			case <-enough:
				most <- slices.Max(append(rss, 0))
				return
			case <-ticker.C:
			}
		}
	}()
	found := -1
	return func() int {
		if found < 0 {
			close(enough)
			found = <-most
		}
		return found
	}
}

// verify compares a large log with its rows.
func verify(ctx context.Context, b *bench) (t *table, err error) {
	s, err := b.start(ctx, freshPartitions)
	defer func() { err = errors.Join(err, s.stop()) }()
	if err != nil {
		return nil, err
	}
	total := b.cfg.count(verifyRecords)
	b.say("verify: filling with %d records", total)
	_, live, err := s.filled(total)
	if err != nil {
		return nil, err
	}
	b.say("verify: comparing")
	r, err := s.timed("verify", "--json")
	if err != nil {
		return nil, err
	}
	t = newTable(
		column{"records", "records", "%d"}, column{"took_seconds", "took", "%v"}, column{"records_per_second", "records/s", "%.0f"},
		column{"live_ratio", "of the live rate", "%.2f"}, column{"peak_bytes", "peak (MiB)", "%d"},
	)
	rate := float64(total) / r.took.Seconds()
	t.add(total, r.took, rate, rate/live.rate, r.peak/(1<<20))
	t.note("%s", bytes.TrimSpace(r.out))
	return t, nil
}
