package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"time"

	"github.com/spf13/cobra"

	"sluice/consumer/internal/replay"
)

// replayed is what a replay found and did in one partition.
type replayed struct {
	Partition int32 `json:"partition"`
	From      int64 `json:"from"`
	To        int64 `json:"to"`
	Records   int   `json:"records"`
	Present   int   `json:"present"`
	Missing   int   `json:"missing"`
	Different int   `json:"different"`
	// Expired and Erased were taken by retention or an erasure: they are not missing.
	Expired int `json:"expired"`
	Erased  int `json:"erased"`
	// GoodNow are dead letters of before that today's rules would take.
	GoodNow int `json:"good_now"`
	// Gone is how many offsets below From, or the log's start, Kafka no longer has.
	Gone    int64 `json:"gone"`
	Written int   `json:"written"`
}

// replaying is how a replay goes about it.
type replaying struct {
	from, to         string // partition:offset,… or earliest; "" of to: the journal's end
	fromTime, toTime string
	topicID          string // "": whatever the topic's is
	filter           replay.Filter
	rate             float64 // records a second over all partitions; 0: no bound
	dryRun, yes      bool
	reprocess        bool
	into             string
	findings         string
}

func replayCommand() *cobra.Command {
	var how replaying
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "replay --from 0:1200,1:900 | earliest | --from-time T",
		Short: "Read the topic again from an offset; only what ClickHouse lacks is written",
		Long: `replay reads the topic from the offsets given (inclusive) up to what the consumer
has closed, compares it with ClickHouse record by record, and has the partitions'
owners write what is missing, between live batches and by the same rule. What is
decided stands: a row that is there is not written again. It is safe at any time,
and may be interrupted: nothing is doubled, and it says where to go on.

If no consumer runs, the command joins the group and is the owner itself. One
replay runs at a time; who begins a second is told who runs the first.

  present    has its row, or a fate in the journal
  missing    has neither: this is what is written
  different  has another row than the record says; it stands ("consumer verify")
  expired,   retention or an erasure took it: it is not missing, and does not
  erased     return; an erased one that lacks its fate is given that
  good now   became a dead letter, and today's rules would take it; it is put
             through by --reprocess-under-schema, or "consumer dlq redrive"

--from and --to (exclusive) take partition:offset pairs; partitions that --from
does not name are left out. --from earliest is all that Kafka still has; what it no
longer has is said before anything begins. Times are RFC 3339, or a duration ago as
in 90m.

--into builds a new table of event_log's shape from the log and the journal, beside
the live one, and prints the two statements that swap them: that is how a schema
changes. What Kafka no longer has is copied.

Every run is written to the table operations: "consumer replay history".

Exit status: 0 done, or a dry run found nothing missing or different; 1 a dry run
found something; 2 it could not be done; 3 another replay runs.`,
		Example: `  consumer replay --from earliest --dry-run
  consumer replay --from 0:1200,1:900 --to 0:2000,1:1500
  consumer replay --from-time 2026-01-02T03:00:00Z --sources web --rate 5000`,
		Args: cobra.NoArgs,
		RunE: comparing(func(cmd *cobra.Command, t *tools) error {
			if how.findings == "" {
				how.findings = "sluice-replay-findings-" + time.Now().UTC().Format("20060102T150405Z") + ".ndjson"
			}
			if how.into != "" {
				return t.replayInto(cmd.Context(), how, cmd.OutOrStdout())
			}
			if !how.dryRun {
				stepBack()
			}
			results, err := t.replay(cmd.Context(), how)
			var held replay.HeldError
			switch {
			case errors.As(err, &held):
				return exitError{3, err}
			case err != nil:
				return err
			}
			if err := writeReplayed(cmd.OutOrStdout(), results, asJSON); err != nil {
				return err
			}
			for _, r := range results {
				if how.dryRun && r.Missing+r.Different > 0 {
					return exitError{1, nil}
				}
			}
			return nil
		}),
	}
	f := cmd.Flags()
	f.StringVar(&how.from, "from", "", "partition:offset,… (inclusive) or earliest")
	f.StringVar(&how.fromTime, "from-time", "", "from the first record of this time or later, in every partition")
	f.StringVar(&how.to, "to", "", "partition:offset,… (exclusive)")
	f.StringVar(&how.toTime, "to-time", "", "up to the first record of this time or later")
	f.StringVar(&how.topicID, "topic-id", "", "refuse if the topic is of another generation than this id")
	f.StringSliceVar(&how.filter.Sources, "sources", nil, "only events of these sources")
	f.StringSliceVar(&how.filter.Types, "types", nil, "only events of these types")
	f.StringVar(&how.filter.Actor, "actor", "", "only events of this actor")
	f.Float64Var(&how.rate, "rate", 0, "most records a second over all partitions (0: as fast as live batches allow)")
	f.BoolVar(&how.dryRun, "dry-run", false, "compare and write nothing")
	f.BoolVar(&how.reprocess, "reprocess-under-schema", false, "put dead letters through that today's rules would take")
	f.StringVar(&how.into, "into", "", "rebuild everything in this table, beside the live one")
	f.BoolVar(&how.yes, "yes", false, "do not ask before something is written")
	f.StringVar(&how.findings, "findings", "", "file for the findings if there are more than 100 (default sluice-replay-findings-TIME.ndjson)")
	f.BoolVar(&asJSON, "json", false, "print one line of JSON for each partition")
	cmd.AddCommand(replayHistoryCommand())
	return cmd
}

// who names the person at the keyboard, for the record of the run.
func who() string {
	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	return name + "@" + hostname()
}

func hostname() string {
	host, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return host
}

func writeReplayed(w io.Writer, results []replayed, asJSON bool) error {
	return writeLines(w, results, asJSON, "PARTITION\tFROM\tTO\tRECORDS\tPRESENT\tMISSING\tDIFFERENT\tEXPIRED\tERASED\tGOOD NOW\tWRITTEN", func(r replayed) string {
		return fmt.Sprintf("%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d", r.Partition, r.From, r.To, r.Records, r.Present, r.Missing, r.Different, r.Expired, r.Erased, r.GoodNow, r.Written)
	})
}
