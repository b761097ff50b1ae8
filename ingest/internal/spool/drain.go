package spool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/ingest/internal/delivery"
	"sluice/schemas/topic"
)

const (
	// chunkBytes is about how much is sent to the log at a time.
	chunkBytes = 1 << 20
	// refusals is how often the log must refuse a record that is sent alone
	// before it is set aside.
	refusals = 3
	retry    = time.Second
)

// Run brings what is spooled to the log, oldest first, from the announcement of
// this edge until ctx ends; it returns
// once what it has sent is settled, at the latest when the log's client closes.
func (s *Spool) Run(ctx context.Context) {
	var tending sync.WaitGroup
	tending.Go(func() { s.store.tend(ctx) })
	defer tending.Wait()
	select {
	case <-ctx.Done():
		return
	case <-s.announced:
	}
	for ctx.Err() == nil {
		c, err := s.store.Next(chunkBytes)
		switch {
		case err != nil:
			s.logger.Error("the spool can't be read; trying again", "error", err)
			wait(ctx, retry)
		case c == nil:
			select {
			case <-ctx.Done():
			case <-s.store.more:
			}
		default:
			s.send(ctx, c)
		}
	}
}

// send brings one chunk to the log, and lets go of it when all of it is there or
// set aside. Otherwise the same chunk comes again.
func (s *Spool) send(ctx context.Context, c *Chunk) {
	if !s.pace(ctx, int(c.Bytes)) {
		return
	}
	begin := time.Now()
	sent := make([]*kgo.Record, len(c.Records))
	for i, r := range c.Records {
		r.Timestamp = s.notBefore(r.Timestamp)
		sent[i] = renewed(r, begin)
	}
	errs := s.log.Deliver(sent)
	if errs != nil {
		if err := s.oneByOne(ctx, c, errs); err != nil {
			if ctx.Err() == nil && !errors.Is(err, kgo.ErrClientClosed) && !errors.Is(err, delivery.ErrStopped) {
				s.complain(err)
				wait(ctx, retry)
			}
			return
		}
	}
	now := time.Now()
	s.complaint = ""
	s.speed.add(now, c.Bytes)
	s.lastAck.Store(int64(now.Sub(s.begun)))
	if err := s.store.Ack(c); err != nil {
		s.logger.Warn("the spool could not note what the log has; after a crash it is sent again", "error", err)
	}
	if errs == nil && now.Sub(begin) <= s.cfg.After {
		s.mend()
	}
}

// oldAfter is from what age on a record gets a new timestamp.
const oldAfter = time.Hour

// renewed is r with the timestamp of now, if r has waited for long: a log counts the
// age of what it keeps by timestamps, and could delete an old one before it is read.
// When it was received stands in a header, which the consumer goes by. r itself stays
// as the disk has it.
func renewed(r *kgo.Record, now time.Time) *kgo.Record {
	if now.Sub(r.Timestamp) < oldAfter {
		return r
	}
	c := *r
	c.Timestamp = now
	c.Headers = append(slices.Clip(r.Headers), kgo.RecordHeader{Key: topic.HeaderReceivedAt, Value: []byte(r.Timestamp.UTC().Format(topic.TimeFormat))})
	return &c
}

// complain logs err, once until the log has taken something or err is another.
func (s *Spool) complain(err error) {
	if text := err.Error(); text != s.complaint {
		s.complaint = text
		s.logger.Warn("the log does not take what is spooled; trying again every second", "error", err)
	}
}

// pace waits until n bytes may be sent. It tells whether to send.
func (s *Spool) pace(ctx context.Context, n int) bool {
	select {
	case <-s.finish: // the edge stops: what can be brought to the log is
		return ctx.Err() == nil
	default:
	}
	bounded, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-s.finish:
			cancel()
		case <-bounded.Done():
		}
	}()
	err := s.limit.WaitN(bounded, min(n, s.limit.Burst()))
	return err == nil || ctx.Err() == nil
}

// oneByOne sends again, alone and in order, the records of a chunk that were not
// acknowledged, and those of their keys that follow them. One that is refused
// even so is set aside.
func (s *Spool) oneByOne(ctx context.Context, c *Chunk, errs []error) error {
	again := map[string]bool{}
	for i, r := range c.Records {
		if s.store.aside(c, i) || errs[i] == nil && !again[string(r.Key)] {
			continue
		}
		again[string(r.Key)] = true
		if err := s.alone(ctx, c, i); err != nil {
			return err
		}
	}
	return nil
}

// alone sends the chunk's record i until it is acknowledged or set aside. An
// error means that it is neither: the state of the log, which can change.
func (s *Spool) alone(ctx context.Context, c *Chunk, i int) error {
	r := renewed(c.Records[i], time.Now())
	for tries := 1; ; tries++ {
		errs := s.log.Deliver([]*kgo.Record{r})
		if errs == nil {
			return nil
		}
		err := errs[0]
		if !refusal(err) {
			return err
		}
		if delivery.Permanent(err) || tries == refusals {
			if r == c.Records[i] {
				return s.refuse(c, i, err)
			}
			r, tries = c.Records[i], 0 // it may have been the header too much
		}
		if !wait(ctx, retry/10) {
			return ctx.Err()
		}
	}
}

func (s *Spool) refuse(c *Chunk, i int, reason error) error {
	if err := s.store.SetAside(c, i, reason); err != nil {
		return fmt.Errorf("%w (the log refuses the record: %w)", err, reason)
	}
	s.logger.Error("the log refuses a spooled record for good; it is set aside", "reason", reason, "file", refusedFile, "dir", s.cfg.Dir)
	return nil
}

// finishPatience is how long Finish waits for a log that takes nothing.
const finishPatience = time.Second

// Finish drains what is left, as fast as the log takes it, until nothing is left,
// ctx ends or the log takes nothing for a second. No Send may be under way or
// come. It returns how many records stay in the spool, which the next start
// brings to the log.
func (s *Spool) Finish(ctx context.Context) int {
	close(s.finish)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	begin := time.Now()
	for {
		left := s.store.Status().Records
		if left == 0 {
			return 0
		}
		if time.Since(begin) > finishPatience && s.sinceAck() > finishPatience {
			return left
		}
		select {
		case <-ctx.Done():
			return left
		case <-tick.C:
		}
	}
}

// wait waits for d, and tells whether ctx lasted.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
