-- What a fleet needs beside its leases.

-- 64 random bits each, read as signed numbers; NULL for a worker that does not write them.
ALTER TABLE shardwell_workers ADD COLUMN incarnation INTEGER;
ALTER TABLE shardwell_workers ADD COLUMN beat INTEGER;
-- A sorted JSON array of the streams that the worker consumes; NULL for a worker that takes leases of any.
ALTER TABLE shardwell_workers ADD COLUMN streams TEXT;

-- Sorted JSON arrays of worker ids; those of standbys in the leader's order.
ALTER TABLE shardwell_leaders ADD COLUMN standbys TEXT NOT NULL DEFAULT '[]';
ALTER TABLE shardwell_fleets ADD COLUMN draining TEXT NOT NULL DEFAULT '[]';
