-- by_actor finds an actor's rows by the number of each in its part: the sorting
-- key begins with source and type, so without it every row is read.
ALTER TABLE event_log ADD PROJECTION IF NOT EXISTS by_actor (SELECT _part_offset ORDER BY actor_id);

-- late counts events by the day they were received and by how many seconds after
-- they occurred, at the least: how long a number of the past still grows. Whole
-- numbers, because a function of times that throws would fail the INSERT.
ALTER TABLE event_log ADD PROJECTION IF NOT EXISTS late
(
    SELECT
        toDate32(received_at) AS day, source,
        multiIf((toUnixTimestamp64Milli(received_at) - intDiv(toUnixTimestamp64Nano(occurred_at), 1000000)) < 60000, 0, (toUnixTimestamp64Milli(received_at) - intDiv(toUnixTimestamp64Nano(occurred_at), 1000000)) < 3600000, 60, (toUnixTimestamp64Milli(received_at) - intDiv(toUnixTimestamp64Nano(occurred_at), 1000000)) < 86400000, 3600, (toUnixTimestamp64Milli(received_at) - intDiv(toUnixTimestamp64Nano(occurred_at), 1000000)) < 604800000, 86400, 604800) AS late_from,
        count()
    GROUP BY day, source, late_from
);

ALTER TABLE event_log MATERIALIZE PROJECTION IF EXISTS by_actor;

ALTER TABLE event_log MATERIALIZE PROJECTION IF EXISTS late;

-- Must group by the very expressions of the projection late.
CREATE OR REPLACE VIEW late_events_per_day AS
SELECT
    toDate32(received_at) AS day, source,
    multiIf((toUnixTimestamp64Milli(received_at) - intDiv(toUnixTimestamp64Nano(occurred_at), 1000000)) < 60000, 0, (toUnixTimestamp64Milli(received_at) - intDiv(toUnixTimestamp64Nano(occurred_at), 1000000)) < 3600000, 60, (toUnixTimestamp64Milli(received_at) - intDiv(toUnixTimestamp64Nano(occurred_at), 1000000)) < 86400000, 3600, (toUnixTimestamp64Milli(received_at) - intDiv(toUnixTimestamp64Nano(occurred_at), 1000000)) < 604800000, 86400, 604800) AS late_from,
    count() AS events
FROM event_log
GROUP BY day, source, late_from;
