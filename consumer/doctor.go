package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"sluice/consumer/internal/doctor"
)

// producerBytes is the largest record that the consumer's producer takes, as
// the kafka package sets it.
const producerBytes = 16 << 20

// doctorSetup is what the doctor compares the facts with.
func doctorSetup(cfg config) doctor.Setup {
	return doctor.Setup{
		Config: cfg.Doctor,
		Topic:  cfg.Kafka.Topic, DeadLetters: cfg.Kafka.DeadLetters, Control: cfg.Kafka.Control, Group: cfg.Group.ID,
		Brokers:         cfg.Kafka.Brokers,
		TablePartitions: cfg.Batch.TablePartitions,
		RecordBytes:     eventsMaxBytes,
		ProduceBytes:    producerBytes,
	}
}

func doctorCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check what exactness stands on, in ClickHouse and Kafka, and say what mends it",
		Long: `doctor checks what the protocol and the claim of doctor.durability stand on: the
tables' shapes and settings, the connection's settings, the topics' and the
brokers' configurations. It changes nothing. The service makes the same checks at
its start and every doctor.every, and does not run while something must be mended.

A check that this server cannot answer (a table of system that it has not, a
right that is missing) is listed as unknown and changes no status.

Exit status: 0 all is well, or there are only warnings; 1 something must be
mended; 2 it could not be told, because ClickHouse or Kafka did not answer.`,
		Example: "  consumer doctor\n  consumer doctor --json | jq '.results[] | select(.severity)'",
		Args:    cobra.NoArgs,
		RunE: comparing(func(cmd *cobra.Command, t *tools) error {
			s := doctorSetup(t.cfg)
			r := doctor.Judge(s, doctor.Gather(cmd.Context(), s, t.store.Conn(), t.kafka.Admin()))
			if err := writeDoctor(cmd.OutOrStdout(), r, asJSON); err != nil {
				return err
			}
			return doctorStatus(r)
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the report as one line of JSON")
	return cmd
}

// doctorStatus is the exit status: what must be mended says more than that one
// side could not be asked.
func doctorStatus(r doctor.Report) error {
	switch {
	case r.Refused() != nil:
		return exitError{1, nil}
	case len(r.Away) > 0:
		return exitError{2, fmt.Errorf("could not tell: %s", strings.Join(r.Away, "; "))}
	}
	return nil
}

func writeDoctor(w io.Writer, r doctor.Report, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(struct {
			OK bool `json:"ok"`
			doctor.Report
			Summary string `json:"summary"`
		}{doctorStatus(r) == nil, r, r.Summary()})
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, x := range r.Results {
		state, what := "ok", ""
		if x.Finding != nil {
			state, what = string(x.Severity), x.What
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", state, x.Check, what)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, x := range r.Results {
		if x.Finding == nil || x.Severity == doctor.Unknown {
			continue
		}
		fmt.Fprintf(w, "\n%s: %s\n  %s\n  breaks: %s\n", x.Severity, x.Check, x.What, x.Breaks)
		for _, m := range x.Mend {
			fmt.Fprintf(w, "  mend: %s\n", strings.ReplaceAll(m, "\n", "\n        "))
		}
	}
	_, err := fmt.Fprintf(w, "\n%s\n", r.Summary())
	return err
}
