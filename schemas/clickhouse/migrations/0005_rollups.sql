-- by_day is the third rollup beside by_minute and by_hour. actives holds one
-- sketch a day over all sources: states of by_day could be merged into it, but
-- a day of many sources and types has many states to read. Its day is written
-- another way, or the engine might answer from by_day.
--
-- Parts that are there get both in the background; until then a part without
-- them is read as it is, so the views are right from the first moment.
ALTER TABLE event_log ADD PROJECTION IF NOT EXISTS by_day
(
    SELECT toDate32(occurred_at) AS day, source, event_type, count(), uniqCombined64(actor_id)
    GROUP BY day, source, event_type
),
ADD PROJECTION IF NOT EXISTS actives
(
    SELECT toDate32(occurred_at, 'UTC') AS day, count(), uniqCombined64(actor_id)
    GROUP BY day
);

ALTER TABLE event_log MATERIALIZE PROJECTION IF EXISTS by_day, MATERIALIZE PROJECTION IF EXISTS actives;

-- Must group by the very expression of the projection by_day.
CREATE OR REPLACE VIEW events_per_day AS
SELECT toDate32(occurred_at) AS day, source, event_type, count() AS events, uniqCombined64(actor_id) AS actors
FROM event_log
GROUP BY day, source, event_type;

-- Must group by the very expression of the projection actives.
CREATE OR REPLACE VIEW events_daily_actives AS
SELECT toDate32(occurred_at, 'UTC') AS day, uniqCombined64(actor_id) AS actors, count() AS events
FROM event_log
GROUP BY day;

-- Merged from the states of by_day.
CREATE OR REPLACE VIEW source_daily_actives AS
SELECT toDate32(occurred_at) AS day, source, uniqCombined64(actor_id) AS actors, count() AS events
FROM event_log
GROUP BY day, source;

-- events without FINAL: right as long as no row is stored twice, which is what
-- the rollups stand on too, and what events_guard watches.
CREATE OR REPLACE VIEW events_physical AS
SELECT
    event_id, client_event_id, source, event_type, actor_id, occurred_at,
    payload, payload_text, received_at, inserted_at, topic_id, partition, offset
FROM event_log;

-- What is stored and for how many records, by 65,536 offsets of a partition:
-- a record that is stored twice is seen at once, from the projection.
CREATE OR REPLACE VIEW events_guard AS
SELECT topic_id, partition, sum(stored) AS rows, sum(origins) AS records, rows - records AS repeats
FROM
(
    SELECT
        topic_id, partition, intDiv(offset, 65536) AS block, count() AS stored,
        bitmapCardinality(groupBitmapState(toUInt32(bitAnd(offset, 65535)))) AS origins
    FROM event_log
    GROUP BY topic_id, partition, block
)
GROUP BY topic_id, partition;

-- Codecs by measurement (deploy/docs/bench-questions.md); parts take them when
-- they are written or merged. Hashes do not compress. Times are often whole
-- seconds or milliseconds, which is what GCD takes out.
ALTER TABLE event_log MODIFY COLUMN event_id UUID CODEC(NONE),
MODIFY COLUMN payload_hash FixedString(16) CODEC(NONE),
MODIFY COLUMN occurred_at DateTime64(9, 'UTC') CODEC(GCD, ZSTD(1)),
MODIFY COLUMN partition Int32 CODEC(T64, ZSTD(1)),
MODIFY COLUMN offset Int64 CODEC(Delta, ZSTD(1));
