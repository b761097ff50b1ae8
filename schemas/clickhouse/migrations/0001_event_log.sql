-- One row per event.
--
-- The consumer inserts event_id to record_timestamp and inserts nothing else;
-- the server computes the rest. An event's key is the sorting key, and the
-- month is a function of it, so that all rows of a key meet in one partition.
--
-- payload: no payload may make an INSERT fail, and the cast throws for two kinds
-- of I-JSON. A number that the type cannot hold (an integer of 2^64 or more,
-- 1e999): the column is {}. Two names of one path, as in {"a":{"b":1},"a.b":2}:
-- the INSERT must set type_json_skip_duplicated_paths, as the consumer does.
-- (JSONExtract never throws, but turns [1,"x"] into [1,null] where an earlier
-- row had numbers.)
--
-- 32 paths and no types of their own bound the files of a part. With the
-- defaults (1024 and 32) one row of nested arrays needs more than a process may
-- open, and with even 2 types 12,000 rows of them do, each object inside an array
-- having files for every type: the INSERT or merge fails for good. Other paths are
-- shared, as right but read slower. They are kept in map_with_buckets, because merging a million distinct names in the
-- default form ("advanced") took 21 GiB and did not end.
--
-- version: of several rows of one key a merge keeps the one with the greatest
-- version, which is the earliest record: timestamp, then offset, inverted.
--
-- by_minute and by_hour: toStartOfMinute overflows before 1970 and after 2106,
-- hence the arithmetic, which events_per_minute and events_per_hour repeat to
-- the letter. by_origin finds rows by offset. origins holds, per 65,536
-- offsets of a partition, which of them are rows: balance counts with it.
CREATE TABLE IF NOT EXISTS event_log
(
    event_id UUID,
    client_event_id String CODEC(ZSTD(1)),
    source LowCardinality(String),
    event_type LowCardinality(String),
    actor_id String CODEC(ZSTD(1)),
    occurred_at DateTime64(9, 'UTC') CODEC(ZSTD(1)),
    payload_text String CODEC(ZSTD(1)),
    payload_hash FixedString(16),
    received_at DateTime64(3, 'UTC') CODEC(ZSTD(1)),
    topic_id UUID CODEC(ZSTD(1)),
    partition Int32 CODEC(ZSTD(1)),
    offset Int64 CODEC(ZSTD(1)),
    record_timestamp DateTime64(3, 'UTC') CODEC(ZSTD(1)),
    payload JSON(max_dynamic_paths = 32, max_dynamic_types = 0)
        MATERIALIZED if(isValidJSON(payload_text) AND match(payload_text, '^\\s*[{]'), payload_text, '{}')::JSON(max_dynamic_paths = 32, max_dynamic_types = 0) CODEC(ZSTD(1)),
    inserted_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(ZSTD(1)),
    version UInt128
        MATERIALIZED bitNot(bitOr(bitShiftLeft(toUInt128(greatest(toUnixTimestamp64Milli(record_timestamp), 0)), 64), toUInt128(offset))) CODEC(ZSTD(1)),
    PROJECTION by_minute
    (
        SELECT
            fromUnixTimestamp64Second(intDiv(toUnixTimestamp64Nano(occurred_at) - positiveModulo(toUnixTimestamp64Nano(occurred_at), toInt64(60000000000)), 1000000000), 'UTC') AS minute,
            source, event_type, count(), uniqCombined64(actor_id)
        GROUP BY minute, source, event_type
    ),
    PROJECTION by_hour
    (
        SELECT
            fromUnixTimestamp64Second(intDiv(toUnixTimestamp64Nano(occurred_at) - positiveModulo(toUnixTimestamp64Nano(occurred_at), toInt64(3600000000000)), 1000000000), 'UTC') AS hour,
            source, event_type, count(), uniqCombined64(actor_id)
        GROUP BY hour, source, event_type
    ),
    PROJECTION by_origin (SELECT _part_offset ORDER BY topic_id, partition, offset),
    PROJECTION origins
    (
        SELECT topic_id, partition, intDiv(offset, 65536) AS block, groupBitmapState(toUInt32(bitAnd(offset, 65535)))
        GROUP BY topic_id, partition, block
    )
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(occurred_at)
ORDER BY (source, event_type, actor_id, occurred_at)
SETTINGS
    non_replicated_deduplication_window = 10000,
    deduplicate_merge_projection_mode = 'rebuild',
    lightweight_mutation_projection_mode = 'rebuild',
    object_shared_data_serialization_version = 'map_with_buckets',
    object_shared_data_buckets_for_compact_part = 2,
    object_shared_data_buckets_for_wide_part = 2;
