package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/deadletter"
	"sluice/consumer/internal/tombstone"
	"sluice/schemas/event"
	"sluice/schemas/topic"
)

func dlqShowCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show ORIGIN",
		Short: "Show a dead letter as it came, what was wrong, and what would become of it now",
		Long: `show prints the record as it came, the reason it could not become a row and the
place of the fault, what was done with it, and what today's rules would make of it.
ORIGIN is topic id/partition/offset, or partition:offset of the topic as it is.

Exit status: 0 shown, 1 there is no such dead letter, 2 it could not be done.`,
		Example: "  consumer dlq show 0:1200",
		Args:    cobra.ExactArgs(1),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return comparing(func(cmd *cobra.Command, t *tools) error {
			choice, settled, err := t.chosen(cmd.Context(), choosing{origins: args})
			if err != nil {
				return err
			}
			var found *shown
			err = t.letters(cmd.Context(), choice, func(l deadletter.Letter, r *batch.Record) error {
				s, err := t.show(cmd.Context(), l, r, settled)
				if err != nil {
					return err
				}
				found = &s
				return errEnough
			})
			if err != nil && !errors.Is(err, errEnough) {
				return err
			}
			if found == nil {
				return exitError{1, fmt.Errorf("there is no dead letter of %s; \"consumer receipt\" tells what became of an event", args[0])}
			}
			return found.write(cmd.OutOrStdout(), asJSON)
		})(cmd, nil)
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it as one line of JSON")
	return cmd
}

// shown is a dead letter in full.
type shown struct {
	letter
	Key     *string           `json:"key"`
	Value   string            `json:"value"`
	Hex     bool              `json:"value_is_hex,omitempty"`
	Headers map[string]string `json:"headers"`
	// Faults are what today's rules find wrong, each with its place.
	Faults []string `json:"faults"`
	// Now is what would become of it.
	Now string `json:"now"`
}

func (t *tools) show(ctx context.Context, l deadletter.Letter, r *batch.Record, settled map[topic.Origin]deadletter.Fate) (shown, error) {
	s := shown{letter: letterOf(l, settled), Headers: map[string]string{}, Faults: []string{}, Value: string(l.Value)}
	if !utf8.Valid(l.Value) {
		s.Value, s.Hex = hex.Dump(l.Value), true
	}
	if l.Key != nil {
		key := string(l.Key)
		s.Key = &key
	}
	for _, h := range l.Headers {
		s.Headers[h.Key] = string(h.Value)
	}
	if r.Reason != "" {
		if len(l.Value) > 0 {
			_, faults := event.NewDecoder(event.Ceiling()).Decode(l.Value, time.Time{})
			for _, f := range faults {
				s.Faults = append(s.Faults, f.String())
			}
		}
		s.Now = "a dead letter again: " + r.Reason + ": " + r.Detail
		return s, nil
	}
	gone, err := tombstone.Read(ctx, t.store.Conn())
	if err != nil {
		return s, err
	}
	if fate, taken := gone.Fate(&r.Event); taken {
		s.Now = "no row: " + string(fate) + ", by retention or an erasure"
		return s, nil
	}
	first, err := t.store.FirstOf(ctx, []*batch.Record{r})
	if err != nil {
		return s, err
	}
	f, taken := first[r.ID]
	switch {
	case taken && f.Hash == r.Hash:
		s.Now = "nothing new: its event has a row, of " + f.Origin.String()
	case taken:
		s.Now = "a conflict: its event has a row of another payload, of " + f.Origin.String()
	case l.Reason == topic.ReasonRefused:
		s.Now = "a row, unless ClickHouse refuses it again"
	default:
		s.Now = "a row"
	}
	return s, nil
}

func (s shown) write(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(s)
	}
	fmt.Fprintf(w, "origin   %s\ntime     %s\nreason   %s\ndetail   %s\n", s.Origin, s.Time.Format(time.RFC3339Nano), plain(s.Reason), plain(s.Detail))
	for _, f := range s.Faults {
		fmt.Fprintf(w, "fault    %s\n", plain(f))
	}
	fmt.Fprintf(w, "now      %s\n", s.Now)
	if s.Fate != nil {
		fmt.Fprintf(w, "fate     %s by %s at %s: %s\n", s.Fate.State, s.Fate.Who, s.Fate.At.UTC().Format(time.RFC3339), s.Fate.Reason)
	}
	if s.Key != nil {
		fmt.Fprintf(w, "key      %s\n", plain(*s.Key))
	}
	for _, name := range slices.Sorted(maps.Keys(s.Headers)) {
		fmt.Fprintf(w, "header   %s: %s\n", plain(name), plain(s.Headers[name]))
	}
	_, err := fmt.Fprintf(w, "value, %d bytes:\n%s\n", s.Bytes, plainBut(strings.TrimRight(s.Value, "\n"), "\n\t"))
	return err
}
