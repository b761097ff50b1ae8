-- What was taken on purpose and must never come back. kind 'actor': the events of
-- an actor, of one source or (source empty) of all, that occurred up to `upto`;
-- the actor is known by its SHA-256, since the name is what had to go. kind
-- 'before': whatever occurred before `upto`. Of several lines of one key the
-- furthest stands.
CREATE TABLE IF NOT EXISTS tombstones
(
    kind Enum8('actor' = 1, 'before' = 2),
    source String,
    actor FixedString(32),
    upto DateTime64(9, 'UTC'),
    operation UUID,
    written_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(upto)
ORDER BY (kind, source, actor)
SETTINGS non_replicated_deduplication_window = 1000;
