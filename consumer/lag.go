package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"

	"sluice/consumer/internal/verify"
)

func lagCommand() *cobra.Command {
	var asJSON bool
	var watch time.Duration
	cmd := &cobra.Command{
		Use:   "lag",
		Short: "Show how far behind ClickHouse is, how fast it catches up, and until when",
		Long: `lag shows, for every partition, how many records of the log ClickHouse does not have
yet (markers of transactions among them), the age of the oldest of them, about how
many bytes they are, and over the last --every how many records a second came in
and were written; from that, how long it takes to catch up.

Exit status: 0 shown, 2 it could not be told.`,
		Example: `  consumer lag
  consumer lag --watch 2s`,
		Args: cobra.NoArgs,
	}
	every := cmd.Flags().Duration("every", time.Second, "over how long rates are measured (0: not at all)")
	cmd.RunE = comparing(func(cmd *cobra.Command, t *tools) error {
		if *every < 0 || watch < 0 {
			return usage("--every and --watch are durations of 0 or more")
		}
		for {
			all, err := t.lag(cmd.Context(), *every)
			if err != nil {
				return err
			}
			if err := writeLag(cmd.OutOrStdout(), all, asJSON); err != nil || watch <= 0 {
				return err
			}
			select {
			case <-cmd.Context().Done():
				return nil
			case <-time.After(watch):
			}
		}
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one line of JSON for each partition")
	cmd.Flags().DurationVar(&watch, "watch", 0, "show it again after so long, until interrupted")
	return cmd
}

// lagLine is one partition's. What is not known is nil.
type lagLine struct {
	Partition  int32 `json:"partition"`
	JournalEnd int64 `json:"journal_end"`
	LogEnd     int64 `json:"log_end"`
	Records    int64 `json:"records"`
	// Seconds is the age of the oldest record that ClickHouse does not have.
	Seconds *float64 `json:"seconds"`
	// Bytes is an estimate: the partition's size on its broker, by share.
	Bytes *int64 `json:"bytes"`
	// In and Out are records a second that came and that were written.
	In  float64 `json:"in_per_second"`
	Out float64 `json:"out_per_second"`
	// CatchUpSeconds is nil while the partition falls behind or stands.
	CatchUpSeconds *float64 `json:"catch_up_seconds"`
}

func (t *tools) lag(ctx context.Context, every time.Duration) ([]lagLine, error) {
	began := time.Now()
	first, err := t.lagNow(ctx)
	if err != nil || every <= 0 {
		return first, err
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(every):
	}
	second, err := t.lagNow(ctx)
	if err != nil {
		return nil, err
	}
	took := time.Since(began).Seconds()
	for i := range second {
		if i >= len(first) {
			break
		}
		x := &second[i]
		x.In = float64(x.LogEnd-first[i].LogEnd) / took
		x.Out = float64(x.JournalEnd-first[i].JournalEnd) / took
		if x.Records == 0 {
			x.CatchUpSeconds = new(float64)
		} else if x.Out > x.In {
			s := float64(x.Records) / (x.Out - x.In)
			x.CatchUpSeconds = &s
		}
	}
	return second, nil
}

func (t *tools) lagNow(ctx context.Context) ([]lagLine, error) {
	ctx, cancel := context.WithTimeout(ctx, statusBound)
	defer cancel()
	ranges, err := t.partitions(ctx)
	if err != nil {
		return nil, err
	}
	sizes := t.sizes(ctx)
	out := make([]lagLine, len(ranges))
	for i, r := range ranges {
		x := lagLine{Partition: r.Self.Partition, LogEnd: r.To}
		seen, err := t.store.Seen(ctx, r.At(max(r.To-1, 0)))
		if err != nil {
			return nil, err
		}
		x.JournalEnd = max(seen.End, r.From)
		x.Records = max(r.To-x.JournalEnd, 0)
		if x.Records == 0 {
			x.Seconds, x.Bytes = new(float64), new(int64)
		} else {
			x.Seconds = t.oldest(ctx, r, x.JournalEnd)
			if size, ok := sizes[x.Partition]; ok && r.To > r.From {
				n := size * x.Records / (r.To - r.From)
				x.Bytes = &n
			}
		}
		out[i] = x
	}
	return out, nil
}

// sizes are the partitions' on their brokers, if they say it.
func (t *tools) sizes(ctx context.Context) map[int32]int64 {
	var topics kadm.TopicsSet
	topics.Add(t.cfg.Kafka.Topic)
	out := map[int32]int64{}
	dirs, err := t.kafka.Admin().DescribeAllLogDirs(ctx, topics)
	if err != nil {
		return out
	}
	dirs.Each(func(d kadm.DescribedLogDir) {
		d.Topics.Each(func(p kadm.DescribedLogDirPartition) { out[p.Partition] = max(out[p.Partition], p.Size) })
	})
	return out
}

// oldest is the age of the first record at or after an offset, nil if it does not
// come at once.
func (t *tools) oldest(ctx context.Context, r verify.Range, offset int64) *float64 {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	reader, err := t.kafka.Open(r.Self.Partition, offset)
	if err != nil {
		return nil
	}
	defer reader.Close()
	for reader.Position() < r.To {
		raws, err := reader.Next(ctx)
		if err != nil {
			return nil
		}
		if len(raws) > 0 {
			s := max(time.Since(raws[0].Timestamp).Seconds(), 0)
			return &s
		}
	}
	return nil
}

func writeLag(w io.Writer, all []lagLine, asJSON bool) error {
	return writeLines(w, all, asJSON, "PARTITION\tJOURNAL END\tLOG END\tRECORDS\tSECONDS\tABOUT BYTES\tIN/S\tOUT/S\tCAUGHT UP IN", func(x lagLine) string {
		age, until := "?", "-"
		if x.Seconds != nil {
			age = fmt.Sprintf("%.1f", *x.Seconds)
		}
		if x.CatchUpSeconds != nil {
			until = time.Duration(*x.CatchUpSeconds * float64(time.Second)).Round(time.Second).String()
		}
		return fmt.Sprintf("%d\t%d\t%d\t%d\t%s\t%s\t%.0f\t%.0f\t%s", x.Partition, x.JournalEnd, x.LogEnd, x.Records, age, known(x.Bytes), x.In, x.Out, until)
	})
}
