package main

import (
	"context"
	"errors"
	"fmt"
)

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
