package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/uuid"

	"sluice/consumer/internal/monitor"
	"sluice/consumer/internal/operations"
	"sluice/consumer/internal/partition"
)

// audit passes what owners say to the monitor, and writes down what others did to
// the group's offsets. It never holds an owner up.
type audit struct {
	mon    *monitor.Monitor
	log    *slog.Logger
	to     operations.Log
	events chan partition.Event
}

func newAudit(conn driver.Conn, mon *monitor.Monitor, log *slog.Logger) *audit {
	return &audit{mon: mon, log: log, to: operations.Log{Conn: conn}, events: make(chan partition.Event, 1024)}
}

func (a *audit) happened(e partition.Event) {
	a.mon.Happened(e)
	if !e.Progress.Done || e.Kind == partition.Paused {
		return
	}
	select {
	case a.events <- e:
	default:
		a.log.Warn("what happened to a partition's offset is not written down: too much at once", "partition", e.Partition, "kind", e.Kind)
	}
}

// run writes until ctx ends, then what is left.
func (a *audit) run(ctx context.Context) {
	for {
		select {
		case e := <-a.events:
			a.write(ctx, e)
			continue
		default:
		}
		select {
		case e := <-a.events:
			a.write(ctx, e)
		case <-ctx.Done():
			for len(a.events) > 0 {
				a.write(ctx, <-a.events)
			}
			return
		}
	}
}

func (a *audit) write(ctx context.Context, e partition.Event) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	op := operations.Operation{
		ID: uuid.New(), State: operations.Done, Who: "consumer@" + hostname(),
		From: map[int32]int64{e.Partition: e.From}, To: map[int32]int64{e.Partition: e.To},
	}
	switch p := e.Progress; e.Kind {
	case partition.SetBack, partition.TakenOver:
		op.Kind, op.Detail = operations.Reread, fmt.Sprintf("partition %d: %s", e.Partition, e.Kind)
		op.Written = uint64(p.Written + p.Journaled)
		op.Found = map[string]int64{
			"records": int64(p.Records), "present": int64(p.Records - p.Written - p.Journaled),
			"missing": int64(p.Written + p.Journaled), "rows_written": int64(p.Written), "fates_written": int64(p.Journaled),
		}
		op.Outcome = fmt.Sprintf("partition %d: read again from %d to %d: %d records, %d rows and %d fates were missing and are written", e.Partition, e.From, e.To, p.Records, p.Written, p.Journaled)
	case partition.JumpNotFollowed:
		op.Kind, op.Detail = operations.Jump, fmt.Sprintf("partition %d: the group's offset was set to %d", e.Partition, e.To)
		op.Outcome = fmt.Sprintf("partition %d: the jump to %d was not followed: ClickHouse is whole up to %d, and the consumer went on from there; \"consumer skip\" passes over records", e.Partition, e.To, e.From)
	}
	if err := a.to.Write(ctx, &op); err != nil {
		a.log.Warn("what happened to a partition's offset could not be written down", "partition", e.Partition, "kind", e.Kind, "error", err)
	}
}
