package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"sluice/deploy/bench/scratch"
	"sluice/deploy/demo/sample"
)

// The source's shape.
const (
	// partitions of the log: each INSERT is of one, as a consumer's are.
	partitions = 4
	// tenants and crowd multiply the demo's one repository and its 23 authors.
	tenants, crowd = 16, 50
)

// The events arrive evenly over a week, which ends at a moment that stays: two runs
// make the same rows.
var (
	ends = time.Date(2026, 3, 22, 0, 0, 0, 0, time.UTC)
	span = 7 * 24 * time.Hour
)

// sourceDatabase holds what is inserted.
const sourceDatabase = "bench_source"

// inserted are the columns that a consumer's INSERT names.
const inserted = "event_id, client_event_id, source, event_type, actor_id, occurred_at, payload_text, payload_hash, received_at, topic_id, partition, offset, record_timestamp"

// real sends the events of --events as the table real, and says how many they are.
func (b *bench) real(ctx context.Context, c scratch.Client) (int, error) {
	events, err := sample.Events(b.cfg.events)
	if err != nil {
		return 0, err
	}
	if err := c.Exec(ctx, "CREATE TABLE real (nr UInt64, source LowCardinality(String), event_type LowCardinality(String), actor_id String, payload_text String) ENGINE = MergeTree ORDER BY nr"); err != nil {
		return 0, err
	}
	const head = "INSERT INTO real FORMAT JSONEachRow\n"
	body := bytes.NewBufferString(head)
	send := func() error {
		if body.Len() == len(head) {
			return nil
		}
		err := c.Exec(ctx, body.String())
		body.Reset()
		body.WriteString(head)
		return err
	}
	for nr, e := range events {
		if err := json.NewEncoder(body).Encode(map[string]any{"nr": nr, "source": e.Source, "event_type": e.EventType, "actor_id": e.ActorID, "payload_text": string(e.Payload)}); err != nil {
			return 0, err
		}
		if body.Len() > 8<<20 {
			if err := send(); err != nil {
				return 0, err
			}
		}
	}
	return len(events), send()
}

// source makes the rows that every table gets: source, type, actor and payload of
// real events in no order, at milliseconds of the week, 3 % received late, by minutes
// to three weeks. n counts them in the order of the INSERTs. Of two rows of one key
// one is taken, so a few are fewer than were asked for.
func (b *bench) source(ctx context.Context) error {
	if err := b.in("default").Exec(ctx, "CREATE DATABASE "+sourceDatabase); err != nil {
		return err
	}
	c := b.in(sourceDatabase)
	n, err := b.real(ctx, c)
	if err != nil {
		return err
	}
	source, actor := "r.source", "r.actor_id"
	if b.cfg.events == "" {
		source = fmt.Sprintf("concat(r.source, '/', toString(1 + toUInt32(floor(%d * pow(u(1), 2)))))", tenants)
		actor = fmt.Sprintf("lower(hex(cityHash64(r.actor_id, source, floor(%d * pow(u(2), 2)))))", crowd)
	}
	begin := ends.Add(-span)
	if err := c.Exec(ctx, fmt.Sprintf(`
CREATE TABLE rows ENGINE = MergeTree ORDER BY n AS
WITH
    (salt -> (cityHash64(n, salt) %% 1000003) / 1000003.) AS u,
    intDiv(n, %[2]d) AS nr,
    intDiv(nr, %[3]d) * %[2]d + n %% %[2]d AS at,
    toInt64(%[4]d + (at + u(6)) * %[3]d / %[1]d * %[5]d) AS arrived,
    if(u(7) < 0.03, toInt64(60000 * exp(10.3 * u(8))), toInt64(20 + 2000 * pow(u(8), 4))) AS lateness
SELECT
    n,
    reinterpretAsUUID(concat(reinterpretAsString(cityHash64(n, 21)), reinterpretAsString(cityHash64(n, 22)))) AS event_id,
    '' AS client_event_id,
    CAST(%[6]s AS LowCardinality(String)) AS source, r.event_type AS event_type, %[7]s AS actor_id,
    fromUnixTimestamp64Nano((arrived - lateness) * 1000000, 'UTC') AS occurred_at,
    r.payload_text AS payload_text,
    sipHash128(n) AS payload_hash,
    fromUnixTimestamp64Milli(arrived, 'UTC') AS received_at,
    toUUID('00000000-0000-0000-0000-000000000001') AS topic_id, toInt32(nr %% %[3]d) AS partition, toInt64(at) AS offset,
    fromUnixTimestamp64Milli(arrived, 'UTC') AS record_timestamp
FROM (SELECT number AS n, cityHash64(number, 25) %% %[8]d AS pick FROM numbers(%[1]d)) AS x
INNER JOIN real AS r ON r.nr = x.pick
LIMIT 1 BY cityHash64(source, event_type, actor_id, occurred_at)
SETTINGS max_threads = 1`, b.cfg.rows, b.cfg.batch, partitions, begin.UnixMilli(), span.Milliseconds(), source, actor, n)); err != nil {
		return err
	}
	var made struct {
		Rows    int `json:",string"`
		Sources int `json:",string"`
		Actors  int `json:",string"`
	}
	if err := c.One(ctx, "SELECT count() AS Rows, uniqExact(source) AS Sources, uniqExact(actor_id) AS Actors FROM rows", &made); err != nil {
		return err
	}
	b.rows = made.Rows
	b.say("%d rows of %d real events, %d sources, %d actors, %d rows an INSERT", made.Rows, n, made.Sources, made.Actors, b.cfg.batch)
	return nil
}
