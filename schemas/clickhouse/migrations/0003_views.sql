-- FINAL: one row per event also while a repeated row is not yet merged away.
CREATE OR REPLACE VIEW events AS
SELECT
    event_id, client_event_id, source, event_type, actor_id, occurred_at,
    payload, payload_text, received_at, inserted_at, topic_id, partition, offset
FROM event_log FINAL;

-- Must group by the very expression of the projection by_minute.
CREATE OR REPLACE VIEW events_per_minute AS
SELECT
    fromUnixTimestamp64Second(intDiv(toUnixTimestamp64Nano(occurred_at) - positiveModulo(toUnixTimestamp64Nano(occurred_at), toInt64(60000000000)), 1000000000), 'UTC') AS minute,
    source, event_type, count() AS events, uniqCombined64(actor_id) AS actors
FROM event_log
GROUP BY minute, source, event_type;

-- Must group by the very expression of the projection by_hour.
CREATE OR REPLACE VIEW events_per_hour AS
SELECT
    fromUnixTimestamp64Second(intDiv(toUnixTimestamp64Nano(occurred_at) - positiveModulo(toUnixTimestamp64Nano(occurred_at), toInt64(3600000000000)), 1000000000), 'UTC') AS hour,
    source, event_type, count() AS events, uniqCombined64(actor_id) AS actors
FROM event_log
GROUP BY hour, source, event_type;

-- One row per key and payload that lost to an earlier one. first_ and last_
-- are the origins of the first and the last record that carried it.
CREATE OR REPLACE VIEW event_conflicts AS
SELECT
    c.source AS source, c.event_type AS event_type, c.actor_id AS actor_id, c.occurred_at AS occurred_at,
    any(c.event_id) AS event_id,
    argMin(c.payload_text, (c.record_timestamp, c.topic_id, c.partition, c.offset)) AS payload_text,
    count() AS times_seen,
    argMin(c.topic_id, (c.record_timestamp, c.topic_id, c.partition, c.offset)) AS first_topic_id,
    argMin(c.partition, (c.record_timestamp, c.topic_id, c.partition, c.offset)) AS first_partition,
    argMin(c.offset, (c.record_timestamp, c.topic_id, c.partition, c.offset)) AS first_offset,
    argMax(c.topic_id, (c.record_timestamp, c.topic_id, c.partition, c.offset)) AS last_topic_id,
    argMax(c.partition, (c.record_timestamp, c.topic_id, c.partition, c.offset)) AS last_partition,
    argMax(c.offset, (c.record_timestamp, c.topic_id, c.partition, c.offset)) AS last_offset
FROM (SELECT * FROM journal FINAL WHERE entry = 'fate' AND fate = 'conflict') AS c
GROUP BY source, event_type, actor_id, occurred_at, c.payload_hash;

-- The balance sheet. Records are what the journaled batches saw; fates are the
-- journal's; rows are counted in event_log by their origin, within journaled
-- ranges and below the first of them, so that a row not yet journaled is not
-- missed and a row that no batch accounts for is seen.
--
-- A partition's batches make one range unless there are gaps. The projection
-- origins answers which of 65,536 offsets are rows, as a bitmap of which each
-- range takes its part.
CREATE OR REPLACE VIEW balance AS
WITH
    batches AS
    (
        SELECT
            topic_id, partition, offset, last_offset + 1 AS reach, records,
            offset > max(last_offset + 1) OVER (PARTITION BY topic_id, partition ORDER BY offset ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS gap
        FROM journal FINAL
        WHERE entry = 'batch'
    ),
    numbered AS
    (
        SELECT
            topic_id, partition, offset, reach, records,
            sum(gap) OVER (PARTITION BY topic_id, partition ORDER BY offset ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS nr
        FROM batches
    ),
    ranges AS
    (
        SELECT topic_id, partition, min(offset) AS first, max(reach) AS end, sum(numbered.records) AS seen
        FROM numbered
        GROUP BY topic_id, partition, nr
    ),
    journaled AS
    (
        SELECT topic_id, partition, sum(seen) AS seen, min(end) AS contiguous_end, groupArray((first, end)) AS spans
        FROM ranges
        GROUP BY topic_id, partition
    ),
    blocks AS
    (
        SELECT topic_id, partition, intDiv(offset, 65536) AS block, groupBitmapState(toUInt32(bitAnd(offset, 65535))) AS origins
        FROM event_log
        GROUP BY topic_id, partition, block
    ),
    stored AS
    (
        SELECT
            j.topic_id AS topic_id, j.partition AS partition, any(j.seen) AS records,
            sum(arraySum(
                span -> bitmapCardinality(bitmapSubsetInRange(
                    b.origins,
                    toUInt32(least(greatest(if(span.2 = j.contiguous_end, 0, span.1) - b.block * 65536, 0), 65536)),
                    toUInt32(least(greatest(span.2 - b.block * 65536, 0), 65536)))),
                j.spans)) AS rows
        FROM journaled AS j
        LEFT JOIN blocks AS b ON j.topic_id = b.topic_id AND j.partition = b.partition
        GROUP BY topic_id, partition
    ),
    fates AS
    (
        SELECT
            topic_id, partition,
            sumIf(journal.records, fate = 'duplicate') AS duplicates,
            sumIf(journal.records, fate = 'conflict') AS conflicts,
            sumIf(journal.records, fate = 'dead_letter') AS dead_lettered,
            sumIf(journal.records, fate = 'forwarded') AS forwarded,
            sumIf(journal.records, fate = 'expired') AS expired,
            sumIf(journal.records, fate = 'erased') AS erased,
            sumIf(journal.records, fate = 'skipped') AS skipped,
            sumIf(journal.records, fate = 'lost') AS lost,
            sumIf(journal.records, fate = 'cut') AS cut
        FROM journal FINAL
        WHERE entry = 'fate'
        GROUP BY topic_id, partition
    )
SELECT
    s.topic_id AS topic_id,
    s.partition AS partition,
    s.records AS records,
    s.rows AS rows,
    f.duplicates AS duplicates,
    f.conflicts AS conflicts,
    f.dead_lettered AS dead_lettered,
    f.forwarded AS forwarded,
    f.expired AS expired,
    f.erased AS erased,
    f.skipped AS skipped,
    f.lost AS lost,
    f.cut AS cut,
    toInt64(s.records) - toInt64(s.rows + f.duplicates + f.conflicts + f.dead_lettered + f.forwarded + f.expired + f.erased + f.skipped + f.lost + f.cut) AS difference
FROM stored AS s
LEFT JOIN fates AS f ON s.topic_id = f.topic_id AND s.partition = f.partition
SETTINGS join_use_nulls = 0;
