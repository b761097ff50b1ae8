package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/consumer/internal/kafka"
	"sluice/consumer/internal/monitor"
	"sluice/consumer/internal/store"
	"sluice/consumer/internal/watermark"
	"sluice/deploy/service"
	"sluice/schemas/topic"
)

// prover is what proves up to when the data is whole, in the service. One member
// of the group is enough: the one that has partition 0.
type prover struct {
	run  func()
	mine *atomic.Int32
}

// owns says that this process has partition p until the function it returns.
func (p prover) owns(partition int32) (gone func()) {
	if partition != 0 {
		return func() {}
	}
	p.mine.Add(1)
	return func() { p.mine.Add(-1) }
}

func proving(ctx context.Context, cfg config, opts []kgo.Opt, k *kafka.Log, st *store.Store, mon *monitor.Monitor, log *slog.Logger) (prover, func(), error) {
	client, err := kgo.NewClient(append(opts[:len(opts):len(opts)], kgo.ConsumeTopics(cfg.Kafka.Control), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	if err != nil {
		return prover{}, nil, fmt.Errorf("control topic: %w", err)
	}
	mine := &atomic.Int32{}
	edges := watermark.NewEdges()
	p := watermark.NewProver(watermark.Config{
		Mine: func() bool { return mine.Load() > 0 },
		Tell: func(ctx context.Context, c topic.Completeness) error {
			key, value, err := c.Record()
			if err != nil {
				return err
			}
			return client.ProduceSync(ctx, &kgo.Record{Topic: cfg.Kafka.Control, Key: key, Value: value}).FirstErr()
		},
	}, edges, k, watermark.Tables{Store: st}, mon.Registerer(), log)
	run := func() {
		read := make(chan struct{})
		var both sync.WaitGroup
		both.Go(func() { edges.Follow(ctx, client, cfg.Kafka.Control, read, log) })
		both.Go(func() { p.Run(ctx, read) })
		both.Wait()
	}
	return prover{run, mine}, func() { p.Close(); client.Close() }, nil
}

// edgesReport is what edges list says.
type edgesReport struct {
	// CompleteThrough is absent while nothing is proved.
	CompleteThrough *time.Time `json:"complete_through,omitempty"`
	// HeldBy is the edge whose mark is the least.
	HeldBy string       `json:"held_by,omitempty"`
	Edges  []edgeStatus `json:"edges"`
}

type edgeStatus struct {
	topic.Watermark
	// SilentSeconds is since the edge last spoke, by this machine's clock.
	SilentSeconds float64 `json:"silent_seconds"`
	// AheadSeconds is how far its clock is ahead of this machine's, at the least: what
	// it said last bears a time to come.
	AheadSeconds float64 `json:"ahead_seconds,omitempty"`
}

func edgesCommand() *cobra.Command {
	edges := &cobra.Command{
		Use:   "edges",
		Short: "What the edges say of themselves, and what holds complete_through back",
	}
	edges.AddCommand(edgesListCommand(), edgesRetireCommand())
	return edges
}

func edgesListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the edges with their low-water marks",
		Long: `list shows what every edge said last in the control topic: up to when whatever it
accepted has reached the log, how many records are on its disk, and since when it
has been silent. The edge whose mark is the least holds complete_through back.

Exit status: 0 listed, 2 Kafka or ClickHouse did not answer.`,
		Example: "  consumer edges list --json",
		Args:    cobra.NoArgs,
		RunE: comparing(func(cmd *cobra.Command, t *tools) error {
			known, err := watermark.Read(cmd.Context(), t.cfg.Kafka.Options(t.log), t.cfg.Kafka.Control, t.log)
			if err != nil {
				return err
			}
			r := edgesReport{Edges: []edgeStatus{}}
			for _, w := range known.All() {
				silent := time.Since(w.At).Seconds()
				r.Edges = append(r.Edges, edgeStatus{w, max(silent, 0), max(-silent, 0)})
			}
			if b, live, ok := known.Bound(); ok && live > 0 {
				r.HeldBy = b.Edge
			}
			var n uint64
			var at time.Time
			if err := t.store.Conn().QueryRow(cmd.Context(), "SELECT count(), max(complete_through) FROM completeness").Scan(&n, &at); err != nil {
				return fmt.Errorf("up to when the data is whole: %w", err)
			}
			if n > 0 {
				r.CompleteThrough = &at
			}
			return r.write(cmd.OutOrStdout(), asJSON)
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it as one line of JSON")
	return cmd
}

func (r edgesReport) write(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(r)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "EDGE\tLOW WATER\tSPOOLED\tSILENT\tSTATE")
	for _, e := range r.Edges {
		state := "live"
		switch {
		case e.Retired:
			state = "retired"
		case e.Edge == r.HeldBy:
			state = "live, holds complete_through"
		}
		if e.AheadSeconds >= 1 {
			state += fmt.Sprintf(", its clock is %s ahead", time.Duration(e.AheadSeconds*float64(time.Second)).Round(time.Second))
		}
		silent := time.Duration(e.SilentSeconds * float64(time.Second)).Round(time.Second)
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%s\n", e.Edge, e.LowWater.UTC().Format("2006-01-02T15:04:05.000Z"), e.Spooled, silent, state)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	through := "nothing is proved yet"
	if r.CompleteThrough != nil {
		through = r.CompleteThrough.UTC().Format("2006-01-02T15:04:05.000Z")
	}
	_, err := fmt.Fprintf(w, "\ncomplete through: %s\n", through)
	return err
}

func edgesRetireCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "retire EDGE",
		Short: "Say that an edge is gone for good, so that it holds nothing back",
		Long: `retire says in an edge's place that it is gone. Do it when its machine or its disk
will not come back. Events that it had accepted and not delivered are lost with
it, and complete_through no longer waits for them. An edge that comes back after
all counts again as soon as it speaks.

Exit status: 0 done, 1 refused: there is no such edge, it is retired already, or
--yes is missing, 2 Kafka did not answer.`,
		Example: "  consumer edges retire edge-7 --yes",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := load(cmd)
			if err != nil {
				return err
			}
			log, err := service.NewLogger(cmd.ErrOrStderr(), cfg.Log)
			if err != nil {
				return err
			}
			return retireEdge(cmd.Context(), cfg, args[0], yes, cmd.OutOrStdout(), log)
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	return cmd
}

func retireEdge(ctx context.Context, cfg config, name string, yes bool, out io.Writer, log *slog.Logger) error {
	opts := cfg.Kafka.Options(log)
	known, err := watermark.Read(ctx, opts, cfg.Kafka.Control, log)
	if err != nil {
		return err
	}
	for _, w := range known.All() {
		switch {
		case w.Edge != name:
			continue
		case w.Retired:
			return exitError{1, fmt.Errorf("the edge %q is retired already", name)}
		case !yes:
			return exitError{1, fmt.Errorf("the edge %q said %s ago that %d records are on its disk; they are not waited for any more if it is retired: say --yes to do it",
				name, time.Since(w.At).Round(time.Second), w.Spooled)}
		}
		client, err := kgo.NewClient(opts...)
		if err != nil {
			return fmt.Errorf("control topic: %w", err)
		}
		defer client.Close()
		if err := watermark.Retire(ctx, client, cfg.Kafka.Control, w, time.Now()); err != nil {
			return err
		}
		_, err = fmt.Fprintf(out, "the edge %q is retired\n", name)
		return err
	}
	return exitError{1, fmt.Errorf("no edge %q has ever spoken (\"consumer edges list\" names those that have)", name)}
}
