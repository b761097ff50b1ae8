package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"sluice/consumer/internal/kafka"
	"sluice/consumer/internal/store"
	"sluice/consumer/internal/verify"
	"sluice/deploy/service"
	"sluice/schemas/topic"
)

// tools is what the commands that compare need.
type tools struct {
	cfg   config
	log   *slog.Logger
	kafka *kafka.Log
	store *store.Store
	err   io.Writer

	verifying verifying
}

// comparing makes the body of a command out of run, to which it gives the
// tools. An error exits with 2 (it could not be told, or done) unless it brings
// a status of its own.
func comparing(run func(cmd *cobra.Command, t *tools) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		cfg, err := load(cmd)
		if err != nil {
			return exitError{2, err}
		}
		t, err := openTools(cmd, cfg)
		if err != nil {
			return exitError{2, err}
		}
		defer t.close()
		err = run(cmd, t)
		if exit := (exitError{}); err == nil || errors.As(err, &exit) {
			return err
		}
		return exitError{2, err}
	}
}

func openTools(cmd *cobra.Command, cfg config) (*tools, error) {
	if cfg.Log.Level == "info" {
		cfg.Log.Level = "error" // commands speak for themselves
	}
	log, err := service.NewLogger(cmd.ErrOrStderr(), cfg.Log)
	if err != nil {
		return nil, err
	}
	k, err := kafka.New(cfg.Kafka.Options(log), kafka.Names{Topic: cfg.Kafka.Topic, DeadLetters: cfg.Kafka.DeadLetters, Group: cfg.Group.ID})
	if err != nil {
		return nil, err
	}
	st, err := store.Open(cfg.ClickHouse.DSN)
	if err != nil {
		k.Close()
		return nil, err
	}
	return &tools{cfg: cfg, log: log, kafka: k, store: st, err: cmd.ErrOrStderr()}, nil
}

func (t *tools) close() {
	t.kafka.Close()
	t.store.Close() //nolint:errcheck // nothing was left to be written
}

// partitions are the topic's, with the bounds of the log as they are now.
func (t *tools) partitions(ctx context.Context) ([]verify.Range, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second) // a broker that is away must not hang a command
	defer cancel()
	id, count, err := t.kafka.Topic(ctx)
	if err != nil {
		return nil, err
	}
	counts, err := verify.ClickHouse{Conn: t.store.Conn()}.Counts(ctx, id)
	if err != nil {
		return nil, err
	}
	out := make([]verify.Range, count)
	for p := range count {
		r := verify.Range{Self: topic.Origin{TopicID: id, Partition: p}, Partitions: count, Counts: counts}
		if r.From, r.To, err = t.kafka.Bounds(ctx, p); err != nil {
			return nil, err
		}
		if r.Segments, err = t.segments(ctx, r.Self); err != nil {
			return nil, err
		}
		out[p] = r
	}
	return out, nil
}

// segments are the log ids that a partition's offsets belong to: after a cut the
// log goes on under another. A later cut may lie before an earlier one.
func (t *tools) segments(ctx context.Context, self topic.Origin) ([]verify.Segment, error) {
	out := []verify.Segment{{LogID: self.TopicID}}
	cuts, err := t.store.Cuts(ctx, self)
	for _, c := range cuts {
		for len(out) > 1 && out[len(out)-1].From >= c.At {
			out = out[:len(out)-1]
		}
		out = append(out, verify.Segment{LogID: c.Next, From: c.At})
	}
	return out, err
}

// bar is a progress bar over ranges, drawn only on a terminal.
func (t *tools) bar(ranges []verify.Range, what string) *progressbar.ProgressBar {
	var n int64
	for _, r := range ranges {
		n += r.To - r.From
	}
	return t.progress(n, what)
}
