-- Sequence numbers and hash keys are decimal text: they do not fit 64 bits. Sets of shard ids are sorted JSON arrays.
CREATE TABLE shardwell_leases (
    application TEXT NOT NULL,
    lease_key TEXT NOT NULL,
    stream TEXT,
    shard_id TEXT NOT NULL,
    lease_owner TEXT,
    lease_counter INTEGER NOT NULL,
    owner_switches_since_checkpoint INTEGER NOT NULL,
    checkpoint TEXT NOT NULL,
    checkpoint_sub_sequence_number INTEGER NOT NULL,
    pending_checkpoint TEXT,
    pending_checkpoint_sub_sequence_number INTEGER,
    pending_checkpoint_state BLOB,
    parent_shard_ids TEXT NOT NULL,
    child_shard_ids TEXT NOT NULL,
    starting_hash_key TEXT,
    ending_hash_key TEXT,
    throughput_kbps REAL,
    checkpoint_owner TEXT,
    state_checkpoint TEXT,
    state_checkpoint_sub_sequence_number INTEGER,
    state_version INTEGER,
    state BLOB,
    -- 64 random bits, read as a signed number.
    write_token INTEGER,
    PRIMARY KEY (application, lease_key)
) STRICT, WITHOUT ROWID;

-- How a worker finds what is assigned to it. Renewals do not touch the owner, so they cost no write here.
CREATE INDEX shardwell_leases_by_owner ON shardwell_leases (application, lease_owner);

CREATE TABLE shardwell_workers (
    application TEXT NOT NULL,
    worker_id TEXT NOT NULL,
    last_update_seconds INTEGER NOT NULL,
    -- JSON objects: the short name of a metric, and an array of numbers.
    samples TEXT NOT NULL,
    operating_range TEXT NOT NULL,
    support_code INTEGER NOT NULL,
    support_heartbeat_seconds INTEGER NOT NULL,
    PRIMARY KEY (application, worker_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE shardwell_leaders (
    application TEXT NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    duration_nanos INTEGER NOT NULL,
    version TEXT NOT NULL,
    released INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE shardwell_fleets (
    application TEXT NOT NULL PRIMARY KEY,
    lease_duration_nanos INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE shardwell_streams (
    application TEXT NOT NULL,
    name TEXT NOT NULL,
    arn TEXT NOT NULL,
    created_at_millis INTEGER NOT NULL,
    PRIMARY KEY (application, name)
) STRICT, WITHOUT ROWID;
