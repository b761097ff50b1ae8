-- barrier: from this entry on the partition decides by a topic of `offset`
-- partitions (last_offset is the same). No offset of the log is meant, so a
-- barrier is neither a range nor a fate.
--
-- cut: the log took back offset to last_offset after they were decided, and
-- goes on under the log id first_topic_id. An entry of its own, since the first
-- record that is gone may have a fate, and of two fates at one offset only the
-- first stands.
ALTER TABLE journal MODIFY COLUMN entry Enum8('batch' = 1, 'fate' = 2, 'barrier' = 3, 'cut' = 4);

-- The window counts parts, and a batch makes one for each month it touches: of
-- twenty years in 96 partitions, 23,000 may be in flight at once.
ALTER TABLE event_log MODIFY SETTING non_replicated_deduplication_window = 100000;

-- What origins holds, per 65,536 offsets of a partition which of them are rows,
-- and besides how many rows are stored there, repeats and all.
ALTER TABLE event_log ADD PROJECTION IF NOT EXISTS origin_blocks
(
    SELECT topic_id, partition, intDiv(offset, 65536) AS block, groupBitmapState(toUInt32(bitAnd(offset, 65535))), count()
    GROUP BY topic_id, partition, block
);

ALTER TABLE event_log MATERIALIZE PROJECTION IF EXISTS origin_blocks;

ALTER TABLE event_log DROP PROJECTION IF EXISTS origins;

-- The balance sheet. Records are what the journaled batches saw; fates are the
-- journal's; rows are counted in event_log by their origin. All three within
-- journaled ranges (a row or fate not yet journaled is not missed) and below
-- the first of them (a row that no batch accounts for is seen).
--
-- difference is made of sets of offsets, so that a record counted twice can't
-- make up for one that is missing: where fewer offsets have a row or a fate than
-- there were records, it is how many fewer; else it is, negative, how many more,
-- plus those that have both (which `twice` gives by themselves).
--
-- cut is no part of it: a record that the log took back after it was decided is
-- counted as what it was decided to be, and its row stands.
--
-- A partition's batches make one range unless there are gaps. The projection
-- origin_blocks answers which of 65,536 offsets are rows, as a bitmap of which
-- each range takes its part; fates of single records are made such bitmaps too.
-- A fate of a range is its count of records, and lies where it begins.
CREATE OR REPLACE VIEW balance AS
WITH
    (offsets, block, spans) -> arraySum(
        span -> bitmapCardinality(bitmapSubsetInRange(
            offsets,
            toUInt32(least(greatest(span.1 - block * 65536, 0), 65536)),
            toUInt32(least(greatest(span.2 - block * 65536, 0), 65536)))),
        arrayFilter(span -> span.1 < (block + 1) * 65536 AND span.2 > block * 65536, spans)) AS inside,
    batches AS
    (
        SELECT
            topic_id, partition, offset, last_offset + 1 AS reach, records,
            max(last_offset + 1) OVER (PARTITION BY topic_id, partition ORDER BY offset ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before,
            row_number() OVER (PARTITION BY topic_id, partition ORDER BY offset) > 1 AND offset > before AS gap
        FROM journal FINAL
        WHERE entry = 'batch'
    ),
    numbered AS
    (
        SELECT
            topic_id, partition, offset, reach, batches.records AS records,
            greatest(least(reach, before) - offset, 0) AS again,
            sum(gap) OVER (PARTITION BY topic_id, partition ORDER BY offset ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS nr
        FROM batches
    ),
    ranges AS
    (
        SELECT topic_id, partition, if(nr = 0, 0, min(offset)) AS first, max(reach) AS end, sum(numbered.records) AS seen, sum(again) AS again
        FROM numbered
        GROUP BY topic_id, partition, nr
    ),
    journaled AS
    (
        SELECT
            topic_id, partition, sum(seen) AS seen, count() - 1 AS gaps, sum(ranges.again) AS overlaps,
            arraySort(groupArray((first, end))) AS spans
        FROM ranges
        GROUP BY topic_id, partition
    ),
    lines AS
    (
        SELECT
            topic_id, partition, intDiv(offset, 65536) AS block, 'row' AS kind, toInt64(-1) AS range_at, toUInt64(0) AS range_records,
            groupBitmapState(toUInt32(bitAnd(offset, 65535))) AS offsets, count() AS stored
        FROM event_log
        GROUP BY topic_id, partition, block
        UNION ALL
        SELECT
            topic_id, partition, intDiv(offset, 65536) AS block, toString(fate) AS kind,
            if(fate != 'cut' AND offset = last_offset AND journal.records = 1, toInt64(-1), offset) AS range_at,
            sumIf(journal.records, range_at >= 0) AS range_records,
            groupBitmapStateIf(toUInt32(bitAnd(offset, 65535)), range_at < 0) AS offsets, toUInt64(0) AS stored
        FROM journal FINAL
        WHERE entry IN ('fate', 'cut')
        GROUP BY topic_id, partition, block, kind, range_at
    ),
    counted AS
    (
        SELECT
            j.topic_id AS topic_id, j.partition AS partition, j.seen AS seen, j.gaps AS gaps, j.overlaps AS overlaps, j.spans AS spans,
            l.block AS block, l.kind AS kind, l.offsets AS offsets, l.stored AS stored,
            inside(l.offsets, l.block, j.spans) AS singles,
            if(l.range_records > 0 AND arrayExists(span -> l.range_at >= span.1 AND l.range_at < span.2, j.spans), l.range_records, 0) AS ranged
        FROM journaled AS j
        LEFT JOIN lines AS l ON j.topic_id = l.topic_id AND j.partition = l.partition
    ),
    blocks AS
    (
        SELECT
            topic_id, partition, any(seen) AS seen, any(gaps) AS gaps, any(overlaps) AS overlaps,
            inside(groupBitmapMergeState(offsets), block, any(spans)) AS known,
            sum(singles) AS singles,
            sumIf(ranged, kind != 'cut') AS ranged,
            sum(counted.stored) AS stored,
            sumIf(bitmapCardinality(offsets), kind = 'row') AS origins,
            sumIf(counted.singles, kind = 'row') AS rows,
            sumIf(counted.singles + counted.ranged, kind = 'duplicate') AS duplicates,
            sumIf(counted.singles + counted.ranged, kind = 'conflict') AS conflicts,
            sumIf(counted.singles + counted.ranged, kind = 'dead_letter') AS dead_lettered,
            sumIf(counted.singles + counted.ranged, kind = 'forwarded') AS forwarded,
            sumIf(counted.singles + counted.ranged, kind = 'expired') AS expired,
            sumIf(counted.singles + counted.ranged, kind = 'erased') AS erased,
            sumIf(counted.singles + counted.ranged, kind = 'skipped') AS skipped,
            sumIf(counted.singles + counted.ranged, kind = 'lost') AS lost,
            sumIf(counted.singles + counted.ranged, kind = 'cut') AS cut
        FROM counted
        GROUP BY topic_id, partition, block
    ),
    sheet AS
    (
        SELECT
            topic_id, partition, any(seen) AS records, any(gaps) AS gaps, any(overlaps) AS overlaps,
            sum(known) + sum(ranged) AS known, sum(singles) - sum(blocks.known) AS twice, sum(stored) - sum(origins) AS repeats,
            sum(rows) AS rows, sum(duplicates) AS duplicates, sum(conflicts) AS conflicts, sum(dead_lettered) AS dead_lettered,
            sum(forwarded) AS forwarded, sum(expired) AS expired, sum(erased) AS erased, sum(skipped) AS skipped, sum(lost) AS lost, sum(cut) AS cut
        FROM blocks
        GROUP BY topic_id, partition
    )
SELECT
    topic_id, partition, records, rows, duplicates, conflicts, dead_lettered, forwarded, expired, erased, skipped, lost, cut,
    toInt64(records) - toInt64(known) - if(records > known, 0, toInt64(twice)) AS difference,
    toUInt64(gaps) AS gaps, toUInt64(overlaps) AS overlaps, toUInt64(repeats) AS repeats, toUInt64(twice) AS twice
FROM sheet
SETTINGS join_use_nulls = 0;
