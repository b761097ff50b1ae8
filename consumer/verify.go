package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"sluice/consumer/internal/tombstone"
	"sluice/consumer/internal/verify"
	"sluice/schemas/topic"
)

// report is what verify says, in the form that --json fixes.
type report struct {
	OK           bool `json:"ok"`
	Records      int  `json:"records"`
	Rows         int  `json:"rows"`
	Duplicates   int  `json:"duplicates"`
	Conflicts    int  `json:"conflicts"`
	DeadLettered int  `json:"dead_lettered"`
	Forwarded    int  `json:"forwarded"`
	Missing      int  `json:"missing"`
	Extra        int  `json:"extra"`
	Different    int  `json:"different"`
	Unverifiable int  `json:"unverifiable"`
	RollupsEqual bool `json:"rollups_equal"`
}

// verifying is how verify goes about it.
type verifying struct {
	memory   bytesFlag
	tempDir  string
	findings string // file for what does not fit on a page; "": none
}

// bytesFlag is a flag of a size, as in 256MiB.
type bytesFlag int64

func (b *bytesFlag) String() string { return units.BytesSize(float64(*b)) }
func (b *bytesFlag) Type() string   { return "size" }

func (b *bytesFlag) Set(text string) error {
	n, err := units.RAMInBytes(text)
	if err != nil || n < 1<<20 {
		return fmt.Errorf("want a size of at least 1MiB, as in 256MiB")
	}
	*b = bytesFlag(n)
	return nil
}

func verifyCommand() *cobra.Command {
	var asJSON bool
	var wait time.Duration
	how := verifying{memory: verify.DefaultMemory}
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Read the log again and compare it with ClickHouse, record by record",
		Long: `verify reads the topic from its start to where it ends now, decides by the
rule what should have become of each record, and compares that with ClickHouse:
rows and their columns, fates, conflicts and their payloads, the records that
duplicates were told against, forwarded records, rows stored twice, and the
rollups. It may run while traffic goes on; what comes after its start is left
out.

The first 100 findings are printed. If there are more, all of them are written
to a file, one JSON object a line.

Memory stays within --memory and some tens of MiB for reading, however large the
topic is; keys are sorted in temporary files of 50 bytes a record of the largest
partition.

Exit status: 0 all is as it should be, 1 it is not, 2 it could not be told.`,
		Example: "  consumer verify --json",
		Args:    cobra.NoArgs,
		RunE: comparing(func(cmd *cobra.Command, t *tools) error {
			if how.findings == "" {
				how.findings = "sluice-verify-findings-" + time.Now().UTC().Format("20060102T150405Z") + ".ndjson"
			}
			t.verifying = how
			r, err := t.verify(cmd.Context(), wait)
			if err != nil {
				return fmt.Errorf("could not tell: %w", err)
			}
			if err := r.write(cmd.OutOrStdout(), asJSON); err != nil {
				return err
			}
			if !r.OK {
				return exitError{1, nil}
			}
			return nil
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as one line of JSON")
	cmd.Flags().DurationVar(&wait, "wait", 10*time.Second, "how long the consumer may take to reach the log's end first")
	cmd.Flags().Var(&how.memory, "memory", "how much to hold of records and keys at once")
	cmd.Flags().StringVar(&how.tempDir, "temp-dir", "", "where temporary files go (default the system's)")
	cmd.Flags().StringVar(&how.findings, "findings", "", "file for the findings if there are more than 100 (default sluice-verify-findings-TIME.ndjson)")
	return cmd
}

func (r report) write(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(r)
	}
	verdict := "ok: ClickHouse holds what the log says, no more and no less"
	if !r.OK {
		verdict = "NOT OK: ClickHouse differs from the log"
	}
	_, err := fmt.Fprintf(w, `%s

records in the log  %9d
  rows              %9d
  duplicates        %9d
  conflicts         %9d
  dead letters      %9d
  forwarded         %9d
missing             %9d
extra               %9d
different           %9d
unverifiable        %9d
rollups equal       %9t
`, verdict, r.Records, r.Rows, r.Duplicates, r.Conflicts, r.DeadLettered, r.Forwarded,
		r.Missing, r.Extra, r.Different, r.Unverifiable, r.RollupsEqual)
	return err
}

func (t *tools) verify(ctx context.Context, wait time.Duration) (report, error) {
	ranges, err := t.partitions(ctx)
	if err != nil {
		return report{}, err
	}
	if err := t.reach(ctx, ranges, wait); err != nil {
		return report{}, err
	}
	told := findings{to: t.err, path: t.verifying.findings}
	defer told.close()
	clickhouse := verify.ClickHouse{Conn: t.store.Conn()}
	taken, err := tombstone.Read(ctx, t.store.Conn())
	if err != nil {
		return report{}, err
	}
	verifier := verify.Verifier{Expired: taken.Expired, Log: t.kafka, Store: clickhouse, Memory: int64(t.verifying.memory), TempDir: t.verifying.tempDir}
	var total verify.Counts
	bar := t.bar(ranges, "verify")
	for _, r := range ranges {
		last := r.From
		counts, err := verifier.Partition(ctx, r, told.add, func(next int64) {
			bar.Add64(next - last) //nolint:errcheck // a bar that can't be drawn is no fault
			last = next
		})
		if err != nil {
			return report{}, fmt.Errorf("partition %d: %w", r.Self.Partition, err)
		}
		total.Add(counts)
	}
	bar.Finish() //nolint:errcheck // as above
	return t.whole(ctx, ranges, wait, clickhouse, total, told.add)
}

// whole compares what is not of one partition, and sums up.
func (t *tools) whole(ctx context.Context, ranges []verify.Range, wait time.Duration, ch verify.ClickHouse, total verify.Counts, found func(verify.Finding)) (report, error) {
	astray, err := t.astray(ctx, ranges, wait, ch, found)
	if err != nil {
		return report{}, err
	}
	repeated, err := ch.Repeated(ctx, found)
	if err != nil {
		return report{}, err
	}
	past, err := t.past(ctx, ranges, ch, found)
	if err != nil {
		return report{}, err
	}
	conflicts, err := ch.Conflicts(ctx, found)
	if err != nil {
		return report{}, err
	}
	buckets, err := ch.Rollups(ctx, found)
	if err != nil {
		return report{}, err
	}
	unspoken, err := ch.Unspoken(ctx, ranges)
	if err != nil {
		return report{}, err
	}
	r := report{
		Records: total.Records, Rows: total.Rows, Duplicates: total.Duplicates, Conflicts: total.Conflicts,
		DeadLettered: total.DeadLettered, Forwarded: total.Forwarded,
		Missing: total.Missing + astray, Different: total.Different + conflicts, Extra: total.Extra + repeated + past,
		Unverifiable: total.Unverifiable + unspoken, RollupsEqual: buckets == 0,
	}
	r.OK = r.Missing == 0 && r.Extra == 0 && r.Different == 0 && r.RollupsEqual
	return r, nil
}

// astray counts forwarded records whose events have no row. Their copies may
// have come to the other partition after it was read: they are given wait.
func (t *tools) astray(ctx context.Context, ranges []verify.Range, wait time.Duration, ch verify.ClickHouse, found func(verify.Finding)) (int, error) {
	deadline := time.Now().Add(wait)
	for {
		n, err := ch.Astray(ctx, ranges, func(verify.Finding) {})
		if err != nil || n == 0 {
			return n, err
		}
		if time.Now().After(deadline) {
			return ch.Astray(ctx, ranges, found)
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// past counts rows of offsets that the log has not come to: it has lost records
// that were decided.
func (t *tools) past(ctx context.Context, ranges []verify.Range, ch verify.ClickHouse, found func(verify.Finding)) (int, error) {
	total := 0
	for _, r := range ranges {
		highest, _, err := ch.Past(ctx, r, r.To)
		if err != nil {
			return 0, err
		}
		if highest < 0 {
			continue
		}
		_, end, err := t.kafka.Bounds(ctx, r.Self.Partition) // asked after: a row's record was in the log before it
		if err != nil {
			return 0, err
		}
		if highest < end {
			continue
		}
		_, n, err := ch.Past(ctx, r, end)
		if err != nil {
			return 0, err
		}
		total += n
		found(verify.Finding{Kind: verify.Extra, Origin: topic.Origin{TopicID: r.Self.TopicID, Partition: r.Self.Partition, Offset: end},
			What: fmt.Sprintf("the log ends here, and %d rows are of offsets from here to %d", n, highest)})
	}
	return total, nil
}

// reach waits until the journal has reached the end of every range, for at most
// wait: what is undecided by then counts as missing.
func (t *tools) reach(ctx context.Context, ranges []verify.Range, wait time.Duration) error {
	deadline := time.Now().Add(wait)
	for _, r := range ranges {
		for r.From < r.To {
			seen, err := t.store.Seen(ctx, r.At(r.To-1))
			if err != nil {
				return err
			}
			if seen.End >= r.To || time.Now().After(deadline) {
				break
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	return nil
}
