-- What became of every record that is not a row, and which offset ranges are
-- done. An entry is known by its origin, and of several with one origin the
-- first written stands: version is the inverted time of writing. One table
-- partition, so that an INSERT of entries is all or none.
CREATE TABLE IF NOT EXISTS journal
(
    topic_id UUID,
    topic LowCardinality(String),
    partition Int32,
    entry Enum8('batch' = 1, 'fate' = 2),
    offset Int64 CODEC(Delta, ZSTD(1)),
    last_offset Int64 CODEC(Delta, ZSTD(1)),
    fate LowCardinality(String),
    records UInt64 CODEC(ZSTD(1)),
    rows UInt64 CODEC(ZSTD(1)),
    rule_version UInt16 CODEC(ZSTD(1)),
    batch_hash FixedString(16) CODEC(ZSTD(1)),
    leader_epoch Int32 CODEC(ZSTD(1)),
    event_id UUID CODEC(ZSTD(1)),
    source LowCardinality(String),
    event_type LowCardinality(String),
    actor_id String CODEC(ZSTD(1)),
    occurred_at DateTime64(9, 'UTC') CODEC(ZSTD(1)),
    payload_text String CODEC(ZSTD(1)),
    payload_hash FixedString(16) CODEC(ZSTD(1)),
    first_topic_id UUID CODEC(ZSTD(1)),
    first_partition Int32 CODEC(ZSTD(1)),
    first_offset Int64 CODEC(ZSTD(1)),
    reason LowCardinality(String),
    detail String CODEC(ZSTD(1)),
    forwarded_to Int32 CODEC(ZSTD(1)),
    record_timestamp DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    journaled_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1)),
    version UInt64 MATERIALIZED bitNot(toUInt64(toUnixTimestamp64Nano(now64(9)))) CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (topic_id, partition, entry, offset)
SETTINGS non_replicated_deduplication_window = 10000;

-- What people did: replays, skips, erasures, retention. One line per operation,
-- written again with a later updated_at when its state changes.
CREATE TABLE IF NOT EXISTS operations
(
    id UUID,
    kind LowCardinality(String),
    state LowCardinality(String),
    who String,
    detail String,
    started_at DateTime64(3, 'UTC'),
    updated_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(updated_at)
ORDER BY id
SETTINGS non_replicated_deduplication_window = 1000;
