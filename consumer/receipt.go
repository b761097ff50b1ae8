package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"sluice/consumer/internal/operations"
	"sluice/schemas/event"
	"sluice/schemas/topic"
)

func receiptCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "receipt EVENT_ID | KEY",
		Short: "Tell what became of an event",
		Long: `receipt tells everything that is known of one event, named by its id (a UUID, as the
edge answers it) or its idempotency key (source:event_type:actor_id:occurred_at,
with %3A for : and %25 for % inside the first three): its row, when it was received
and written, and by which record of the log; every other record of it, and what
became of that (a duplicate, a conflict, forwarded, a dead letter, skipped); which
edge took it and the other headers, of the records that the log still has; and the
replays that went over them.

By key it reads a few rows; by id it looks through the table's column event_id.

Exit status: 0 the event has a row; 1 it has none, and what is printed says why if
anything is known; 2 it could not be told.`,
		Example: `  consumer receipt web:click:user-1:2026-01-02T03:04:05.000000000Z`,
		Args:    cobra.ExactArgs(1),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return comparing(func(cmd *cobra.Command, t *tools) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
			defer cancel()
			r, err := t.receipt(ctx, args[0])
			if err != nil {
				return err
			}
			if err := r.write(cmd.OutOrStdout(), asJSON); err != nil {
				return err
			}
			if r.Row == nil {
				return exitError{1, nil}
			}
			return nil
		})(cmd, nil)
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it as one line of JSON")
	return cmd
}

// receipt is what is known of an event.
type receipt struct {
	EventID uuid.UUID `json:"event_id"`
	Key     string    `json:"key"`
	// Row is nil if it has none.
	Row *receiptRow `json:"row"`
	// Records are those of this event in the log, in the order they were
	// journaled; the row's own is the first.
	Records []receiptRecord `json:"records"`
	// Operations went over the offsets of its records.
	Operations []operations.Operation `json:"operations"`
}

type receiptRow struct {
	ReceivedAt  time.Time `json:"received_at"`
	InsertedAt  time.Time `json:"inserted_at"`
	PayloadText string    `json:"payload_text"`
}

type receiptRecord struct {
	TopicID   uuid.UUID         `json:"topic_id"`
	Partition int32             `json:"partition"`
	Offset    int64             `json:"offset"`
	Fate      string            `json:"fate"`
	Detail    string            `json:"detail,omitempty"`
	Timestamp time.Time         `json:"timestamp"`
	Journaled *time.Time        `json:"journaled_at,omitempty"`
	Headers   map[string]string `json:"headers,omitempty"`
}

// identify reads an event id, or a key, whose event id is derived from it.
func identify(text string) (id uuid.UUID, key string, err error) {
	if id, err := uuid.Parse(text); err == nil {
		return id, "", nil
	}
	parts := strings.SplitN(text, ":", 4)
	if len(parts) == 4 {
		if at, err := time.Parse("2006-01-02T15:04:05.999999999Z07:00", parts[3]); err == nil {
			unescape := strings.NewReplacer("%3A", ":", "%25", "%")
			e := event.Event{Source: unescape.Replace(parts[0]), EventType: unescape.Replace(parts[1]), ActorID: unescape.Replace(parts[2]), OccurredAt: at.UTC()}
			k := e.AppendKey(nil)
			return event.IDOf(k), string(k), nil
		}
	}
	return id, "", usage("%q is neither an event id nor a key: want a UUID, or source:event_type:actor_id:occurred_at", text)
}

func (t *tools) receipt(ctx context.Context, text string) (receipt, error) {
	id, key, err := identify(text)
	if err != nil {
		return receipt{}, err
	}
	r := receipt{EventID: id, Key: key, Records: []receiptRecord{}, Operations: []operations.Operation{}}
	if err := r.askRow(ctx, t, key); err != nil {
		return r, fmt.Errorf("the event's row: %w", err)
	}
	if err := r.askFates(ctx, t); err != nil {
		return r, fmt.Errorf("the event's fates: %w", err)
	}
	r.askLog(ctx, t)
	all, err := operations.Log{Conn: t.store.Conn()}.List(ctx, 1000)
	if err != nil {
		return r, err
	}
	for _, o := range all {
		for _, rec := range r.Records {
			from, named := o.From[rec.Partition]
			if to := o.To[rec.Partition]; named && rec.Offset >= from && rec.Offset < to && o.Kind != operations.Jump {
				r.Operations = append(r.Operations, o)
				break
			}
		}
	}
	return r, nil
}

func (r *receipt) askRow(ctx context.Context, t *tools, key string) error {
	where, args := "event_id = ?", []any{r.EventID}
	if key != "" {
		parts := strings.SplitN(key, ":", 4)
		unescape := strings.NewReplacer("%3A", ":", "%25", "%")
		where += " AND source = ? AND event_type = ? AND actor_id = ?"
		args = append(args, unescape.Replace(parts[0]), unescape.Replace(parts[1]), unescape.Replace(parts[2]))
	}
	rows, err := t.store.Conn().Query(ctx, `SELECT source, event_type, actor_id, occurred_at, payload_text, received_at, inserted_at, topic_id, partition, offset, record_timestamp
		FROM event_log WHERE `+where+" ORDER BY record_timestamp, offset", args...)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // Err below tells
	for rows.Next() {
		var e event.Event
		var row receiptRow
		rec := receiptRecord{Fate: "row"}
		if err := rows.Scan(&e.Source, &e.EventType, &e.ActorID, &e.OccurredAt, &row.PayloadText, &row.ReceivedAt, &row.InsertedAt, &rec.TopicID, &rec.Partition, &rec.Offset, &rec.Timestamp); err != nil {
			return err
		}
		if r.Row == nil {
			r.Row, r.Key = &row, string(e.AppendKey(nil))
		}
		r.Records = append(r.Records, rec)
	}
	return rows.Err()
}

func (r *receipt) askFates(ctx context.Context, t *tools) error {
	rows, err := t.store.Conn().Query(ctx, `SELECT topic_id, partition, offset, toString(fate), toString(reason), detail, forwarded_to, first_topic_id, first_partition, first_offset, record_timestamp, journaled_at
		FROM journal FINAL WHERE entry = 'fate' AND event_id = ? ORDER BY record_timestamp, offset`, r.EventID)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // Err below tells
	for rows.Next() {
		var rec receiptRecord
		var reason string
		var to int32
		var first topic.Origin
		var journaled time.Time
		if err := rows.Scan(&rec.TopicID, &rec.Partition, &rec.Offset, &rec.Fate, &reason, &rec.Detail, &to, &first.TopicID, &first.Partition, &first.Offset, &rec.Timestamp, &journaled); err != nil {
			return err
		}
		rec.Journaled = &journaled
		switch {
		case rec.Fate == "forwarded":
			rec.Detail = fmt.Sprintf("to partition %d", to)
		case first.TopicID != uuid.Nil:
			rec.Detail = "of " + first.String()
		case reason != "":
			rec.Detail = reason + ": " + rec.Detail
		}
		r.Records = append(r.Records, rec)
	}
	return rows.Err()
}

// askLog adds the headers of what the log still has; it is no error if it does not
// answer.
func (r *receipt) askLog(ctx context.Context, t *tools) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	ranges, err := t.partitions(ctx)
	if err != nil {
		return
	}
	for i := range r.Records {
		rec := &r.Records[i]
		if int(rec.Partition) >= len(ranges) || rec.Offset < ranges[rec.Partition].From || rec.Offset >= ranges[rec.Partition].To ||
			ranges[rec.Partition].At(rec.Offset).TopicID != rec.TopicID {
			continue
		}
		reader, err := t.kafka.Open(rec.Partition, rec.Offset)
		if err != nil {
			return
		}
		raws, err := reader.Next(ctx)
		reader.Close()
		if err != nil {
			return
		}
		if len(raws) > 0 && raws[0].Offset == rec.Offset {
			rec.Headers = map[string]string{}
			for _, h := range raws[0].Headers {
				rec.Headers[h.Key] = string(h.Value)
			}
		}
	}
}

func (r receipt) write(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(r)
	}
	fmt.Fprintf(w, "event    %s\n", r.EventID)
	if r.Key != "" {
		fmt.Fprintf(w, "key      %s\n", plain(r.Key))
	}
	if r.Row == nil {
		fmt.Fprintln(w, "row      none")
	} else {
		fmt.Fprintf(w, "received %s\nwritten  %s\npayload  %s\n", r.Row.ReceivedAt.Format(time.RFC3339Nano), r.Row.InsertedAt.Format(time.RFC3339Nano), plainBut(r.Row.PayloadText, "\n\t"))
	}
	if len(r.Records) == 0 {
		_, err := fmt.Fprintln(w, "nothing is known of it: it was never read from the log (\"consumer lag\"), or became a dead letter unread (\"consumer dlq list\")")
		return err
	}
	fmt.Fprintln(w)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "FATE\tPARTITION\tOFFSET\tTIMESTAMP\tEDGE\tDETAIL")
	for _, x := range r.Records {
		edge := cmp.Or(x.Headers[topic.HeaderEdge], "-")
		fmt.Fprintf(table, "%s\t%d\t%d\t%s\t%s\t%s\n", x.Fate, x.Partition, x.Offset, x.Timestamp.Format(time.RFC3339Nano), plain(edge), plain(x.Detail))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, o := range r.Operations {
		fmt.Fprintf(w, "\n%s by %s at %s: %s\n", o.Kind, o.Who, o.Started.UTC().Format(time.RFC3339), o.Outcome)
	}
	return nil
}
