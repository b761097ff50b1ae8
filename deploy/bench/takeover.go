package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

const (
	takeoverPartitions = 12
	takeoverMembers    = 3
	takeoverRate       = 2000
	// classicSession is the consumer's default of group.session_timeout, set
	// here so that it is known.
	classicSession = 10 * time.Second
	// movesEvery is how often the survivors are asked.
	movesEvery = 20 * time.Millisecond
)

// takeover kills one of three consumers again and again, in each group protocol.
func takeover(ctx context.Context, b *bench) (*table, error) {
	t := newTable(
		column{"protocol", "group.protocol", "%s"}, column{"session_seconds", "session timeout in force", "%v"}, column{"how", "ended by", "%s"},
		column{"times", "times", "%d"}, column{"first_seconds", "first partition, median", "%v"}, column{"last_seconds", "last, median", "%v"},
		column{"least_seconds", "last, least", "%v"}, column{"most_seconds", "most", "%v"}, column{"joined_seconds", "joins again within", "%v"},
	)
	for _, protocol := range b.cfg.protocols {
		if err := takeoverOf(ctx, b, t, protocol); err != nil {
			return t, fmt.Errorf("group.protocol %s: %w", protocol, err)
		}
	}
	t.note("From the end of the process to the first batch that a survivor journals, of the first and of the last of its %d partitions; %d records a second go on all the time.",
		takeoverPartitions/takeoverMembers, takeoverRate)
	t.note("SIGKILL: the broker waits for the session's end. SIGTERM: the member finishes its batches and leaves.")
	return t, nil
}

func takeoverOf(ctx context.Context, b *bench, t *table, protocol string) (err error) {
	s, err := b.start(ctx, takeoverPartitions, "SLUICE_GROUP_PROTOCOL="+protocol, "SLUICE_GROUP_SESSION_TIMEOUT="+classicSession.String())
	defer func() { err = errors.Join(err, s.stop()) }()
	if err != nil {
		return err
	}
	session := classicSession
	if protocol == "broker" {
		if session, err = s.brokerSession(); err != nil {
			return err
		}
	}
	if err := s.consumeAll(takeoverMembers); err != nil {
		return err
	}
	out, sent := &sending{client: s.client}, 0
	producing, enough := context.WithCancel(s.ctx)
	var produced sync.WaitGroup
	base := time.Now()
	produced.Go(func() {
		sent, _, _ = paced(producing, takeoverRate, time.Hour, func(n int, due time.Time) { // it ends by its context
			out.send(s.ctx, b.sample.record(n, base.Add(time.Duration(n)*time.Microsecond), due, takeoverPartitions))
		})
	})
	defer produced.Wait()
	defer enough()
	for _, how := range []string{"SIGKILL", "SIGTERM"} {
		var first, last, joins []time.Duration
		for k := range b.cfg.kills {
			victim := k%takeoverMembers + 1
			b.say("takeover: %s, %s of consumer %d", protocol, how, victim)
			f, l, err := s.endOne(victim, how == "SIGKILL")
			if err != nil {
				return err
			}
			first, last = append(first, f), append(last, l)
			began := time.Now()
			if _, err := s.consume(victim); err != nil {
				return err
			}
			if err := s.balanced(); err != nil {
				return err
			}
			joins = append(joins, time.Since(began))
		}
		slices.Sort(first)
		slices.Sort(last)
		slices.Sort(joins)
		t.add(protocol, session, how, len(last), quantile(first, 0.5), quantile(last, 0.5), last[0], last[len(last)-1], joins[len(joins)-1])
	}
	enough()
	produced.Wait()
	if err := out.settle(s.ctx); err != nil {
		return err
	}
	return errors.Join(s.drained(sent, drainBound), s.holds(sent))
}

// endOne ends a consumer and waits until each of its partitions has moved on
// elsewhere. It returns how long the first and the last of them took.
func (s *stack) endOne(victim int, kill bool) (first, last time.Duration, err error) {
	f, err := s.figures()
	if err != nil {
		return 0, 0, err
	}
	m, left := s.consumers[victim], f.ends[victim]
	if len(left) == 0 {
		return 0, 0, fmt.Errorf("%s owns nothing that moves", m.name)
	}
	s.gone(victim)
	began := time.Now()
	if kill {
		m.kill()
	} else {
		go m.stop(startBound)
		defer func() { <-m.exited }()
	}
	err = s.await("its partitions", func(context.Context) error {
		for len(left) > 0 {
			f, err := s.figures()
			if err != nil {
				return err
			}
			for _, ends := range f.ends {
				for p, end := range ends {
					if _, his := left[p]; his && end >= 0 {
						last = time.Since(began)
						if first == 0 {
							first = last
						}
						delete(left, p)
					}
				}
			}
			select {
			case <-s.ctx.Done():
				return context.Cause(s.ctx)
			case <-time.After(movesEvery):
			}
			if time.Since(began) > startBound {
				return fmt.Errorf("%d of them do not move", len(left))
			}
		}
		return nil
	})
	return first, last, err
}

// brokerSession asks the brokers how long they wait for a silent member.
func (s *stack) brokerSession() (time.Duration, error) {
	admin := kadm.NewClient(s.client)
	brokers, err := admin.ListBrokers(s.ctx)
	if err != nil {
		return 0, err
	}
	all, err := admin.DescribeBrokerConfigs(s.ctx, brokers.NodeIDs()...)
	if err != nil {
		return 0, err
	}
	for _, broker := range all {
		for _, c := range broker.Configs {
			if c.Key == sessionSetting && c.Value != nil {
				return time.ParseDuration(*c.Value + "ms")
			}
		}
	}
	return 0, fmt.Errorf("the broker does not tell its %s", sessionSetting)
}
