package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/deadletter"
	"sluice/schemas/topic"
)

// deadReasons are why there are dead letters.
var deadReasons = []string{topic.ReasonEmpty, topic.ReasonMalformed, topic.ReasonRefused, deadletter.ReasonForeign}

// choosing are the flags that choose dead letters.
type choosing struct {
	reasons, sources []string
	origins          []string
	since, until     string
}

func (c *choosing) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringSliceVar(&c.reasons, "reason", nil, "only of these reasons ("+strings.Join(deadReasons, ", ")+")")
	f.StringSliceVar(&c.sources, "source", nil, "only of these sources, as the value names them")
	f.StringSliceVar(&c.origins, "origin", nil, "only of these origins: topic id/partition/offset, or partition:offset")
	f.StringVar(&c.since, "since", "", "only records of this time (RFC 3339, or a duration ago) or later")
	f.StringVar(&c.until, "until", "", "only records of before this time")
}

func (c *choosing) choice(ctx context.Context, t *tools) (deadletter.Choice, error) {
	out := deadletter.Choice{Reasons: c.reasons, Sources: c.sources}
	for _, r := range c.reasons {
		if !slices.Contains(deadReasons, r) {
			return out, usage("--reason %s: want some of %s", r, strings.Join(deadReasons, ", "))
		}
	}
	var err error
	if len(c.origins) > 0 {
		id, _, err := t.kafka.Topic(ctx)
		if err != nil {
			return out, err
		}
		if out.Origins, err = deadletter.ParseOrigins(id, c.origins); err != nil {
			return out, exitError{2, err}
		}
	}
	if c.since != "" {
		if out.Since, err = moment("--since", c.since); err != nil {
			return out, err
		}
	}
	if c.until != "" {
		if out.Until, err = moment("--until", c.until); err != nil {
			return out, err
		}
	}
	return out, nil
}

func dlqCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dlq",
		Short: "Look at dead letters, put them through, or discard them",
		Long: `A record that can't become a row goes to the dead-letter topic as it came, with the
reason and where it came from. Nothing leaves that topic: what is done with a
letter is written beside it, in the table operations.`,
	}
	cmd.AddCommand(dlqListCommand(), dlqShowCommand(), dlqStatsCommand(), dlqRedriveCommand(), dlqDiscardCommand())
	return cmd
}

// letter is a dead letter as list and show print it.
type letter struct {
	Origin    string           `json:"origin"`
	Partition int32            `json:"partition"`
	Offset    int64            `json:"offset"`
	Reason    string           `json:"reason"`
	Detail    string           `json:"detail"`
	Source    string           `json:"source"`
	Time      time.Time        `json:"time"`
	Bytes     int              `json:"bytes"`
	Fate      *deadletter.Fate `json:"fate,omitempty"`
}

func letterOf(l deadletter.Letter, settled map[topic.Origin]deadletter.Fate) letter {
	out := letter{
		Origin: l.Origin.String(), Partition: l.Origin.Partition, Offset: l.Origin.Offset, Reason: l.Reason, Detail: l.Detail,
		Source: l.Source(), Time: l.Time.UTC(), Bytes: len(l.Value),
	}
	if f, ok := settled[l.Origin]; ok {
		out.Fate = &f
	}
	return out
}

// letters calls each for the letters that are chosen, decoded by today's rules.
func (t *tools) letters(ctx context.Context, c deadletter.Choice, each func(deadletter.Letter, *batch.Record) error) error {
	_, partitions, err := t.kafka.Topic(ctx)
	if err != nil {
		return err
	}
	decoder := batch.NewDecoder(partitions)
	return deadletter.Read(ctx, t.cfg.Kafka.Options(t.log), t.cfg.Kafka.DeadLetters, func(l deadletter.Letter) error {
		record := decoder.Decode(l.Raw())
		if !c.Takes(l, &record) {
			return nil
		}
		return each(l, &record)
	})
}

var errEnough = errors.New("enough")

func dlqListCommand() *cobra.Command {
	var c choosing
	var asJSON, all bool
	var limit int
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List dead letters that nobody has dealt with",
		Long: `list shows dead letters in the order of the dead-letter topic's partitions, without
those that were put through or discarded (--all shows them too).

Exit status: 0 shown, 2 it could not be done.`,
		Example: "  consumer dlq list --reason malformed --since 24h",
		Args:    cobra.NoArgs,
		RunE: comparing(func(cmd *cobra.Command, t *tools) error {
			choice, settled, err := t.chosen(cmd.Context(), c)
			if err != nil {
				return err
			}
			var out []letter
			more := false
			err = t.letters(cmd.Context(), choice, func(l deadletter.Letter, _ *batch.Record) error {
				x := letterOf(l, settled)
				if x.Fate != nil && !all {
					return nil
				}
				if limit > 0 && len(out) == limit {
					more = true
					return errEnough
				}
				out = append(out, x)
				return nil
			})
			if err != nil && !errors.Is(err, errEnough) {
				return err
			}
			if more {
				fmt.Fprintf(t.err, "and more: --limit shows them (0: all)\n")
			}
			return writeLetters(cmd.OutOrStdout(), out, asJSON)
		}),
	}
	c.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one line of JSON for each letter")
	cmd.Flags().BoolVar(&all, "all", false, "those that somebody dealt with too")
	cmd.Flags().IntVar(&limit, "limit", 100, "how many to show (0: all)")
	return cmd
}

func (t *tools) chosen(ctx context.Context, c choosing) (deadletter.Choice, map[topic.Origin]deadletter.Fate, error) {
	bound, cancel := context.WithTimeout(ctx, statusBound)
	defer cancel()
	choice, err := c.choice(bound, t)
	if err != nil {
		return choice, nil, err
	}
	settled, err := deadletter.Settled(bound, t.store.Conn())
	return choice, settled, err
}

func writeLetters(w io.Writer, all []letter, asJSON bool) error {
	return writeLines(w, all, asJSON, "ORIGIN\tTIME\tREASON\tSOURCE\tBYTES\tFATE\tDETAIL", func(l letter) string {
		fate := "-"
		if l.Fate != nil {
			fate = l.Fate.State
		}
		return fmt.Sprintf("%s\t%s\t%s\t%s\t%d\t%s\t%s", l.Origin, l.Time.Format(time.RFC3339), plain(l.Reason), plain(l.Source), l.Bytes, fate, plain(l.Detail))
	})
}

func dlqStatsCommand() *cobra.Command {
	var c choosing
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Count dead letters by reason, source and what was done with them",
		Long: `stats counts the dead letters of the topic by reason, source and fate.

Exit status: 0 shown, 2 it could not be done.`,
		Example: "  consumer dlq stats --json",
		Args:    cobra.NoArgs,
		RunE: comparing(func(cmd *cobra.Command, t *tools) error {
			choice, settled, err := t.chosen(cmd.Context(), c)
			if err != nil {
				return err
			}
			lines := map[[3]string]*statLine{}
			err = t.letters(cmd.Context(), choice, func(l deadletter.Letter, r *batch.Record) error {
				fate := "open"
				if f, ok := settled[l.Origin]; ok {
					fate = f.State
				}
				key := [3]string{l.Reason, l.Source(), fate}
				x := lines[key]
				if x == nil {
					x = &statLine{Reason: key[0], Source: key[1], Fate: fate, First: l.Time.UTC()}
					lines[key] = x
				}
				x.add(l, r.Reason == "")
				return nil
			})
			if err != nil {
				return err
			}
			return writeStats(cmd.OutOrStdout(), lines, asJSON)
		}),
	}
	c.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one line of JSON for each line")
	return cmd
}

// statLine is a line of stats. GoodNow are letters that today's rules would take.
type statLine struct {
	Reason  string    `json:"reason"`
	Source  string    `json:"source"`
	Fate    string    `json:"fate"`
	Letters int       `json:"letters"`
	GoodNow int       `json:"good_now"`
	Bytes   int64     `json:"bytes"`
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`
}

func (x *statLine) add(l deadletter.Letter, good bool) {
	x.Letters++
	x.Bytes += int64(len(l.Value))
	if good {
		x.GoodNow++
	}
	at := l.Time.UTC()
	if at.Before(x.First) {
		x.First = at
	}
	if at.After(x.Last) {
		x.Last = at
	}
}

func writeStats(w io.Writer, lines map[[3]string]*statLine, asJSON bool) error {
	all := slices.SortedFunc(maps.Values(lines), func(a, b *statLine) int { return b.Letters - a.Letters })
	return writeLines(w, all, asJSON, "REASON\tSOURCE\tFATE\tLETTERS\tGOOD NOW\tBYTES\tFIRST\tLAST", func(x *statLine) string {
		return fmt.Sprintf("%s\t%s\t%s\t%d\t%d\t%d\t%s\t%s", plain(x.Reason), plain(x.Source), x.Fate, x.Letters, x.GoodNow, x.Bytes, x.First.Format(time.RFC3339), x.Last.Format(time.RFC3339))
	})
}
