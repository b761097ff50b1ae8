package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strings"
	"time"

	"github.com/google/uuid"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/operations"
	"sluice/consumer/internal/replay"
	"sluice/consumer/internal/tombstone"
	"sluice/consumer/internal/verify"
	schema "sluice/schemas/clickhouse"
	"sluice/schemas/topic"
)

// rowColumns are the columns of event_log that are written; the rest are made.
const rowColumns = "event_id, client_event_id, source, event_type, actor_id, occurred_at, payload_text, payload_hash, received_at, topic_id, partition, offset, record_timestamp"

var tableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)

// replayInto rebuilds event_log in another table. What a record is, is decided
// already: a row is what event_log has as one. Whatever has neither a row nor a fate
// is an owner's to decide, and keeps the table from being whole. Rows that the log no
// longer has are copied. It may be run again: what the table has is left as it is.
func (t *tools) replayInto(ctx context.Context, how replaying, w io.Writer) (err error) {
	switch {
	case !tableName.MatchString(how.into) || how.into == schema.EventLog || how.into == schema.Journal || how.into == schema.Operations:
		return usage("--into %q: want the name of a new table, of letters, digits and _", how.into)
	case how.from != "earliest" || how.to != "" || how.toTime != "" || !how.filter.Empty() || how.dryRun:
		return usage("--into rebuilds everything: it goes with --from earliest, and without --to, filters and --dry-run")
	}
	ranges, err := t.plan(ctx, how)
	if err != nil {
		return err
	}
	release, err := replay.Take(ctx, t.cfg.Kafka.Options(t.log), t.cfg.Kafka.Control, replay.Lease{Kind: leaseKind, Run: uuid.New(), By: who(), Since: time.Now().UTC()})
	var held replay.HeldError
	if errors.As(err, &held) {
		return exitError{3, err}
	}
	if err != nil {
		return err
	}
	defer release()
	if err := t.sameShape(ctx, how.into); err != nil {
		return err
	}
	op := &operations.Operation{ID: uuid.New(), Kind: operations.ReplayInto, State: operations.Running, Who: who(), Detail: how.String(), From: map[int32]int64{}, To: map[int32]int64{}}
	audit := operations.Log{Conn: t.store.Conn()}
	if err := audit.Write(ctx, op); err != nil {
		return err
	}
	defer func() {
		op.State, op.Outcome = operations.Done, fmt.Sprintf("%d rows written to %s", op.Written, how.into)
		if err != nil {
			op.State, op.Outcome = operations.Failed, err.Error()
		}
		bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if auditErr := audit.Write(bound, op); err == nil {
			err = auditErr
		}
	}()
	gone, err := tombstone.Read(ctx, t.store.Conn())
	if err != nil {
		return err
	}
	copied, err := t.copyOlder(ctx, how.into, ranges)
	if err != nil {
		return err
	}
	op.Written += copied
	if copied > 0 {
		fmt.Fprintf(t.err, "%d rows whose records are no longer in Kafka were copied from %s\n", copied, schema.EventLog)
	}
	var all []verify.Range
	for _, r := range ranges {
		all = append(all, r.Range)
	}
	bar := t.bar(all, "rebuild")
	var not undecided
	for _, r := range ranges {
		op.From[r.Self.Partition], op.To[r.Self.Partition] = r.From, r.To
		n, err := t.rebuild(ctx, how.into, r.Range, gone, &not, func(n int64) { bar.Add64(n) }) //nolint:errcheck // a bar that can't be drawn is no fault
		op.Written += n
		if err != nil {
			return fmt.Errorf("partition %d: %w; run it again, what is written stays", r.Self.Partition, err)
		}
	}
	bar.Finish() //nolint:errcheck // as above
	if err := t.takeGone(ctx, how.into, gone); err != nil {
		return err
	}
	if not.records > 0 {
		return fmt.Errorf("%d records have neither a row nor a fate, the first at %d:%d, so that %s is not whole: have them decided (consumer replay --from earliest --yes), and run this again",
			not.records, not.first.Partition, not.first.Offset, how.into)
	}
	var live, rebuilt uint64
	if err := t.store.Conn().QueryRow(ctx, "SELECT (SELECT count() FROM "+schema.EventLog+"), (SELECT count() FROM "+how.into+")").Scan(&live, &rebuilt); err != nil {
		return fmt.Errorf("counting: %w", err)
	}
	fmt.Fprintf(w, `%d rows written to %s, which has %d now; %s has %d.
What comes in goes on to %s: to swap the two, pause the consumer, take over what
has come meanwhile, and swap. The rollups are projections: they come along.

  consumer pause --partitions all --why "tables are swapped"
  consumer replay --into %s --from earliest

  EXCHANGE TABLES %s AND %s;
  RENAME TABLE %s TO %s_before;

  consumer resume --partitions all
`, op.Written, how.into, rebuilt, schema.EventLog, live, schema.EventLog, how.into, schema.EventLog, how.into, how.into, schema.EventLog)
	return nil
}

// takeGone deletes what an earlier run wrote to the table and has been erased, or
// has expired, since.
func (t *tools) takeGone(ctx context.Context, table string, gone *tombstone.Set) error {
	before := int64(math.MinInt64)
	if !gone.Before.IsZero() {
		before = gone.Before.UnixNano()
	}
	for _, condition := range []string{
		fmt.Sprintf("toUnixTimestamp64Nano(occurred_at) < %d", before),
		"event_id IN (SELECT r.event_id FROM " + table + " AS r INNER JOIN (SELECT * FROM " + schema.Tombstones + " FINAL WHERE kind = 'actor') AS t" +
			" ON t.actor = SHA256(r.actor_id) WHERE t.source IN ('', r.source) AND r.occurred_at <= t.upto)",
	} {
		if err := t.store.Conn().Exec(ctx, "ALTER TABLE "+table+" DELETE WHERE "+condition+" SETTINGS mutations_sync = 2"); err != nil {
			return fmt.Errorf("deleting from %s what was erased or has expired: %w", table, err)
		}
	}
	return nil
}

// sameShape makes the table, or checks that every column that is written is in it
// as it is in event_log.
func (t *tools) sameShape(ctx context.Context, table string) error {
	conn := t.store.Conn()
	if err := conn.Exec(ctx, "CREATE TABLE IF NOT EXISTS "+table+" AS "+schema.EventLog); err != nil {
		return fmt.Errorf("making the table %s: %w", table, err)
	}
	rows, err := conn.Query(ctx, `SELECT name, type, sorting_key FROM system.columns AS c
		INNER JOIN (SELECT name AS t, sorting_key FROM system.tables WHERE database = currentDatabase() AND name = ?) AS s ON c.table = s.t
		WHERE database = currentDatabase() AND table = ?`, table, table)
	if err != nil {
		return fmt.Errorf("the shape of %s: %w", table, err)
	}
	defer rows.Close() //nolint:errcheck // Err below tells
	types, key := map[string]string{}, ""
	for rows.Next() {
		var name, kind string
		if err := rows.Scan(&name, &kind, &key); err != nil {
			return fmt.Errorf("the shape of %s: %w", table, err)
		}
		types[name] = kind
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("the shape of %s: %w", table, err)
	}
	for name := range strings.SplitSeq(rowColumns, ", ") {
		if types[name] == "" {
			return fmt.Errorf("the table %s is of another shape: it has no column %s", table, name)
		}
	}
	if types["occurred_at"] != "DateTime64(9, 'UTC')" || types["event_id"] != "UUID" || !strings.HasPrefix(key, "source, event_type, actor_id, occurred_at") {
		return fmt.Errorf("the table %s is of another shape: want event_id UUID, occurred_at DateTime64(9, 'UTC'), and an order that begins with source, event_type, actor_id, occurred_at (it is %q)", table, key)
	}
	return nil
}

// copyOlder copies the rows of which the log has no record.
func (t *tools) copyOlder(ctx context.Context, table string, ranges []planned) (uint64, error) {
	condition := "false"
	for _, r := range ranges {
		for _, x := range r.Stretches(r.From, 1<<62) {
			condition += fmt.Sprintf(" OR topic_id = '%s' AND partition = %d AND offset >= %d", x.Self.TopicID, x.Self.Partition, x.First)
		}
	}
	conn := t.store.Conn()
	count := func() (n uint64, err error) {
		err = conn.QueryRow(ctx, "SELECT count() FROM "+table+" WHERE NOT ("+condition+")").Scan(&n)
		return n, err
	}
	before, err := count()
	if err != nil {
		return 0, fmt.Errorf("rows that the log no longer has: %w", err)
	}
	if err := conn.Exec(ctx, "INSERT INTO "+table+" ("+rowColumns+") SELECT "+rowColumns+" FROM "+schema.EventLog+
		" WHERE NOT ("+condition+") AND event_id NOT IN (SELECT event_id FROM "+table+" WHERE NOT ("+condition+"))"+
		" SETTINGS type_json_skip_duplicated_paths = 1, max_partitions_per_insert_block = 1000"); err != nil {
		return 0, fmt.Errorf("copying rows that the log no longer has: %w", err)
	}
	after, err := count()
	return after - before, err
}

// undecided are records of which nothing is stored.
type undecided struct {
	records int
	first   topic.Origin
}

func (u *undecided) add(at topic.Origin) {
	if u.records++; u.records == 1 {
		u.first = at
	}
}

// rebuild writes a range's rows that the table lacks, but for what was taken on
// purpose.
func (t *tools) rebuild(ctx context.Context, table string, r verify.Range, gone *tombstone.Set, not *undecided, progress func(int64)) (written uint64, err error) {
	if r.From >= r.To {
		return 0, nil
	}
	reader, err := t.kafka.Open(r.Self.Partition, r.From)
	if err != nil {
		return 0, err
	}
	defer reader.Close()
	decoder := batch.NewDecoder(r.Partitions)
	b := batch.New(r.From)
	flush := func() error {
		n, err := t.writeInto(ctx, table, r, gone, not, b)
		written += n
		if err == nil {
			progress(b.Last() + 1 - b.First)
			b = b.Reset(b.Last() + 1)
		}
		return err
	}
	limits := t.cfg.Batch
	limits.Rows = min(limits.Rows, 20_000)
	for reader.Position() < r.To {
		raws, err := reader.Next(ctx)
		if err != nil {
			return written, fmt.Errorf("reading the log: %w", err)
		}
		for _, raw := range raws {
			if raw.Offset >= r.To {
				break
			}
			record := decoder.Decode(raw)
			if !b.Fits(&record, limits) {
				if err := flush(); err != nil {
					return written, err
				}
			}
			b.Add(&record)
		}
	}
	return written, flush()
}

func (t *tools) writeInto(ctx context.Context, table string, r verify.Range, gone *tombstone.Set, not *undecided, b *batch.Batch) (uint64, error) {
	if len(b.Records) == 0 {
		return 0, nil
	}
	var n uint64
	for _, part := range r.Stretches(b.First, b.Last()) {
		fates, err := t.store.FatesIn(ctx, part.Self, part.First, part.Last)
		if err != nil {
			return n, err
		}
		have, err := t.store.RowsOf(ctx, table, part.Self, part.First, part.Last)
		if err != nil {
			return n, err
		}
		stands, err := t.store.RowsIn(ctx, part.Self, part.First, part.Last)
		if err != nil {
			return n, err
		}
		var rows []*batch.Record
		for _, x := range b.Records {
			_, fated := fates[x.Offset]
			_, there := have[x.Offset]
			if x.Offset < part.First || x.Offset > part.Last || x.Reason != "" || fated || there {
				continue
			}
			if _, taken := gone.Fate(&x.Event); taken {
				continue
			}
			if stands[x.Offset] != x.ID {
				not.add(topic.Origin{TopicID: part.Self.TopicID, Partition: part.Self.Partition, Offset: x.Offset})
				continue
			}
			rows = append(rows, x)
		}
		if len(rows) == 0 {
			continue
		}
		if err := t.store.RowsInto(ctx, table, "sluice/into/"+uuid.NewString(), topic.Origin{TopicID: part.Self.TopicID, Partition: part.Self.Partition}, rows); err != nil {
			return n, err
		}
		n += uint64(len(rows))
	}
	return n, nil
}
