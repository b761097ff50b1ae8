// Package operations is the record of what people did, and of what others made
// the consumer do: who, when, from where to where, what was found, what was
// written, and how it ended. It stands in ClickHouse's table operations.
package operations

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/uuid"
)

// The kinds of operations.
const (
	Replay     = "replay"
	ReplayInto = "replay into"
	Reread     = "re-read" // the group's offset was set back by other tools
	Jump       = "jump"    // it was set forward, and not followed
	Redrive    = "redrive"
	Discard    = "discard"
	Pause      = "pause"
	Resume     = "resume"
	Skip       = "skip"
	SetOffsets = "offsets set"
	GrowTopic  = "topic grow"
	Promote    = "schema promote"
	DeadLetter = "dead letter" // what became of one of them
	Group      = "group"       // which consumer group writes a topic's rows
)

// The states of an operation.
const (
	Running     = "running"
	Done        = "done"
	Failed      = "failed"
	Interrupted = "interrupted"
)

// Operation is one of them. The zero Started is set to now when it is written.
type Operation struct {
	ID      uuid.UUID        `json:"id"`
	Kind    string           `json:"kind"`
	State   string           `json:"state"`
	Who     string           `json:"who"`
	Detail  string           `json:"detail"`
	From    map[int32]int64  `json:"from"`
	To      map[int32]int64  `json:"to"`
	Found   map[string]int64 `json:"found"`
	Written uint64           `json:"written"`
	Outcome string           `json:"outcome"`
	Started time.Time        `json:"started_at"`
	Updated time.Time        `json:"updated_at"`
}

// writing is the namespace of the ids that topics have in operations.
var writing = uuid.NewSHA1(uuid.NameSpaceURL, []byte("sluice group"))

// GroupOf says which consumer group writes the rows of a topic. Written again it
// replaces itself: there is one at a time.
func GroupOf(topicID uuid.UUID, group, who string) *Operation {
	return &Operation{
		ID: uuid.NewSHA1(writing, topicID[:]), Kind: Group, State: Done, Who: who, Detail: group, Outcome: topicID.String(),
	}
}

// Log is the table.
type Log struct{ Conn driver.Conn }

// Write writes operations, or writes them again: of one id the last written
// stands. It returns when they are stored.
func (l Log) Write(ctx context.Context, ops ...*Operation) error {
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{
		"async_insert": 0, "insert_deduplicate": 0,
	}))
	b, err := l.Conn.PrepareBatch(ctx, "INSERT INTO operations (id, kind, state, who, detail, from_offsets, to_offsets, found, written, outcome, started_at, updated_at)")
	if err != nil {
		return fmt.Errorf("writing to the table operations: %w", err)
	}
	defer b.Close() //nolint:errcheck // after Send it has nothing left to say
	for _, o := range ops {
		o.Updated = time.Now().UTC()
		if o.Started.IsZero() {
			o.Started = o.Updated
		}
		if err := b.Append(o.ID, o.Kind, o.State, o.Who, o.Detail, text(o.From), text(o.To), text(o.Found), o.Written, o.Outcome, o.Started, o.Updated); err != nil {
			return fmt.Errorf("writing to the table operations: %w", err)
		}
	}
	if err := b.Send(); err != nil {
		return fmt.Errorf("writing to the table operations: %w", err)
	}
	return nil
}

func text[K int32 | string](m map[K]int64) string {
	if len(m) == 0 {
		return ""
	}
	b, _ := json.Marshal(m) // plain keys and numbers: it cannot fail
	return string(b)
}

const columns = "id, toString(kind), toString(state), who, detail, from_offsets, to_offsets, found, written, outcome, started_at, updated_at"

// List returns the newest operations, newest first, at most limit. kinds chooses;
// none: all but what became of single dead letters.
func (l Log) List(ctx context.Context, limit int, kinds ...string) ([]Operation, error) {
	where, args := "kind != ?", []any{DeadLetter}
	if len(kinds) > 0 {
		where, args = "has(?, toString(kind))", []any{kinds}
	}
	return l.query(ctx, where+" ORDER BY started_at DESC, id LIMIT ?", append(args, limit)...)
}

// Get returns one operation; ok is false when there is none of this id.
func (l Log) Get(ctx context.Context, id uuid.UUID) (o Operation, ok bool, err error) {
	all, err := l.query(ctx, "id = ?", id)
	if err != nil || len(all) == 0 {
		return o, false, err
	}
	return all[0], true, nil
}

func (l Log) query(ctx context.Context, where string, args ...any) ([]Operation, error) {
	rows, err := l.Conn.Query(ctx, "SELECT "+columns+" FROM operations FINAL WHERE "+where, args...)
	if err != nil {
		return nil, fmt.Errorf("reading the table operations: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err below tells
	var out []Operation
	for rows.Next() {
		var o Operation
		var from, to, found string
		if err := rows.Scan(&o.ID, &o.Kind, &o.State, &o.Who, &o.Detail, &from, &to, &found, &o.Written, &o.Outcome, &o.Started, &o.Updated); err != nil {
			return nil, fmt.Errorf("reading the table operations: %w", err)
		}
		for _, f := range []struct {
			text string
			into any
		}{{from, &o.From}, {to, &o.To}, {found, &o.Found}} {
			if f.text == "" {
				continue
			}
			if err := json.Unmarshal([]byte(f.text), f.into); err != nil {
				return nil, fmt.Errorf("operation %s: %w", o.ID, err)
			}
		}
		out = append(out, o)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading the table operations: %w", err)
	}
	return out, nil
}
