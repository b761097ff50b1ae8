-- Up to when the data is whole, as the consumer has proved it: one line a topic,
-- and of several the latest moment stands, so that it never falls. held_by is
-- the edge whose low-water mark it is.
CREATE TABLE IF NOT EXISTS completeness
(
    topic_id UUID,
    complete_through DateTime64(3, 'UTC'),
    held_by String,
    edges UInt32,
    written_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(complete_through)
ORDER BY topic_id
SETTINGS non_replicated_deduplication_window = 1000;

-- Every event that an edge accepted before that moment (by received_at) can be
-- queried, of whatever source: so a source at which nothing happens advances
-- with the others. The sources are by_hour's.
CREATE OR REPLACE VIEW complete_through AS
SELECT s.source AS source, c.at AS complete_through
FROM (SELECT toString(source) AS source FROM event_log GROUP BY source) AS s
CROSS JOIN (SELECT max(completeness.complete_through) AS at FROM completeness HAVING count() > 0) AS c;
