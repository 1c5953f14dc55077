CREATE TABLE shardwell_dead_letters (
    id INTEGER PRIMARY KEY,
    application TEXT NOT NULL,
    stream TEXT NOT NULL,
    shard_id TEXT NOT NULL,
    -- Sequence numbers do not fit 64 bits. With the number of their digits before them, they sort as numbers.
    sequence_number_digits INTEGER NOT NULL CHECK (sequence_number_digits = length(sequence_number)),
    sequence_number TEXT NOT NULL CHECK (
        length(sequence_number) BETWEEN 1 AND 129
        AND sequence_number NOT GLOB '*[^0-9]*'
        AND sequence_number NOT GLOB '0?*'
    ),
    sub_sequence_number INTEGER NOT NULL CHECK (sub_sequence_number >= 0),
    partition_key TEXT,
    reason TEXT NOT NULL,
    -- A JSON array: the error and its causes, outermost first.
    error TEXT NOT NULL CHECK (json_valid(error)),
    died_at_millis INTEGER NOT NULL,
    -- dead, requested, redriving, parked, redriven
    state TEXT NOT NULL,
    rounds INTEGER NOT NULL,
    changed_at_millis INTEGER NOT NULL,
    claimed_by TEXT CHECK ((claimed_by IS NOT NULL) = (state = 'redriving')),
    claimed_until_millis INTEGER CHECK ((claimed_until_millis IS NULL) = (claimed_by IS NULL)),
    -- The whole letter as JSON, without its payload. The columns above hold what can be searched for.
    letter TEXT NOT NULL,
    -- The payload comes last: what is before it can be read without it.
    data BLOB NOT NULL,
    UNIQUE (application, stream, shard_id, sequence_number_digits, sequence_number, sub_sequence_number)
) STRICT;

-- What can be given out for another try, in the order in which it is.
CREATE INDEX shardwell_dead_letters_open ON shardwell_dead_letters
    (application, stream, sequence_number_digits, sequence_number, sub_sequence_number, shard_id)
    WHERE state IN ('requested', 'redriving');

-- Which keys somebody holds.
CREATE INDEX shardwell_dead_letters_held ON shardwell_dead_letters (application, stream, partition_key)
    WHERE state = 'redriving';

-- Which keys have anything that is not redriven. What is redriven may stay for ever and costs nothing here.
CREATE INDEX shardwell_dead_letters_keys ON shardwell_dead_letters (application, stream, partition_key)
    WHERE state <> 'redriven';
