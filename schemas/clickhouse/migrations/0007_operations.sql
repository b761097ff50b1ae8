-- What an operation was about: the offsets it began and ended at, by partition
-- (JSON, {"0":1200}); what it found (JSON, {"missing":3}); how many rows and fates
-- were written for it; and how it ended, in words.
--
-- One line per dead letter that somebody dealt with stands here too (kind "dead
-- letter", detail its origin), so that it is not put through twice.
ALTER TABLE operations ADD COLUMN IF NOT EXISTS from_offsets String AFTER detail;

ALTER TABLE operations ADD COLUMN IF NOT EXISTS to_offsets String AFTER from_offsets;

ALTER TABLE operations ADD COLUMN IF NOT EXISTS found String AFTER to_offsets;

ALTER TABLE operations ADD COLUMN IF NOT EXISTS written UInt64 AFTER found;

ALTER TABLE operations ADD COLUMN IF NOT EXISTS outcome String AFTER written;
